"""A collection: labelled images in any form, read block by block, never all in memory. `open_collection` opens one.

A sample without a label has class null. Images are not decoded here, so broken ones are not noticed.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthforge.data.input_report import InputReport
from synthforge.data.read_config import Reading
from synthforge.data.splits import last_of_each
from synthforge.data.units import Kind, Location, Members, Unused

ROWS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class", pa.string()),
        pa.field("prompt", pa.string()),
        pa.field("source", pa.string()),
        pa.field("source_sha256", pa.string()),
        pa.field("strength", pa.float64()),
        pa.field("guidance", pa.float64()),
        pa.field("seed", pa.uint64()),
        pa.field("image_sha256", pa.string(), nullable=False),
        pa.field("extension", pa.string(), nullable=False),
    ]
)
"""One row for each sample; unknown values are null."""

MAX_KEY = 90
"""Most characters of a key, so that names fit the header of a tar."""


@dataclass(frozen=True)
class Block:
    """Neighbouring samples of a collection, as one unit of work. Small and picklable."""

    name: str
    """Unique in the collection: the name of a tar, `files 0-999`, ..."""
    digest: str
    """SHA-256 over these images in this order."""
    num_samples: int
    decoder: int | str
    """How its images are decoded; see `Reading.decoder`."""


class Collection(ABC):
    """Labelled images in blocks."""

    address: str
    kind: Kind
    digest: str
    """SHA-256 over blocks, labels and parts."""
    classes: list[str]
    blocks: list[Block]
    reading: Reading = Reading()
    """How it was opened."""
    problems: list[str]
    """Faults of the set, one line each."""
    unused: Sequence[Unused] = ()
    """What is there beside the samples, and is not used, by reason."""
    losses: list[str]
    """Foreign sets only: faults by which images are lost, with what to do. A dataset folder may be partial."""

    @property
    def num_samples(self) -> int:
        """Over all blocks."""
        return sum(block.num_samples for block in self.blocks)

    @property
    def report(self) -> InputReport:
        """What is there, for results and summaries."""
        name, unused = self.address.rstrip("/").rpartition("/")[2], {unused.reason: unused.num for unused in self.unused}
        return InputReport(name=name, kind=self.kind, images=self.num_samples, unused=unused)

    @abstractmethod
    def rows(self, block: Block) -> pa.Table:
        """One row for each sample in order, with the columns of `ROWS_SCHEMA`.

        Keys are unique in the collection, and can be the stem of a tar's member.
        """

    @abstractmethod
    def locations(self, block: Block) -> Iterator[Location]:
        """Where each image of a block is stored, in the order of its rows."""

    def images(self, block: Block) -> Iterator[bytes]:
        """The image files of a block in the order of its rows, as they are stored. One is in memory at a time."""
        for members in self._read(block, None, whole=False):
            yield members.image

    def samples(self, block: Block, rows: Sequence[int]) -> Iterator[tuple[int, Members]]:
        """Whole samples by row number, in the order of `rows`."""
        for row, members in zip(rows, self._read(block, rows, whole=True), strict=True):
            yield row, replace(members, background=self.reading.background)

    @abstractmethod
    def _read(self, block: Block, rows: Sequence[int] | None, whole: bool) -> Iterator[Members]:
        """The samples of some rows; only their images if not `whole`.

        Args:
            rows: row numbers in the block. None: all rows.
        """

    def part(self) -> dict[str, NDArray[np.str_]]:
        """The part of each image, `fit` or `validation`: one array for each block, by its name. For real images.

        The manifest or sub-folders may name the parts.
        Otherwise the last fifth of each class, in order, is the validation part.
        A sample without a class is in the part `fit`.
        """
        if (named := self._named_parts()) is not None:
            return named
        number = {name: index for index, name in enumerate(self.classes)}
        labels = (self.rows(block).column("class").to_pylist() for block in self.blocks)
        codes_N = np.fromiter((number.get(name, -1) for block in labels for name in block), np.int64, self.num_samples)
        parts_N = np.where(last_of_each(codes_N), "validation", "fit")
        ends = itertools.accumulate(block.num_samples for block in self.blocks)
        return {block.name: parts_N[end - block.num_samples : end] for block, end in zip(self.blocks, ends, strict=True)}

    @abstractmethod
    def _named_parts(self) -> dict[str, NDArray[np.str_]] | None:
        """The parts that a manifest or sub-folders name. None: nothing names them."""
