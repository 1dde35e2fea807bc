"""One or several pools beside a reference, as two tables with one row per image; classes are aligned by name."""

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

from synthforge.data.collection import Block, Collection, open_collection
from synthforge.data.images import decode
from synthforge.data.units import Members
from synthforge.errors import DatasetError, RequestError
from synthforge.progress import Reporter

Ints = NDArray[np.int64]
MAX_KEY = 90
"""Characters of a key, so that names fit a tar's header."""


@dataclass(frozen=True)
class Table:
    """The images of collections in order: collection after collection, block after block.

    `rows` holds the columns of `Collection.rows`, and `collection`, `block` and `place` (row inside the block) as numbers.
    """

    collections: list[Collection]
    names: list[str]
    rows: pa.Table

    @classmethod
    def open(cls, address: str, cache: Path, reporter: Reporter | None = None) -> Table:
        """The images of one collection; errors as for `open_collection`."""
        return cls.of([open_collection(address, cache, reporter=reporter)])

    @classmethod
    def of(cls, collections: Sequence[Collection]) -> Table:
        """Read the tables of all blocks."""
        parts = []
        for number, collection in enumerate(collections):
            for index, block in enumerate(collection.blocks):
                rows = collection.rows(block)
                extensions = pa.array(["jpg" if name == "jpeg" else name for name in rows.column("extension").to_pylist()], pa.string())
                rows = rows.set_column(rows.column_names.index("extension"), "extension", extensions)
                for name, values in (
                    ("collection", np.full(len(rows), number, np.int32)),
                    ("block", np.full(len(rows), index, np.int32)),
                    ("place", np.arange(len(rows), dtype=np.int32)),
                ):
                    rows = rows.append_column(name, pa.array(values))
                parts.append(rows)
        if not parts:
            raise RequestError(f"{collections[0].address}: holds no images")
        return cls(list(collections), _names([collection.address for collection in collections]), pa.concat_tables(parts))

    def __len__(self) -> int:
        return len(self.rows)

    def strings(self, column: str) -> NDArray[np.object_]:
        """A column of texts; None where there is none."""
        return np.array(self.rows.column(column).to_pylist(), dtype=object)

    @functools.cached_property
    def places(self) -> tuple[Ints, Ints, Ints]:
        """Of each image the collection, the block in it and the row in that."""
        collection, block, place = (self.rows.column(name).to_numpy().astype(np.int64) for name in ("collection", "block", "place"))
        return collection, block, place

    def numbers(self, column: str) -> NDArray[np.float32]:
        """A column of numbers; nan where there is none."""
        return np.array([np.nan if value is None else value for value in self.rows.column(column).to_pylist()], np.float32)

    def class_indices(self, classes: Sequence[str]) -> Ints:
        """Index of each image's class among `classes`; -1 for others and for none."""
        index = {name: number for number, name in enumerate(classes)}
        return np.array([index.get(name, -1) for name in self.rows.column("class").to_pylist()], np.int64)

    def keys(self) -> NDArray[np.object_]:
        """Unique keys: with several collections each begins with its collection's name."""
        keys = self.strings("key")
        if len(self.collections) > 1:
            named = [_shortened(f"{self.names[number]}-{key}") for number, key in zip(self.places[0], keys, strict=True)]
            keys = np.array(named, object)
            assert len(set(named)) == len(named), "two images have one key"
        return keys

    def samples(self, rows: Ints) -> Iterator[tuple[int, Members]]:
        """Whole samples of rows, block by block, each with its row."""
        collection, block, place = (column[rows] for column in self.places)
        for number, index in sorted(set(zip(collection.tolist(), block.tolist(), strict=True))):
            here = np.flatnonzero((collection == number) & (block == index))
            source = self.collections[number]
            for found, (_, members) in zip(here, source.samples(source.blocks[index], place[here].tolist()), strict=True):
                yield int(rows[found]), members

    def require_labels(self, address: str) -> None:
        """Raises RequestError if an image has no label; `address` is as the user named the set."""
        if num := sum(name is None for name in self.strings("class")):
            raise RequestError(f"{address}: {num} of {len(self)} images have no label; give them one, or remove them")

    def require_readable(self, rows: Ints) -> None:
        """Raises DatasetError for an image that can't be decoded."""
        for row, members in self.samples(rows):
            try:
                decode(members.image)
            except DatasetError as error:
                address = self.collections[self.places[0][row]].address
                raise DatasetError(f"{address}, image {row}: {error}; remove or replace it") from error

    def blocks(self) -> Iterator[tuple[Collection, Block]]:
        """Every block in order."""
        for collection in self.collections:
            for block in collection.blocks:
                yield collection, block


def _names(addresses: Sequence[str]) -> list[str]:
    """A short name for each: the last part of the address that is not just "pool"; numbered where equal."""
    names = []
    for address in addresses:
        parts = [part for part in PurePosixPath(address.partition("://")[2] or address).parts if part not in {"/", "pool", "curated"}]
        names.append(re.sub(r"[^A-Za-z0-9_]+", "_", parts[-1].removesuffix(".tar") if parts else "pool")[:30] or "pool")
    unique: list[str] = []
    for name in names:
        free = (f"{name}_{number}" if number > 1 else name for number in itertools.count(1))
        unique.append(next(candidate for candidate in free if candidate not in unique))
    return unique


def _shortened(key: str) -> str:
    """At most `MAX_KEY` characters, and different where keys are."""
    if len(key) <= MAX_KEY:
        return key
    mark = hashlib.blake2b(key.encode(), digest_size=8).hexdigest()
    return f"{key[: MAX_KEY - len(mark) - 1]}-{mark}"
