"""The sampler: turns samples into pixels on the host and keeps the device busy. It knows no shards and no files.

One thread prepares inputs ahead, and the caller's thread drives the device. Results are copied to the host while the
next batch is made; on CUDA into pinned memory, on a separate stream. Batches have one fixed shape, and
their samples have one level: guidance, strength, negative prompt or none. The last batch of a level is padded, and the
padding is counted. After an out-of-memory error the batch size is halved for the rest of the run.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch

from synthforge.data.images import Uint8
from synthforge.data.layout import canonical_json, digest_of
from synthforge.data.storage import Folder
from synthforge.devices import alone_on_this_machine, is_out_of_memory
from synthforge.errors import ShardFailed, SynthforgeError, WorkError
from synthforge.generation.plan import Plan, Sample
from synthforge.generators.protocol import Generator, ImageRequest, PreparedBatch
from synthforge.progress import Counters
from synthforge.recipe.recipe import Recipe

_Arrived = Callable[[], tuple[Uint8, Uint8]]
"""Waits for a batch to reach the host; returns its pixels and codes, in memory of its own."""


class Sampler:
    """Turns samples into pixels in batches of one fixed shape.

    Args:
        batch: images per batch; None: the generator's default.
    """

    def __init__(self, generator: Generator, plan: Plan, batch: int | None = None) -> None:
        self.generator = generator
        self.plan = plan
        self.batch = batch or generator.default_batch
        self.counters = Counters()
        self._transfer = _Transfer(generator.device)

    def pixels_of(self, samples: list[Sample]) -> dict[int, Uint8]:
        """Pixels by sample index, uint8 (H, W, C). Nothing is rejected."""
        made: dict[int, Uint8] = {}
        for chunk, pixels, _ in self.sampled(samples):
            made |= {sample.index: pixels[row] for row, sample in enumerate(chunk)}
        return made

    def sampled(self, samples: list[Sample]) -> Iterator[tuple[list[Sample], Uint8, Any]]:
        """Batches of samples with their pixels on the host, uint8 (N, H, W, C), and the generator's codes, uint8 (N,).

        One batch is on the device while the previous one is copied and handled; inputs are prepared one batch ahead.
        """
        with ThreadPoolExecutor(1, "prepare") as preparer:
            chunks = self._chunks(samples)
            ahead = deque(preparer.submit(self._prepared, chunk) for chunk in chunks[:2])
            copying: tuple[list[Sample], _Arrived] | None = None
            for number, chunk in enumerate(chunks):
                prepared = ahead.popleft().result()
                if number + 2 < len(chunks):
                    ahead.append(preparer.submit(self._prepared, chunks[number + 2]))
                for part, copy in self._on_device(chunk, prepared):
                    if copying is not None:
                        yield copying[0], *copying[1]()
                    copying = (part, copy)
            if copying is not None:
                yield copying[0], *copying[1]()

    def _chunks(self, samples: list[Sample]) -> list[list[Sample]]:
        """Batches of one level each, in order. They depend on the shard and the batch size only."""
        chunks = []
        for _, group in groupby(sorted(samples, key=lambda sample: (sample.level, sample.index)), key=lambda sample: sample.level):
            of_level = list(group)
            chunks += [of_level[start : start + self.batch] for start in range(0, len(of_level), self.batch)]
        return chunks

    def batch_of(self, samples: list[Sample]) -> PreparedBatch:
        """A batch of the fixed shape from samples of any level, to compile and warm up with."""
        requests = _of_one_level([sample.request() for sample in samples])
        return self.generator.prepare((requests * self.batch)[: self.batch])

    def _prepared(self, chunk: list[Sample]) -> PreparedBatch:
        """A batch of the fixed shape; a short one is padded with its last sample."""
        requests = [sample.request() for sample in chunk]
        return self.generator.prepare(requests + [requests[-1]] * (self.batch - len(requests)))

    def _on_device(self, chunk: list[Sample], prepared: PreparedBatch) -> Iterator[tuple[list[Sample], _Arrived]]:
        """Sample one batch; after an out-of-memory error in halves, with a smaller batch from then on."""
        # A batch that was prepared before a halving is still too large.
        copy = self._tried(prepared) if prepared.num_images <= self.batch else None
        if copy is not None:
            self.counters.padding += prepared.num_images - len(chunk)
            yield chunk, copy
            return
        if prepared.num_images <= self.batch:
            self.batch = math.ceil(self.batch / 2)
            self.counters.halvings += 1
            if self.generator.device.type == "cuda":
                torch.cuda.empty_cache()
        size = self.batch  # a part may halve the batch again
        for start in range(0, len(chunk), size):
            part = chunk[start : start + size]
            yield from self._on_device(part, self._prepared(part))

    def _tried(self, prepared: PreparedBatch) -> _Arrived | None:
        """The batch on its way to the host; None if memory ran out."""
        try:
            return self._transfer.begin(*self.generator.sample(prepared))
        except SynthforgeError:
            raise
        except (RuntimeError, MemoryError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
            if not is_out_of_memory(error):
                reason = next(iter(str(error).strip().splitlines()), "")
                raise ShardFailed(
                    f"the generator failed ({type(error).__name__}: {reason}); look at it with `synthforge preview`"
                ) from error
            if prepared.num_images == 1:
                # Every shard would fail on this device, so this stops the run and quarantines nothing.
                raise WorkError("out of memory with a single image; use another device or a smaller model, then run again") from error
            return None


class _Transfer:
    """Copies batches to the host; on CUDA into pinned memory on a separate stream, so that the next need not wait.

    Two pinned buffers take turns. This is safe, because a batch is read before the one after the next begins.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._turn = 0

    def begin(self, pixels: torch.Tensor, codes: torch.Tensor) -> _Arrived:
        if self._stream is None:
            arrays = pixels.cpu().numpy(), codes.cpu().numpy()
            return lambda: arrays
        if not self._buffers or self._buffers[0][0].shape != pixels.shape:
            self._buffers = [(_pinned_like(pixels), _pinned_like(codes)) for _ in range(2)]
        host_pixels, host_codes = self._buffers[self._turn]
        self._turn = 1 - self._turn
        self._stream.wait_stream(torch.cuda.current_stream(pixels.device))
        with torch.cuda.stream(self._stream):
            host_pixels.copy_(pixels, non_blocking=True)
            host_codes.copy_(codes, non_blocking=True)
            # The allocator must not give this memory away before the copy stream is done with it.
            pixels.record_stream(self._stream)
            codes.record_stream(self._stream)
            done = torch.cuda.Event()
            done.record(self._stream)

        def arrived() -> tuple[Uint8, Uint8]:
            done.synchronize()
            return host_pixels.numpy().copy(), host_codes.numpy().copy()

        return arrived


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


