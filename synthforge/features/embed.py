"""Features of image collections, computed block by block, cached by content, and read memory-mapped.

A block's features are cached under the digest of its images and the digest of the encoder. So later runs and other
processes find them again, whatever the folder's name. Nothing is written beside the data. Each image is decoded once
for all encoders. Facts about each image are cached in the same way: readable or not, blank or not, digest of pixels.
Real and synthetic images are processed alike: `images.decode` to RGB, `images.resize` to the encoder's size, uint8,
then the model's normalisation. Otherwise the gap would measure file formats.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.arrays import Floats
from synthforge.data.collection import Block, Collection
from synthforge.data.images import Uint8, decode, is_blank, is_transparent, resize
from synthforge.data.layout import digest_of
from synthforge.data.opening import open_collection
from synthforge.data.read_config import Reading
from synthforge.data.reading import read_labelled
from synthforge.data.storage import replace_file
from synthforge.errors import DatasetError, SynthforgeError, WorkError
from synthforge.executors.protocol import Place
from synthforge.executors.running import Workers
from synthforge.features.encoders.config import EncoderConfig
from synthforge.features.encoders.protocol import Encoder, Loading
from synthforge.progress import Reporter

FACTS_SCHEMA = pa.schema(
    [
        pa.field("problem", pa.string()),
        pa.field("pixels", pa.uint64(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("transparent", pa.bool_(), nullable=False),
    ]
)
"""Facts about each image of a block: why it can't be used (null: usable), a digest of its pixels, its size, whether any
pixel is transparent."""

FACTS_VERSION = 2
BATCHES_AHEAD = 3
"""Batches of decoded images that may wait for the device."""


class Features:
    """One encoder's features of a collection: (N, D) float32 on disk, in blocks.

    Args:
        files: written by `np.save`. Each is mapped only while it is read, since open files are limited.
        sizes: rows of each file.
    """

    def __init__(self, files: Sequence[Path], sizes: Sequence[int]) -> None:
        self._files = list(files)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.dim = int(np.load(files[0], mmap_mode="r").shape[1]) if files else 0

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, rows: NDArray[np.int64]) -> Floats:
        """The requested rows in the requested order, as an array in memory."""
        features = np.empty((len(rows), self.dim), np.float32)
        order = np.argsort(rows, kind="stable")
        ends = np.searchsorted(rows[order], self._starts)
        for number in np.flatnonzero(np.diff(ends)):
            here = order[ends[number] : ends[number + 1]]
            features[here] = np.load(self._files[number], mmap_mode="r")[rows[here] - self._starts[number]]
        return features


def features_file(cache: Path, block: Block, encoder: str) -> Path:
    """Where a cache keeps a block's features by the encoder with this digest."""
    return cache / "features" / block.digest[:2] / f"{block.digest[:32]}.{encoder[:16]}.d{block.decoder}.npy"


def facts_file(cache: Path, block: Block) -> Path:
    """Where a cache keeps the facts about a block's images."""
    return cache / "features" / block.digest[:2] / f"{block.digest[:32]}.facts{FACTS_VERSION}.d{block.decoder}.parquet"


def loaded(
    configs: tuple[EncoderConfig, ...], device: str, reference: str, cache: Path, reading: Reading, reporter: Reporter | None = None
) -> list[Encoder]:
    """The encoders of some Configs in order, one for each view."""
    real = read_labelled(reference, cache, reporter, reading)["fit"] if any(config.fits for config in configs) else None
    loading = Loading(cache, device, real, reporter=reporter or Reporter())
    return [encoder for config in configs for encoder in config.build(loading)]


@dataclass(frozen=True)
class EmbedWork:
    """Embed blocks of one collection with some encoders; picklable."""

    address: str
    classes: list[str] | None
    reading: Reading
    encoders: tuple[EncoderConfig, ...]
    cache: Path
    device: str
    batch: int
    decoders: int | None
    reference: str
    """Address of the real images, for encoders that are fitted on them."""
    ready: Sequence[Encoder] | None = None
    """Encoders that are loaded already; not sent to other processes. None: each worker loads them."""

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "ready": None}

    def open(self, place: Place) -> EmbedStream:
        """Load the encoders onto this worker's device."""
        import torch

        if place.workers > 1:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // place.workers))
        return EmbedStream(self, self.ready or loaded(self.encoders, self.device, self.reference, self.cache, self.reading))


