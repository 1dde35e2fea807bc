"""Tables with one row for each image of a pool, of several pools, or of a reference. Classes are aligned by name."""

from __future__ import annotations

import functools
import hashlib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthforge.arrays import Bools, Ints
from synthforge.data.collection import MAX_KEY, Block, Collection
from synthforge.data.opening import open_collection
from synthforge.data.read_config import Reading
from synthforge.data.units import Members
from synthforge.errors import DatasetError, some
from synthforge.progress import Reporter


@dataclass(frozen=True)
class Table:
    """The images of one or more collections, in order: collection by collection, block by block."""

    collections: list[Collection]
    names: list[str]
    """A short unique name for each collection."""
    rows: pa.Table
    """The columns of `Collection.rows`, and the numbers `collection`, `block` and `place` (row in the block)."""

    @classmethod
    def open(cls, address: str, cache: Path, reporter: Reporter | None = None, reading: Reading | None = None) -> Table:
        """The images of one collection; arguments and errors are those of `open_collection`."""
        return cls.of([open_collection(address, cache, reading=reading, reporter=reporter)])

    @classmethod
    def of(cls, collections: Sequence[Collection]) -> Table:
        """The images of some collections; reads the tables of all blocks."""
        parts = []
        for number, collection in enumerate(collections):
            for index, block in enumerate(collection.blocks):
                rows = collection.rows(block)
                for name, value in {"collection": number, "block": index}.items():
                    rows = rows.append_column(name, pa.repeat(pa.scalar(value, pa.int32()), len(rows)))
                parts.append(rows.append_column("place", pa.array(np.arange(len(rows), dtype=np.int32))))
        return cls(list(collections), _names([collection.address for collection in collections]), pa.concat_tables(parts))

    def __len__(self) -> int:
        return len(self.rows)

    def strings(self, column: str) -> NDArray[np.object_]:
        """A column of texts; None for missing ones."""
        return np.array(self.rows.column(column).to_pylist(), dtype=object)

    @functools.cached_property
    def places(self) -> tuple[Ints, Ints, Ints]:
        """For each image: number of the collection, number of the block in it, row in the block."""
        collection, block, place = (self.rows.column(name).to_numpy().astype(np.int64) for name in ("collection", "block", "place"))
        return collection, block, place

    @functools.cached_property
    def fit(self) -> Bools:
        """Images of the fit part, (N,). The others are the validation part. For real images."""
        parts = [(collection.blocks, collection.part()) for collection in self.collections]
        return np.asarray(np.concatenate([part[block.name] for blocks, part in parts for block in blocks]) == "fit")

    def numbers(self, column: str) -> NDArray[np.float32]:
        """A column of numbers; nan for missing ones."""
        return np.array([np.nan if value is None else value for value in self.rows.column(column).to_pylist()], np.float32)

    def class_indices(self, classes: Sequence[str]) -> Ints:
        """Index of each image's class in `classes`; -1 for other classes and for no class."""
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index.get(name, -1) for name in self.rows.column("class").to_pylist()], np.int64)

    def keys(self) -> NDArray[np.object_]:
        """Unique keys. If there are several collections, each key begins with the name of its collection."""
        keys = self.strings("key")
        if len(self.collections) > 1:
            keys = np.array([_shortened(f"{self.names[number]}-{key}") for number, key in zip(self.places[0], keys, strict=True)], object)
            assert len(set(keys)) == len(keys), "two images have one key"
        return keys

    def samples(self, rows: Ints) -> Iterator[tuple[int, Members]]:
        """Whole samples of some rows, block by block, each with its row."""
        collection, block, place = (column[rows] for column in self.places)
        for number, index in sorted(set(zip(collection.tolist(), block.tolist(), strict=True))):
            here = np.flatnonzero((collection == number) & (block == index))
            source = self.collections[number]
            for row, (_, members) in zip(rows[here].tolist(), source.samples(source.blocks[index], place[here].tolist()), strict=True):
                yield row, members

    def require_labels(self, address: str) -> None:
        """Raise DatasetError if an image has no label.

        Args:
            address: of the set, as the user gave it, for the message.
        """
        if num := sum(name is None for name in self.strings("class")):
            raise DatasetError(f"{address}: {num} of {len(self)} images have no label; give them one, or remove them")

    def require_readable(self, rows: Ints) -> None:
        """Raise DatasetError that names the images that can't be decoded."""
        problems = []
        for row, members in self.samples(rows):
            try:
                members.pixels()
            except DatasetError as error:
                problems.append(f"{self.location(row)}: {error}")
        if problems:
            raise DatasetError(f"{some(problems, 12)}; remove or replace {'them' if len(problems) > 1 else 'it'}")

    def location(self, row: int) -> str:
        """Where an image is stored, for messages."""
        number, block, place = (int(column[row]) for column in self.places)
        collection = self.collections[number]
        return next(itertools.islice(collection.locations(collection.blocks[block]), place, None)).name

    def blocks(self) -> Iterator[tuple[Collection, Block]]:
        """Every block with its collection, in order."""
        return ((collection, block) for collection in self.collections for block in collection.blocks)


def _names(addresses: Sequence[str]) -> list[str]:
    """A short name for each address: its last part that is not "pool" or "curated". Equal names get numbers."""
    names = []
    for address in addresses:
        parts = [part for part in PurePosixPath(address.partition("://")[2] or address).parts if part not in {"/", "pool", "curated"}]
        names.append(re.sub(r"[^A-Za-z0-9_]+", "_", parts[-1].removesuffix(".tar") if parts else "pool").lstrip("_")[:30] or "pool")
    unique: list[str] = []
    for name in names:
        candidates = itertools.chain([name], (f"{name}_{number}" for number in itertools.count(2)))
        unique.append(next(candidate for candidate in candidates if candidate not in unique))
    return unique


def _shortened(key: str) -> str:
    """A key of at most `MAX_KEY` characters. Different keys stay different."""
    if len(key) <= MAX_KEY:
        return key
    mark = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    return f"{key[: MAX_KEY - len(mark) - 1]}-{mark}"