def measure(generator: Generator, plan: Plan, seconds: float = 2.0, largest: int = 1024) -> dict[int, float]:
    """Images per second of the generator at growing batch sizes, until memory or the gain ends.

    Each size is warmed up once.
    """
    rates: dict[int, float] = {}
    batch = 1
    while batch <= largest:
        prepared = generator.prepare(_of_one_level([plan[index].request() for index in range(batch)]))
        try:
            _timed(generator, prepared)
            done, elapsed = 0, 0.0
            while elapsed < seconds / 4 or done == 0:
                elapsed += _timed(generator, prepared)
                done += batch
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise WorkError(
                    f"the generator failed at batch {batch} ({type(error).__name__}: {str(error).partition(chr(10))[0]})"
                ) from error
            break
        rates[batch] = done / elapsed
        # No gain in two doublings: larger batches only cost memory.
        if len(rates) > 3 and rates[batch] < 1.03 * max(list(rates.values())[:-2]):
            break
        batch *= 2
    if generator.device.type == "cuda":
        torch.cuda.empty_cache()
    if not rates:
        raise WorkError("out of memory with a single image; use another device or a smaller model")
    return rates


def _of_one_level(requests: list[ImageRequest]) -> list[ImageRequest]:
    first = requests[0]
    return [replace(request, guidance=first.guidance, strength=first.strength, negative=first.negative) for request in requests]


def _timed(generator: Generator, prepared: PreparedBatch) -> float:
    started = time.perf_counter()
    pixels, _ = generator.sample(prepared)
    pixels.cpu()
    return time.perf_counter() - started


def best_batch(rates: dict[int, float]) -> int:
    """The smallest batch within 5 % of the best rate."""
    return min(batch for batch, rate in rates.items() if rate >= 0.95 * max(rates.values()))


def load_generator(recipe: Recipe, plan: Plan, *, device: str | None = None, dtype: str | None = None) -> Generator:
    """Load the recipe's model.

    Args:
        device: device name; None: the recipe's.
        dtype: precision of an existing dataset, used where the recipe says `auto`; None: the recipe's.
    """
    if recipe.execution.threads is not None:
        torch.set_num_threads(recipe.execution.threads)
    config = plan.generator
    if dtype is not None and getattr(config, "dtype", None) == "auto":
        config = config.model_copy(update={"dtype": dtype})
    return config.build(plan.files, recipe.sampling, device or recipe.execution.device)


def chosen_batch(generator: Generator, plan: Plan, log: Folder, num_samples: int) -> int:
    """The batch size: the recipe's; else on CUDA the best by measurement; else the generator's default.

    Measurements are kept in `log` by device and model, so reruns and other workers need not measure again.

    Args:
        num_samples: to be made; for few samples, large batches are not worth measuring.
    """
    if plan.recipe.execution.batch is not None or generator.device.type != "cuda":
        return plan.recipe.execution.batch or generator.default_batch
    device = torch.cuda.get_device_name(generator.device)
    key = digest_of([device, generator.identity()])[:16]
    largest = max(1, num_samples // 16)
    with alone_on_this_machine(f"measure-{key}"):
        batch = _logged_batch(log, key, largest)
        if batch is None:
            rates = measure(generator, plan, largest=largest)
            batch = best_batch(rates)
            measured = [{"batch": size, "images_per_second": rate} for size, rate in rates.items()]
            content = {"batch": batch, "largest": largest, "device": device, "measured": measured}
            log.replace(f"batch-{key}.json", canonical_json(content))
    return batch


def _logged_batch(log: Folder, key: str, largest: int) -> int | None:
    """An earlier measurement; None if there is none, or if larger batches should be measured now."""
    try:
        content = json.loads(log.read(f"batch-{key}.json"))
        batch, measured_to = int(content["batch"]), int(content["largest"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return batch if batch < measured_to or largest <= measured_to else None