class EmbedStream:
    """Loaded encoders that embed blocks. Implements `executors.protocol.Stream`."""

    def __init__(self, work: EmbedWork, encoders: Sequence[Encoder]) -> None:
        self._work = work
        self._encoders = encoders
        self._collection: Collection | None = None
        self._threads = work.decoders or min(8, os.cpu_count() or 1)

    def describe(self) -> list[str]:
        """Digests of the encoders."""
        return [digest_of(encoder.identity()) for encoder in self._encoders]

    def run(self, units: Iterator[Block], advance: Callable[[int], None]) -> Generator[tuple[Block, int | SynthforgeError], None, None]:
        """Embed blocks; a receipt is the number of unusable images."""
        for block in units:
            try:
                yield block, self._embed(block, advance)
            except DatasetError as error:
                yield block, WorkError(str(error))

    def _embed(self, block: Block, advance: Callable[[int], None]) -> int:
        if self._collection is None:
            self._collection = open_collection(self._work.address, self._work.cache, classes=self._work.classes, reading=self._work.reading)
        missing = [
            (encoder, path)
            for encoder, digest in zip(self._encoders, self.describe(), strict=True)
            if not (path := features_file(self._work.cache, block, digest)).exists()
        ]
        sizes = sorted({encoder.resolution for encoder, _ in missing})
        blocks = [np.full((block.num_samples, encoder.dim), np.nan, np.float32) for encoder, _ in missing]
        facts: list[tuple[str | None, int, int, int, bool]] = []
        for batch in _decoded_batches(
            self._collection.images(block), self._work.reading.background, sizes, self._work.batch, self._threads
        ):
            start = len(facts)
            facts += [image.facts for image in batch]
            good = [number for number, image in enumerate(batch) if image.facts[0] is None]
            for (encoder, _), features in zip(missing, blocks, strict=True):
                if good:
                    stacked = np.stack([batch[number].scaled[encoder.resolution] for number in good])
                    features[[start + number for number in good]] = encoder.embed(stacked).numpy()
            advance(len(batch))
        assert len(facts) == block.num_samples, f"{block.name}: {len(facts)} images where {block.num_samples} were indexed"
        for (_, path), features in zip(missing, blocks, strict=True):
            replace_file(path, functools.partial(np.save, arr=features))
        table = pa.Table.from_pylist([dict(zip(FACTS_SCHEMA.names, row, strict=True)) for row in facts], FACTS_SCHEMA)
        replace_file(facts_file(self._work.cache, block), lambda temporary: pq.write_table(table, temporary))
        return sum(problem is not None for problem, *_ in facts)

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True)
class _Decoded:
    facts: tuple[str | None, int, int, int, bool]
    scaled: dict[int, Uint8]
    """Resolution to image."""


def _decoded_batches(images: Iterator[bytes], background: str, sizes: Sequence[int], batch: int, threads: int) -> Iterator[list[_Decoded]]:
    """Batches in order, decoded by threads some batches ahead."""
    with ThreadPoolExecutor(threads, "decode") as pool:
        waiting: deque[list[Future[_Decoded]]] = deque()
        while True:
            while len(waiting) <= BATCHES_AHEAD and (chunk := list(itertools.islice(images, batch))):
                waiting.append([pool.submit(_decode, data, background, sizes) for data in chunk])
            if not waiting:
                return
            yield [future.result() for future in waiting.popleft()]


def _decode(data: bytes, background: str, sizes: Sequence[int]) -> _Decoded:
    try:
        image = decode(data, 3, background)
    except DatasetError as error:
        return _Decoded((str(error), 0, 0, 0, False), {})
    height, width, _ = image.shape
    digest = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8)
    digest.update(f"{height}x{width}".encode())
    pixels = digest.digest()
    problem = "blank" if is_blank(image[None])[0] else None
    return _Decoded(
        (problem, int.from_bytes(pixels, "little"), width, height, is_transparent(data)), {size: resize(image, size) for size in sizes}
    )


TRIES = 3
"""Attempts at a block that fails."""


def embed(collection: Collection, encoders: Sequence[str], work: EmbedWork, workers: int, reporter: Reporter) -> None:
    """Embed all blocks that are not cached yet; raises WorkError with the number of failed blocks.

    Args:
        encoders: digests of all encoders of `work`, in order.
    """
    todo = [
        block
        for block in collection.blocks
        if not (facts_file(work.cache, block).exists() and all(features_file(work.cache, block, one).exists() for one in encoders))
    ]
    if not todo:
        return
    with Workers(work, workers, reporter) as started:
        _, failed = started.run(
            todo,
            task=f"embedding {collection.address.rsplit('/', 1)[-1]}",
            size=lambda block: block.num_samples,
            name=lambda block: block.name,
            tries=TRIES,
        )
    if failed:
        raise WorkError(f"{collection.address}: {len(failed)} of {len(todo)} blocks could not be embedded; the first: {failed[0].reason}")


def embedded(
    collection: Collection, config: EncoderConfig, *, classes: list[str] | None, cache: Path, device: str, batch: int, decoders: int | None
) -> tuple[Features, NDArray[np.bool_]]:
    """Embed one collection with an encoder of one view, in this process; cached features are reused.

    Returns: the features of its N images, and which of them are usable, bool (N,).
    Raises: WorkError with the number of failed blocks.
    """
    address, reading = collection.address, collection.reading
    (encoder,) = loaded((config,), device, address, cache, reading)
    work = EmbedWork(
        address, classes, reading, (config,), cache, device=device, batch=batch, decoders=decoders, reference=address, ready=[encoder]
    )
    digest = digest_of(encoder.identity())
    embed(collection, [digest], work, workers=1, reporter=Reporter())
    problems = facts_of(collection, cache).column("problem").to_pylist()
    return features_of([collection], digest, cache), np.array([problem is None for problem in problems], np.bool_)


def features_of(collections: Sequence[Collection], encoder: str, cache: Path) -> Features:
    """Features of whole collections, memory-mapped."""
    blocks = [block for collection in collections for block in collection.blocks]
    return Features([features_file(cache, block, encoder) for block in blocks], [block.num_samples for block in blocks])


def facts_of(collection: Collection, cache: Path) -> pa.Table:
    """Facts about each image (schema `FACTS_SCHEMA`), in the order of the blocks."""
    return pa.concat_tables([pq.read_table(facts_file(cache, block)) for block in collection.blocks])
