"""Training and test sets as small files: which images, with which labels and weights, but not the images themselves.

A set is a table of places; images are read from there when they are needed. The set's digest is over SHA-256, label,
domain and weight of its images, in order. It is the same wherever the images lie, so trainings on the set are found
again.

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

from synthforge.arrays import Bools, Doubles, Ints
from synthforge.data.image_table import Table
from synthforge.data.read_config import Reading
from synthforge.data.storage import replace_file
from synthforge.errors import RequestError, WorkError, some
from synthforge.evaluation.trainer.train import TrainingSet

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
    """N labelled images of one collection."""

    address: str
    row_N: Ints
    """Rows of the collection."""
    label_N: Ints
    sha256_N: NDArray[np.object_]
    is_real: bool
    weight_N: Doubles

    @classmethod
    def of(cls, table: Table, classes: list[str], rows: Ints | None = None, *, is_real: bool, weight: Doubles | None = None) -> Images:
        """Some rows of a table with one collection, without those of other classes.

        Args:
            rows: None: all rows.
            weight: importance weights of the rows. None: all weigh 1.
        """
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
        """Some of the images, in the order of the index."""
        parts = {name: getattr(self, name)[index] for name in ("row_N", "label_N", "sha256_N", "weight_N")}
        return replace(self, **parts)

    def not_copied(self, is_copy: Mapping[str, bool]) -> Bools:
        """Which images do not copy a holdout image; bool (N,)."""
        return np.array([not is_copy.get(sha256, False) for sha256 in self.sha256_N], np.bool_)

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Images that an arm can take: no copies of holdout images, and no importance weight of 0."""
        kept = self.not_copied(is_copy) & (self.weight_N > 0)
        return self if kept.all() else self.take(kept)

    def per_class(self, num_classes: int) -> Ints:
        """Number of images of each class, int64 (C,)."""
        return np.bincount(self.label_N, minlength=num_classes).astype(np.int64)

    def reach(self, num_classes: int) -> Ints:
        """Number of images of each class that `draw` can give, int64 (C,)."""
        return self.per_class(num_classes)

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        """So many images of each class at random, without repetition, in the order of their rows."""
        chooser = np.random.default_rng(seed)
        parts = [chooser.permutation(np.flatnonzero(self.label_N == number))[:wanted] for number, wanted in enumerate(wanted_C)]
        return self.take(np.sort(np.concatenate(parts)))


def classes_in(table: Table, address: str, classes: list[str]) -> set[str]:
    """The classes of a set's images; raises RequestError if none is one of the real images' `classes`."""
    named = {str(name) for name in table.strings("class") if name is not None}
    if not named & set(classes):
        raise RequestError(
            f"{address}: none of its classes ({some(sorted(named))}) is a class of the real images ({some(classes)}); use the same names"
        )
    return named


def digest_of_set(parts: list[Images]) -> str:
    """SHA-256 over the images' content, labels, domains and weights."""
    total = hashlib.sha256()
    for part in parts:
        for sha256, label, weight in zip(part.sha256_N, part.label_N.tolist(), part.weight_N.tolist(), strict=True):
            total.update(f"{sha256} {label} {int(part.is_real)} {weight!r}\n".encode())
    return total.hexdigest()


def path_of(folder: Path, digest: str) -> Path:
    """A set's file."""
    return folder / "sets" / f"{digest[:32]}.parquet"


def write_set(folder: Path, parts: list[Images]) -> str:
    """Write a set's file; returns the digest."""
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
    # An existing file is replaced: the same images may lie elsewhere now.
    replace_file(path, lambda temporary: pq.write_table(pa.table(columns, schema=SCHEMA), temporary))
    return digest


class SetReader:
    """Reads sets in one process. Each collection is opened once."""

    def __init__(self, folder: Path, cache: Path, reading: Reading | None = None) -> None:
        self._folder, self._cache, self._reading = folder, cache, reading or Reading()
        self._tables: dict[str, Table] = {}

    def read(self, digest: str) -> TrainingSet:
        """A set by its digest. Images are read, and checked against their SHA-256, when they are needed."""
        table = pq.read_table(path_of(self._folder, digest))
        places = list(zip(table["address"].to_pylist(), table["row"].to_pylist(), table["image_sha256"].to_pylist(), strict=True))

        def gather(rows: Ints) -> list[bytes]:
            wanted = [places[row] for row in rows.tolist()]
            files: dict[tuple[str, int], bytes] = {}
            for address in dict.fromkeys(address for address, _, _ in wanted):
                sha256_of = {place: sha256 for of, place, sha256 in wanted if of == address}  # a batch may hold an image twice
                for place, members in self._table(address).samples(np.array(list(sha256_of), np.int64)):
                    if hashlib.sha256(members.image).hexdigest() != sha256_of[place]:
                        raise WorkError(f"{address}: has changed since the evaluation began; run it again")
                    files[address, place] = members.image
            return [files[address, place] for address, place, _ in wanted]

        return TrainingSet(
            label_N=table["label"].to_numpy().astype(np.int64),
            is_real_N=np.asarray(table["is_real"].to_numpy(zero_copy_only=False), np.bool_),
            weight_N=table["weight"].to_numpy().astype(np.float64),
            gather=gather,
            background=self.background,
        )

    @property
    def background(self) -> str:
        """What transparent images are put on."""
        return self._reading.background

    def images(self, digest: str) -> Images:
        """A set of images of one collection."""
        table, of_set = pq.read_table(path_of(self._folder, digest)), self.read(digest)
        address, row_N = table["address"][0].as_py() if len(table) else "", table["row"].to_numpy()
        sha256_N = np.array(table["image_sha256"].to_pylist(), dtype=object)
        return Images(address, row_N, of_set.label_N, sha256_N, is_real=bool(of_set.is_real_N.all()), weight_N=of_set.weight_N)

    def files(self, images: Images) -> list[bytes]:
        """The files of some images, in order."""
        files = {row: members.image for row, members in self._table(images.address).samples(images.row_N)}
        return [files[row] for row in images.row_N.tolist()]

    def _table(self, address: str) -> Table:
        if address not in self._tables:
            self._tables[address] = Table.open(address, self._cache, reading=self._reading)
        return self._tables[address]
