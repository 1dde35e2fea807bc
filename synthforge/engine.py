"""The engine: one unit of work, a shard, from plan to sealed tar, with the device kept busy.

One thread prepares inputs ahead; the caller's drives the device and copies results to the host (pinned, on a stream of its own on
CUDA); encoders compress images from a bounded queue into a spool file, since levels come out of key order; one writer builds the
tar in key order and commits it. While a shard is encoded and committed the device works on the next, and memory stays at some batches
of pixels whatever the size of a shard.

Batches have one fixed shape, aligned to the start of the shard and the level; the last of a level is padded and the padding counted.
Images that come out blank or not finite are made again with the next attempt of the same sample, in batches of their own at
the end of the shard. After an out-of-memory error the batch is halved for the rest of the run.
"""

from __future__ import annotations

import math
import os
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any

import torch

from synthforge.errors import ShardFailed, WorkError
from synthforge.generators.protocol import Generator, Prepared
from synthforge.images import Uint8, encode, is_blank
from synthforge.plan import Plan, Sample
from synthforge.progress import Counters
from synthforge.recipe import Recipe
from synthforge.shards.folder import DatasetFolder
from synthforge.shards.layout import Seal, Shard, digest_of
from synthforge.shards.tars import EncodedSample, write_tar
from synthforge.storage import Folder, in_words

SHARDS_IN_FLIGHT = 2
"""Shards being encoded or committed while the device works on another."""
BATCHES_WAITING = 4
"""Batches of pixels that may wait for an encoder; then the device waits."""


