"""The engine: makes one shard at a time, from plan to sealed tar, and keeps the device busy.

The sampler makes pixels. Threads take them from a bounded queue and compress them into a spool file, since images are
made grouped by strength and guidance, not in key order. One writer builds the tar in key order and commits it. While a
shard is compressed and committed, the device works on the next. Memory stays at some batches of pixels, whatever the
size of a shard.

Images that come out blank, not finite or flagged are made again with the sample's next attempt, in separate batches
at the end of the shard. A sample whose attempts all fail is left out and recorded in the shard's table of failures.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import Uint8, encode, is_blank
from synthforge.data.layout import Seal, Shard
from synthforge.data.storage import Folder, as_our_error
from synthforge.data.tars import FAILURES_SCHEMA, EncodedSample, table_bytes, write_tar
from synthforge.errors import ShardFailed
from synthforge.generation.plan import Sample
from synthforge.generation.sampler import Sampler
from synthforge.generators.protocol import REASONS

SHARDS_IN_FLIGHT = 2
"""Shards being compressed or committed while the device works on another."""
BATCHES_WAITING = 4
"""Batches of pixels that may wait to be compressed; beyond that the device waits."""
HOPELESS = 32
"""Give a shard up once it has no good image and at least this many were rejected."""


class _Spool:
    """Compressed images on disk until the tar is written. The file has no name, so a killed run leaves nothing."""

    def __init__(self, folder: Folder) -> None:
        try:
            self._file = tempfile.TemporaryFile(dir=folder.path)  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise as_our_error(error, folder.address) from error
        self._lock = threading.Lock()
        self._end = 0

    def add(self, data: bytes) -> tuple[int, int]:
        """Append bytes; returns their offset and size. Any thread may call it."""
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
class _Draft:
    """A shard between device and commit."""

    shard: Shard
    spool: _Spool
    images: dict[int, tuple[Sample, Future[tuple[int, int]]]] = field(default_factory=dict)
    """Sample index to the sample and its future place in the spool."""
    attempts: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    """Sample index to its rejected attempts, with their reasons."""
    left_out: list[Sample] = field(default_factory=list)
    """The last attempt of every sample whose attempts were all rejected."""

    @property
    def reasons(self) -> Counter[str]:
        """Number of rejected images by reason."""
        return Counter(attempt["reason"] for attempts in self.attempts.values() for attempt in attempts)

    def discard(self) -> None:
        """Close the spool after all threads have stopped writing to it."""
        futures = [future for _, future in self.images.values()]
        for future in futures:
            future.cancel()
        wait(futures)
        self.spool.close()


class Engine:
    """Makes and commits shards of one plan with one loaded generator.

    Args:
        threads: threads that compress images; None: one per core, at most eight.
    """

    def __init__(self, sampler: Sampler, dataset: DatasetFolder, threads: int | None = None) -> None:
        self.sampler = sampler
        self.plan = sampler.plan
        self.dataset = dataset
        self.counters = sampler.counters
        self._num_threads = threads or min(8, os.cpu_count() or 1)
        self._generator_record = sampler.generator.identity()
        self._attempts = self.plan.recipe.sampling.attempts
        self._waiting = threading.BoundedSemaphore(max(64, BATCHES_WAITING * sampler.batch))

    def run(
        self, shards: Iterable[Shard], on_images: Callable[[int], None] = lambda num: None
    ) -> Iterator[tuple[Shard, Seal | ShardFailed]]:
        """Make and commit shards. Yields each with its seal, or with the error that stopped it, once committed.

        Args:
            on_images: called after every batch with the number of samples done; negative when a shard fails.
        Raises: errors of storage, and errors that would stop every shard.
        """
        with ThreadPoolExecutor(self._num_threads, "encode") as threads, ThreadPoolExecutor(1, "write") as writer:
            pending: deque[tuple[_Draft, Future[Seal]]] = deque()
            try:
                for shard in shards:
                    try:
                        draft = self._make(shard, threads, on_images)
                    except ShardFailed as error:
                        yield shard, error
                        continue
                    pending.append((draft, writer.submit(self._commit, draft)))
                    while len(pending) > SHARDS_IN_FLIGHT or (pending and pending[0][1].done()):
                        yield self._settled(*pending.popleft())
                while pending:
                    yield self._settled(*pending.popleft())
            finally:
                for draft, future in pending:
                    if future.cancel():
                        draft.discard()

    def _settled(self, draft: _Draft, future: Future[Seal]) -> tuple[Shard, Seal]:
        seal = future.result()
        self.counters.shards += 1
        self.counters.images += len(draft.shard.samples) - len(draft.left_out)
        self.counters.left_out += len(draft.left_out)
        self.counters.rejected = dict(Counter(self.counters.rejected) + draft.reasons)
        return draft.shard, seal

    def _make(self, shard: Shard, threads: ThreadPoolExecutor, on_images: Callable[[int], None]) -> _Draft:
        """Sample a whole shard, attempt by attempt. Compression goes on in the background."""
        draft = _Draft(shard, _Spool(self.dataset.folder))
        settled = 0
        try:
            due = [self.plan.sample(index) for index in shard.samples]
            for attempt in range(self._attempts):
                rejected: list[Sample] = []
                for chunk, pixels, codes in self.sampler.sampled(due):
                    bad = self._sort_out(draft, chunk, pixels, codes, threads=threads)
                    rejected += bad
                    settled += len(chunk) - len(bad)
                    on_images(len(chunk) - len(bad))
                if not rejected:
                    return draft
                if attempt + 1 == self._attempts or (not draft.images and len(rejected) >= HOPELESS):
                    draft.left_out = rejected
                    break
                due = [self.plan.sample(sample.index, attempt + 1) for sample in rejected]
            if not draft.images:
                reasons = " or ".join(sorted(draft.reasons))
                raise ShardFailed(
                    f"every one of {len(shard.samples):,} images came out {reasons}, in {attempt + 1} attempt(s); "
                    "look at the model with `synthforge preview`",
                    is_final=True,  # another try would make the same images
                )
            on_images(len(draft.left_out))
            return draft
        except BaseException as error:
            on_images(-settled)
            draft.discard()
            if isinstance(error, ShardFailed):
                raise ShardFailed(f"{shard.stem}: {error}", is_final=error.is_final) from error
            raise

    def _sort_out(self, draft: _Draft, chunk: list[Sample], pixels: Uint8, codes: Uint8, *, threads: ThreadPoolExecutor) -> list[Sample]:
        """Have good images compressed, waiting while the queue is full. Returns the samples of the rejected ones."""
        blank = is_blank(pixels)
        rejected: list[Sample] = []
        for row, sample in enumerate(chunk):
            reason = REASONS[codes[row] - 1] if codes[row] else "blank" if blank[row] else None
            if reason is None:
                self._waiting.acquire()
                future = threads.submit(self._encode, draft.spool, pixels[row])
                future.add_done_callback(lambda _: self._waiting.release())  # also when it is cancelled
                draft.images[sample.index] = (sample, future)
            else:
                draft.attempts.setdefault(sample.index, []).append({"seed": sample.seed, "reason": reason})
                rejected.append(sample)
        return rejected

    def _encode(self, spool: _Spool, pixels: Uint8) -> tuple[int, int]:
        output = self.plan.recipe.output
        return spool.add(encode(pixels, output.format, output.quality, output.marking))

    def _commit(self, draft: _Draft) -> Seal:
        try:
            with self.dataset.folder.scratch(draft.shard.tar) as path:
                write_tar(path, self._encoded(draft))
                if draft.left_out:
                    # Before the tar, so that a run that adopts the tar after a kill finds the reasons too.
                    self.dataset.folder.publish(draft.shard.failures, table_bytes(self._failures(draft)))
                return self.dataset.commit(draft.shard, path, self.plan.check)
        finally:
            draft.discard()

    def _failures(self, draft: _Draft) -> pa.Table:
        """The samples left out, in key order (schema `tars.FAILURES_SCHEMA`)."""
        rows = []
        for sample in sorted(draft.left_out, key=lambda sample: sample.index):
            row = {"key": sample.key, "class": sample.class_name, "class_index": sample.class_index, "prompt": sample.prompt}
            attempts = draft.attempts[sample.index]
            rows.append(row | {"seeds": [one["seed"] for one in attempts], "reasons": [one["reason"] for one in attempts]})
        return pa.Table.from_pylist(rows, schema=FAILURES_SCHEMA)

    def _encoded(self, draft: _Draft) -> Iterator[EncodedSample]:
        """The samples of a shard in key order."""
        for index in sorted(draft.images):
            sample, future = draft.images[index]
            yield EncodedSample(
                key=sample.key,
                image=draft.spool.read(*future.result()),
                extension=self.plan.recipe.output.format,
                class_index=sample.class_index,
                text=sample.prompt,
                record=sample.record(draft.attempts.get(index, []), self._generator_record) | self.plan.cut_texts(sample),
            )
