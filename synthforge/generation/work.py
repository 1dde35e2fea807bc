"""Shards as work for an executor: a worker loads the model once, then makes shards and reports on each.

Not covered: which shards are made, and what happens to failed ones (see run).
"""

from __future__ import annotations

import itertools
import os
import platform
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import LOG, Shard, canonical_json
from synthforge.data.storage import Folder, writer_name
from synthforge.devices import own_gpu
from synthforge.errors import ShardFailed
from synthforge.executors.protocol import Place
from synthforge.generation.engine import Engine
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler, chosen_batch, load_generator
from synthforge.progress import Counters
from synthforge.recipe.recipe import Recipe

_LIBRARIES = ("synthforge", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "pillow")


@dataclass(frozen=True)
class ShardWork:
    """Make and commit shards of a recipe's pool; picklable."""

    recipe: Recipe
    known: Mapping[str, str]
    """`Plan.digests`, so that workers need not digest gigabytes again."""
    num_samples: int
    """Samples of the whole dataset, which decides the prompts to be encoded."""
    dtype: str | None = None
    """Precision that the dataset was begun in; None: as recipe and device decide."""

    def open(self, place: Place) -> ShardStream:
        """Unroll the recipe and load its model onto this worker's device."""
        recipe = self.recipe
        device = own_gpu(place.worker, place.workers, recipe.execution.device)
        if recipe.execution.threads is None and place.workers > 1:
            # If each worker used all cores, they would slow each other down.
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.workers))
        plan = Plan.of(recipe, self.known)
        generator = load_generator(recipe, plan, device=device, dtype=self.dtype)
        texts = plan.texts(self.num_samples)
        if texts is not None:
            generator.learn_texts(texts)
        log = Folder(recipe.pool_path, recipe.output.single_writer).within(LOG)
        sampler = Sampler(generator, plan, chosen_batch(generator, plan, log, self.num_samples // place.workers))
        generator.compile(sampler.batch_of([plan[index] for index in range(min(sampler.batch, self.num_samples))]))
        return ShardStream(sampler, log, place)


def default_workers(device: str) -> int:
    """Workers of a recipe without a number: one per GPU for device `auto`, else one."""
    return max(1, torch.cuda.device_count()) if device == "auto" else 1


class ShardStream:
    """A loaded model that makes shards. Implements `executors.protocol.Stream`; a receipt is the change of the
    counters.
    """

    def __init__(self, sampler: Sampler, log: Folder, place: Place) -> None:
        self.sampler = sampler
        self._log = log
        self._place = place
        self._engine: Engine | None = None
        self._seconds = 0.0

    def describe(self) -> dict[str, Any]:
        """The generator's identity, as the manifest has it."""
        return self.sampler.generator.identity()

    def run(self, units: Iterator[Shard], advance: Callable[[int], None]) -> Generator[tuple[Shard, Counters | ShardFailed], None, None]:
        """Make shards until there are no more."""
        recipe = self.sampler.plan.recipe
        first = next(units, None)
        if first is None:
            return
        if self._engine is None:  # only now: the caller creates the dataset after the model is loaded
            dataset = DatasetFolder.open(recipe.pool_path, recipe.output.single_writer)
            self._engine = Engine(self.sampler, dataset, recipe.execution.encoders)
        started, before = time.perf_counter(), self.sampler.counters.copy()
        for shard, outcome in self._engine.run(itertools.chain([first], units), advance):
            after = self.sampler.counters.copy()
            yield shard, outcome if isinstance(outcome, ShardFailed) else after - before
            before = before if isinstance(outcome, ShardFailed) else after
        self._seconds += time.perf_counter() - started

    def close(self) -> None:
        """Write telemetry to the log. It is in no digest."""
        if self._engine is None:
            return
        device = self.sampler.generator.device
        is_gpu = device.type == "cuda"
        versions = {name: version(name) for name in _LIBRARIES}
        telemetry = {
            "worker": asdict(self._place),
            "seconds": round(self._seconds, 3),
            "device": torch.cuda.get_device_name(device) if is_gpu else f"{device.type}, {torch.get_num_threads()} threads",
            "batch": self.sampler.batch,
            "acceleration": self.sampler.generator.acceleration(),
            "counters": asdict(self.sampler.counters),
            "versions": {"python": platform.python_version(), **versions, "cuda": torch.version.cuda},
        }
        self._log.replace(f"run-{writer_name()}-{secrets.token_hex(4)}.json", canonical_json(telemetry))