class Sampler:
    """Turns samples into pixels in batches of one fixed shape; knows nothing of shards and files.

    Args:
        batch: images per batch; None takes the generator's default.
    """

    def __init__(self, generator: Generator, plan: Plan, batch: int | None = None) -> None:
        self.generator = generator
        self.plan = plan
        self.batch = batch or generator.default_batch
        self.counters = Counters()
        self._transfer = _Transfer(generator.device)

    def pixels_of(self, samples: list[Sample]) -> dict[int, Uint8]:
        """Pixels by sample index, uint8 (H, W, C), as they come out: nothing is rejected."""
        made: dict[int, Uint8] = {}
        for chunk, pixels, _ in self.sampled(samples):
            made |= {sample.index: pixels[row] for row, sample in enumerate(chunk)}
        return made

    def sampled(self, samples: list[Sample]) -> Iterator[tuple[list[Sample], Uint8, Any]]:
        """Batches of samples with their pixels on the host, uint8 (N, H, W, C), and which are not finite, bool (N,).

        One batch is on the device while the one before is copied and handled; inputs are prepared one batch ahead.
        """
        with ThreadPoolExecutor(1, "prepare") as preparer:
            chunks = self._chunks(samples)
            ahead = deque(preparer.submit(self._prepared, chunk) for chunk in chunks[:2])
            copying: tuple[list[Sample], _Copy] | None = None
            for number, chunk in enumerate(chunks):
                prepared = ahead.popleft().result()
                if number + 2 < len(chunks):
                    ahead.append(preparer.submit(self._prepared, chunks[number + 2]))
                for part, copy in self._on_device(chunk, prepared):
                    if copying is not None:
                        yield copying[0], *copying[1].wait()
                    copying = (part, copy)
            if copying is not None:
                yield copying[0], *copying[1].wait()

    def _chunks(self, samples: list[Sample]) -> list[list[Sample]]:
        """Batches of one level each, in order; which sample is in which batch depends on the shard and the batch size only."""
        chunks = []
        for _, group in groupby(sorted(samples, key=lambda sample: (sample.level, sample.index)), key=lambda sample: sample.level):
            of_level = list(group)
            chunks += [of_level[start : start + self.batch] for start in range(0, len(of_level), self.batch)]
        return chunks

    def _prepared(self, chunk: list[Sample]) -> Prepared:
        """A batch of the fixed shape: the last sample is repeated where one is short."""
        requests = [sample.request() for sample in chunk]
        return self.generator.prepare(requests + [requests[-1]] * (self.batch - len(requests)))

    def _on_device(self, chunk: list[Sample], prepared: Prepared) -> Iterator[tuple[list[Sample], _Copy]]:
        """Sample one batch; after an out-of-memory error, in halves, and all later batches are as small."""
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

    def _tried(self, prepared: Prepared) -> _Copy | None:
        """The batch, on its way to the host; None if memory did not do for it."""
        try:
            return self._transfer.begin(*self.generator.sample(prepared))
        except (RuntimeError, MemoryError) as error:
            reason = str(error).strip().partition("\n")[0]
            if not is_out_of_memory(error):
                raise ShardFailed(
                    f"the generator failed ({type(error).__name__}: {reason}); look at it with `synthforge preview`"
                ) from error
            if prepared.num_images == 1:
                # No shard will do better on this device, so this stops the run and quarantines nothing.
                raise WorkError("out of memory with a single image; use another device or a smaller model, then run again") from error
            return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch means that memory did not do; on a CPU, and from cuBLAS, it is a plain RuntimeError."""
    words = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(word in str(error) for word in words)


class _Spool:
    """Encoded images on disk while they wait for their turn in the tar; the file has no name, so a kill leaves nothing behind."""

    def __init__(self, folder: Folder) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder.path)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise in_words(error, folder.address) from error
        self._lock = threading.Lock()
        self._end = 0

    def add(self, data: bytes) -> tuple[int, int]:
        """Where the bytes lie: offset and size. Any thread may call it."""
        with self._lock:
            offset, self._end = self._end, self._end + len(data)
        written = 0
        while written < len(data):  # a disk that is almost full takes a part before it refuses
            written += os.pwrite(self._file.fileno(), data[written:], offset + written)
        return offset, len(data)

    def read(self, offset: int, size: int) -> bytes:
        data = os.pread(self._file.fileno(), size, offset)
        assert len(data) == size
        return data

    def close(self) -> None:
        self._file.close()


@dataclass
class _Work:
    """A shard between device and commit."""

    shard: Shard
    spool: _Spool
    images: dict[int, tuple[Sample, Future[tuple[int, int]]]] = field(default_factory=dict)
    """By sample index: the sample, and where its encoded image will lie in the spool."""
    attempts: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Sample index to the attempts that were rejected, with their reasons."""
    left_out: int = 0

    def discard(self) -> None:
        """Close the spool once no encoder writes to it any more."""
        futures = [future for _, future in self.images.values()]
        for future in futures:
            future.cancel()
        wait(futures)
        self.spool.close()


