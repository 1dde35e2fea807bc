"""Training and test sets as small files: which images, with what labels and weights; never the images themselves.

A set is a table of places. Its digest is over the images' SHA-256, labels, domains and weights, in order, so it is the same wherever the
images lie, and what was trained on it is found again. Images are read from their collection when they are wanted.
Shapes: N images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.data.pools import Table
from synthforge.data.storage import replace_file
from synthforge.errors import RequestError, WorkError, some
from synthforge.evaluation.trainer.train import TrainingSet

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

SCHEMA = pa.schema(
    [
        pa.field("address", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("row", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("is_real", pa.bool_(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Images:
    """Labelled images of one collection, of which arms take some; N of them."""

    address: str
    row_N: Ints
    """In the collection."""
    label_N: Ints
    sha256_N: NDArray[np.object_]
    is_real: bool
    weight_N: Floats

    @classmethod
    def of(cls, table: Table, classes: list[str], rows: Ints | None = None, *, is_real: bool, weight: Floats | None = None) -> Images:
        """Rows of a table of one collection, or all; those of classes that are not evaluated are left out."""
        rows = np.arange(len(table)) if rows is None else rows
        (collection,) = table.collections
        label = table.class_indices(classes)[rows]
        known = label >= 0
        weight = np.ones(len(rows)) if weight is None else weight
        sha256_N = table.strings("image_sha256")[rows][known]
        return cls(collection.address, rows[known], label[known], sha256_N, is_real=is_real, weight_N=weight[known])

    def __len__(self) -> int:
        return len(self.row_N)

    def take(self, index: Ints | Bools) -> Self:
        """Some of them, in the order of the index."""
        parts = {name: getattr(self, name)[index] for name in ("row_N", "label_N", "sha256_N", "weight_N")}
        return replace(self, **parts)

    def not_copied(self, is_copy: Mapping[str, bool]) -> Bools:
        """Which of them are no copies of holdout images; bool (N,)."""
        return np.array([not is_copy.get(sha256, False) for sha256 in self.sha256_N], np.bool_)

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """All that can be in an arm: no copies of holdout images, and nothing that an importance weight of 0 leaves out."""
        kept = self.not_copied(is_copy) & (self.weight_N > 0)
        return self if kept.all() else self.take(kept)

    def per_class(self, num_classes: int) -> Ints:
        """How many of each class."""
        return np.bincount(self.label_N, minlength=num_classes).astype(np.int64)

    def reach(self, num_classes: int) -> Ints:
        """How many of each class can be drawn."""
        return self.per_class(num_classes)

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        """So many of each class at random, without repetition; in the order they lie in, with the importance weights that they have."""
        chooser = np.random.default_rng(seed)
        parts = [chooser.permutation(np.flatnonzero(self.label_N == number))[:wanted] for number, wanted in enumerate(wanted_C)]
        return self.take(np.sort(np.concatenate(parts)))


def classes_in(table: Table, address: str, classes: list[str]) -> set[str]:
    """The classes of a set's images; raises RequestError if none is one of the real images' `classes`."""
    named = {str(name) for name in table.strings("class") if name is not None}
    if not named & set(classes):
        raise RequestError(
            f"{address}: none of its classes ({some(sorted(named))}) is one of the real images' ({some(classes)}); names must be the same"
        )
    return named


def digest_of_set(parts: list[Images]) -> str:
    """SHA-256 over what is trained on, wherever it lies."""
    total = hashlib.sha256()
    for part in parts:
        for sha256, label, weight in zip(part.sha256_N, part.label_N.tolist(), part.weight_N.tolist(), strict=True):
            total.update(f"{sha256} {label} {int(part.is_real)} {weight!r}\n".encode())
    return total.hexdigest()


def path_of(folder: Path, digest: str) -> Path:
    """Where a set's file lies."""
    return folder / "sets" / f"{digest[:32]}.parquet"


def write_set(folder: Path, parts: list[Images]) -> str:
    """Write a set's file; returns the set's digest."""
    digest = digest_of_set(parts)
    path = path_of(folder, digest)
    columns: dict[str, Any] = {
        "address": pa.array([part.address for part in parts for _ in range(len(part))], pa.string()).dictionary_encode(),
        "row": np.concatenate([part.row_N for part in parts]),
        "label": np.concatenate([part.label_N for part in parts]),
        "is_real": np.concatenate([np.full(len(part), part.is_real) for part in parts]),
        "weight": np.concatenate([part.weight_N for part in parts]),
        "image_sha256": pa.array([sha256 for part in parts for sha256 in part.sha256_N], pa.string()),
    }
    # Written again even if it is there: the same images may lie elsewhere now.
    replace_file(path, lambda temporary: pq.write_table(pa.table(columns, schema=SCHEMA), temporary))
    return digest


class SetReader:
    """Reads sets in one process; collections are opened once."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self._folder, self._cache = folder, cache
        self._tables: dict[str, Table] = {}

    def read(self, digest: str) -> TrainingSet:
        """A set by its digest; its images are read when they are wanted, and checked then."""
        table = pq.read_table(path_of(self._folder, digest))
        places = list(zip(table["address"].to_pylist(), table["row"].to_pylist(), table["image_sha256"].to_pylist(), strict=True))

        def gather(rows: Ints) -> list[bytes]:
            found: dict[int, bytes] = {}
            wanted = dict.fromkeys(int(row) for row in rows)  # a batch may hold an image twice
            for address in dict.fromkeys(places[row][0] for row in wanted):
                here: dict[int, list[int]] = {}
                for row in wanted:
                    if places[row][0] == address:
                        here.setdefault(places[row][1], []).append(row)
                for place, members in self._table(address).samples(np.array(list(here), np.int64)):
                    if hashlib.sha256(members.image).hexdigest() != places[here[place][0]][2]:
                        raise WorkError(f"{address}: has changed since the evaluation began; run it again")
                    found.update(dict.fromkeys(here[place], members.image))
            return [found[int(row)] for row in rows]

        return TrainingSet(
            label_N=table["label"].to_numpy().astype(np.int64),
            is_real_N=np.asarray(table["is_real"].to_numpy(zero_copy_only=False), np.bool_),
            weight_N=table["weight"].to_numpy().astype(np.float64),
            gather=gather,
        )

    def images(self, digest: str) -> Images:
        """A set of images of one collection."""
        table, found = pq.read_table(path_of(self._folder, digest)), self.read(digest)
        address, row_N = table["address"][0].as_py() if len(table) else "", table["row"].to_numpy()
        sha256_N = np.array(table["image_sha256"].to_pylist(), dtype=object)
        return Images(address, row_N, found.label_N, sha256_N, is_real=bool(found.is_real_N.all()), weight_N=found.weight_N)

    def files(self, images: Images) -> list[bytes]:
        """The image files of some images, in order."""
        found = {row: members.image for row, members in self._table(images.address).samples(images.row_N)}
        return [found[row] for row in images.row_N.tolist()]

    def _table(self, address: str) -> Table:
        if address not in self._tables:
            self._tables[address] = Table.open(address, self._cache)
        return self._tables[address]
