"""A small real generator whose failures can be chosen, and an engine that runs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode
from synthforge.data.storage import Folder
from synthforge.generation.engine import Engine
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler
from synthforge.generators.protocol import ImageRequest
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small


@dataclass
class Noise:
    """Implements `generators.protocol.Generator`: each image is noise of its own seed, with faults by seed or batch
    size."""

    blank: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    flagged: set[int] = field(default_factory=set)
    memory: int = 10**9
    """Images that fit at once."""
    batches: list[tuple[int, float]] = field(default_factory=list)
    resolution: int = 8
    default_batch: int = 8
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def identity(self) -> dict[str, Any]:
        return {"class": "Noise", "model": "noise", "sha256": "0" * 64}

    def acceleration(self) -> dict[str, Any]:
        return {}

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        pass

    def compile(self, batch: Any) -> None:
        pass

    def prepare(self, requests: Sequence[ImageRequest]) -> _Seeds:
        assert len({request.guidance for request in requests}) == 1, "a batch has one level"
        return _Seeds([request.seed for request in requests], requests[0].guidance)

    def sample(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if batch.num_images > self.memory:
            raise torch.OutOfMemoryError("chosen") if self.memory % 2 else RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.batches.append((batch.num_images, batch.guidance))
        images = torch.stack([torch.randint(0, 256, (8, 8, 1), generator=torch.Generator().manual_seed(seed)) for seed in batch.seeds])
        for row, seed in enumerate(batch.seeds):
            if seed in self.blank:
                images[row] = 7
        return images.to(torch.uint8), torch.tensor(
            [1 if seed in self.broken else 2 if seed in self.flagged else 0 for seed in batch.seeds]
        ).to(torch.uint8)


@dataclass
class _Seeds:
    seeds: list[int]
    guidance: float

    @property
    def num_images(self) -> int:
        return len(self.seeds)


def setup(tmp_path: Path, generator: Noise, **changes: object) -> tuple[Engine, Plan]:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path, **changes)))
    dataset = DatasetFolder.create(Folder(str(tmp_path / "pool")), plan.manifest(generator.identity()))
    return Engine(Sampler(generator, plan, plan.recipe.execution.batch), dataset), plan


def run(engine: Engine) -> list[Any]:
    return [outcome for _, outcome in engine.run(engine.dataset.state().missing)]


def stored(engine: Engine, key: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    row, members = engine.dataset.sample(str(key))
    return decode(members["image"]), json.loads(members["json"]), row


def noise_of(seed: int) -> np.ndarray:
    return torch.randint(0, 256, (8, 8, 1), generator=torch.Generator().manual_seed(seed)).to(torch.uint8).numpy()