class Engine:
    """Makes and commits shards of one plan with one loaded generator.

    Args:
        encoders: encoding threads; None takes one per core, at most eight.
    """

    def __init__(self, sampler: Sampler, dataset: DatasetFolder, encoders: int | None = None) -> None:
        self.sampler = sampler
        self.plan = sampler.plan
        self.dataset = dataset
        self.counters = sampler.counters
        self._num_encoders = encoders or min(8, os.cpu_count() or 1)
        identity = dataset.manifest.generator or {}
        # Records repeat per sample, so they name the generator by a digest; the manifest has it in full.
        self._generator_record = {"model": identity.get("model"), "sha256": identity.get("sha256"), "identity": digest_of(identity)[:16]}
        self._attempts = self.plan.recipe.sampling.attempts
        self._waiting = threading.BoundedSemaphore(max(64, BATCHES_WAITING * sampler.batch))

    def run(
        self, shards: Iterable[Shard], on_images: Callable[[int], None] = lambda num: None
    ) -> Iterator[tuple[Shard, Seal | ShardFailed]]:
        """Make and commit shards; yields each with its seal or with the error that stopped it, as it is committed.

        Args:
            on_images: called with the number of samples settled, after every batch; negative when a shard fails.
        Errors of storage, and those that would stop every shard, are raised.
        """
        with ThreadPoolExecutor(self._num_encoders, "encode") as encoders, ThreadPoolExecutor(1, "write") as writer:
            pending: deque[tuple[_Work, Future[Seal]]] = deque()
            try:
                for shard in shards:
                    try:
                        work = self._make(shard, encoders, on_images)
                    except ShardFailed as error:
                        yield shard, error
                        continue
                    pending.append((work, writer.submit(self._commit, work)))
                    while len(pending) > SHARDS_IN_FLIGHT or (pending and pending[0][1].done()):
                        yield self._settled(*pending.popleft())
                while pending:
                    yield self._settled(*pending.popleft())
            finally:
                for work, future in pending:
                    if future.cancel():
                        work.discard()

    def _settled(self, work: _Work, future: Future[Seal]) -> tuple[Shard, Seal]:
        seal = future.result()
        self.counters.shards += 1
        self.counters.images += len(work.shard.samples) - work.left_out
        self.counters.left_out += work.left_out
        reasons = Counter(attempt["reason"] for attempts in work.attempts.values() for attempt in attempts)
        self.counters.rejected = dict(Counter(self.counters.rejected) + reasons)
        return work.shard, seal

    def _make(self, shard: Shard, encoders: ThreadPoolExecutor, on_images: Callable[[int], None]) -> _Work:
        """Sample a whole shard, attempt by attempt; encoding is only begun here."""
        work = _Work(shard, _Spool(self.dataset.folder))
        settled = 0
        try:
            due = [self.plan.sample(index) for index in shard.samples]
            for attempt in range(self._attempts):
                rejected: list[Sample] = []
                for chunk, pixels, broken in self.sampler.sampled(due):
                    good = self._sort_out(work, chunk, pixels, broken, encoders, rejected)
                    settled += good
                    on_images(good)
                if not rejected:
                    return work
                due = [self.plan.sample(sample.index, attempt + 1) for sample in rejected]
            work.left_out = len(due)
            if not work.images:
                reasons = ", ".join(sorted({attempt["reason"] for attempts in work.attempts.values() for attempt in attempts}))
                raise ShardFailed(
                    f"every image came out {reasons} in {self._attempts} attempts; look at the model with `synthforge preview`"
                )
            on_images(len(due))
            return work
        except BaseException as error:
            on_images(-settled)
            work.discard()
            if isinstance(error, ShardFailed):
                raise ShardFailed(f"{shard.stem}: {error}") from error
            raise

    def _sort_out(
        self, work: _Work, chunk: list[Sample], pixels: Uint8, broken: Any, encoders: ThreadPoolExecutor, rejected: list[Sample]
    ) -> int:
        """Send good images to the encoders, waiting while too many are on their way; note the others. The number of good ones."""
        blank = is_blank(pixels)
        for row, sample in enumerate(chunk):
            reason = "not finite" if broken[row] else "blank" if blank[row] else None
            if reason is None:
                self._waiting.acquire()
                future = encoders.submit(self._encode, work.spool, pixels[row])
                future.add_done_callback(lambda _: self._waiting.release())  # also when it is cancelled
                work.images[sample.index] = (sample, future)
            else:
                work.attempts.setdefault(sample.index, []).append({"seed": sample.seed, "reason": reason})
                rejected.append(sample)
        return len(chunk) - int((blank | broken)[: len(chunk)].sum())

    def _encode(self, spool: _Spool, pixels: Uint8) -> tuple[int, int]:
        output = self.plan.recipe.output
        return spool.add(encode(pixels, output.format, output.quality, output.marking))

    def _commit(self, work: _Work) -> Seal:
        try:
            with self.dataset.folder.scratch(work.shard.tar) as path:
                write_tar(path, self._encoded(work))
                return self.dataset.commit(work.shard, path, self.plan.check)
        finally:
            work.discard()

    def _encoded(self, work: _Work) -> Iterator[EncodedSample]:
        """The samples of a shard in key order."""
        for index in sorted(work.images):
            sample, future = work.images[index]
            yield EncodedSample(
                key=sample.key,
                image=work.spool.read(*future.result()),
                extension=self.plan.recipe.output.format,
                class_index=sample.class_index,
                text=sample.prompt,
                record=sample.record(work.attempts.get(index, []), self._generator_record),
            )


