"""One or several pools beside a reference, as two tables with one row per image; classes are aligned by name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthforge.errors import RequestError
from synthforge.shards.collection import Block, Collection
from synthforge.shards.foreign import Members

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
    def of(cls, collections: Sequence[Collection]) -> Table:
        """Read the tables of all blocks."""
        parts = []
        for number, collection in enumerate(collections):
            for index, block in enumerate(collection.blocks):
                rows = collection.rows(block)
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
            collection = self.rows.column("collection").to_numpy()
            keys = np.array([f"{self.names[number]}-{key}"[-MAX_KEY:] for number, key in zip(collection, keys, strict=True)], object)
        return keys

    def samples(self, rows: Ints) -> Iterator[tuple[int, Members]]:
        """Whole samples of rows, block by block, each with its row."""
        collection, block, place = (self.rows.column(name).to_numpy()[rows] for name in ("collection", "block", "place"))
        for number, index in sorted(set(zip(collection.tolist(), block.tolist(), strict=True))):
            here = np.flatnonzero((collection == number) & (block == index))
            source = self.collections[number]
            for found, (_, members) in zip(here, source.samples(source.blocks[index], place[here].tolist()), strict=True):
                yield int(rows[found]), members

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
    count: Counter[str] = Counter()
    unique = []
    for name in names:
        count[name] += 1
        unique.append(name if count[name] == 1 else f"{name}_{count[name]}")
    return unique