class _Copy:
    """A batch on its way to the host."""

    def __init__(self, pixels: torch.Tensor, broken: torch.Tensor, done: torch.cuda.Event | None) -> None:
        self._pixels, self._broken, self._done = pixels, broken, done

    def wait(self) -> tuple[Uint8, Any]:
        """The arrays, once they are there; they are this batch's own memory."""
        if self._done is not None:
            self._done.synchronize()
            return self._pixels.numpy().copy(), self._broken.numpy().copy()
        return self._pixels.numpy(), self._broken.numpy()


class _Transfer:
    """Copies batches to the host; on CUDA into pinned memory on a stream of its own, so that the next batch need not wait.

    Two pinned buffers take turns, which is safe because a batch is read before the one after the next is begun.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._buffers: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._turn = 0

    def begin(self, pixels: torch.Tensor, broken: torch.Tensor) -> _Copy:
        if self._stream is None:
            return _Copy(pixels.cpu(), broken.cpu(), None)
        if not self._buffers or self._buffers[0][0].shape != pixels.shape:
            self._buffers = [(_pinned_like(pixels), _pinned_like(broken)) for _ in range(2)]
        host_pixels, host_broken = self._buffers[self._turn]
        self._turn = 1 - self._turn
        self._stream.wait_stream(torch.cuda.current_stream(pixels.device))
        with torch.cuda.stream(self._stream):
            host_pixels.copy_(pixels, non_blocking=True)
            host_broken.copy_(broken, non_blocking=True)
            # The allocator must not give this memory away before the copy stream is done with it.
            pixels.record_stream(self._stream)
            broken.record_stream(self._stream)
            done = torch.cuda.Event()
            done.record(self._stream)
        return _Copy(host_pixels, host_broken, done)


def _pinned_like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)


@dataclass(frozen=True)
class Measured:
    """Rate of one batch size."""

    batch: int
    images_per_second: float


def measure(generator: Generator, plan: Plan, seconds: float = 2.0, largest: int = 1024) -> list[Measured]:
    """Rate of the generator at growing batch sizes, until memory or the gain ends; each is warmed up once."""
    found: list[Measured] = []
    batch = 1
    while batch <= largest:
        level = plan[0].level
        prepared = generator.prepare([replace(plan[index].request(), guidance=level) for index in range(batch)])
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
        found.append(Measured(batch, done / elapsed))
        # No gain in two doublings: larger batches only cost memory.
        if len(found) > 3 and found[-1].images_per_second < 1.03 * max(item.images_per_second for item in found[:-2]):
            break
        batch *= 2
    if not found:
        raise WorkError("out of memory with a single image; use another device or a smaller model")
    return found


def _timed(generator: Generator, prepared: Prepared) -> float:
    started = time.perf_counter()
    pixels, _ = generator.sample(prepared)
    pixels.cpu()
    return time.perf_counter() - started


def best_batch(found: list[Measured]) -> Measured:
    """The smallest batch within 5 % of the best rate."""
    best = max(item.images_per_second for item in found)
    return next(item for item in found if item.images_per_second >= 0.95 * best)


def load_generator(recipe: Recipe, plan: Plan) -> Generator:
    """Load the recipe's model onto its device and check that it knows the classes."""
    if recipe.execution.threads is not None:
        torch.set_num_threads(recipe.execution.threads)
    generator = recipe.generator.build(recipe.sampling, recipe.execution.device)
    generator.check_labels(plan.labels)
    return generator
