"""The index of each unit of a foreign set, kept in a cache: a row for each sample.

A unit is read once. Its index is used until path, size or time of one of its files changes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from synthforge.data.collection import MAX_KEY, ROWS_SCHEMA
from synthforge.data.layout import digest_of
from synthforge.data.storage import replace_file
from synthforge.data.tars import MEMBERS
from synthforge.data.units import FoundSample, SourceProblem, SourceUnit
from synthforge.errors import DatasetError
from synthforge.progress import Reporter

INDEX_VERSION = 5
"""Raise it when equal files give another index."""
_INDEX_SCHEMA = pa.schema(
    [
        *(ROWS_SCHEMA.field(name) for name in ROWS_SCHEMA.names),
        *(pa.field(f"{member}_{what}", pa.int64()) for member in MEMBERS for what in ("offset", "size")),
        pa.field("name", pa.string()),
        pa.field("group", pa.int64()),
        pa.field("row", pa.int64()),
    ]
)
"""Rows with their places. `class` is the label as it stands in the data; `name` is what the unit calls the sample."""
_FACTS = b"synthforge"


@dataclass(frozen=True)
class _IndexedBlock:
    """One row group of an index."""

    digest: str
    num_samples: int
    labels_sha256: str


@dataclass
class _Facts:
    """A summary of one unit, stored at the end of its index."""

    blocks: list[_IndexedBlock] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)
    """Label to number of samples."""
    num_samples: int = 0
    problems: list[SourceProblem] = field(default_factory=list)

    def add(self, table: pa.Table) -> None:
        """Add the next block."""
        images, labels = table["image_sha256"].to_pylist(), table["class"].to_pylist()
        self.blocks.append(_IndexedBlock(hashlib.sha256("".join(images).encode()).hexdigest(), len(images), digest_of(labels)))
        self.labels = dict(Counter(self.labels) + Counter(label for label in labels if label is not None))
        self.num_samples += len(images)


_STORED_FACTS = TypeAdapter(_Facts)


@dataclass(frozen=True)
class UnitIndex:
    """The index of one unit: a parquet file with one row group for each block."""

    path: Path
    unit: SourceUnit
    facts: _Facts


def indices_of(units: list[SourceUnit], cache: Path, reporter: Reporter) -> list[UnitIndex]:
    """The index of each unit. Those that are not in the cache are made."""
    paths = [index_path(cache, index_key(unit)) for unit in units]
    present = [_read_index(path, unit) for path, unit in zip(paths, units, strict=True)]
    if missing := present.count(None):
        reporter.begin("index", missing, unit="files")
    indices = []
    for index, path, unit in zip(present, paths, units, strict=True):
        indices.append(index or _make_index(path, unit))
        if index is None:
            reporter.advance(1)
    if missing:
        reporter.end()
    return indices


def index_key(unit: SourceUnit) -> str:
    """SHA-256 over everything that the index of a unit depends on; raises DatasetError if a file can't be read."""
    stamps = []
    for path in unit.files:
        try:
            str(path).encode()
            stat = path.stat()
        except UnicodeEncodeError as error:
            raise DatasetError(f"{str(path)!r}: its name is not UTF-8; rename it") from error
        except OSError as error:
            raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
        stamps.append([str(path), stat.st_size, stat.st_mtime_ns])
    return digest_of([INDEX_VERSION, unit.identity, stamps])


def index_path(cache: Path, key: str) -> Path:
    """Where the cache keeps the index with a key."""
    return cache / "index" / f"{key}.parquet"


def _read_index(path: Path, unit: SourceUnit) -> UnitIndex | None:
    """The index in the cache. None: there is none that can be read."""
    try:
        return UnitIndex(path, unit, _STORED_FACTS.validate_json(pq.read_metadata(path).metadata[_FACTS]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def _make_index(path: Path, unit: SourceUnit) -> UnitIndex:
    """Read a unit and write its index: one row group for each block, and the facts in the file's metadata."""
    facts = _Facts()

    def walk(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, _INDEX_SCHEMA, compression="zstd") as writer:
            rows_of_unit = map(_row, unit.walk(facts.problems))
            while rows := list(itertools.islice(rows_of_unit, unit.block_samples)):
                table = pa.Table.from_pylist(rows, schema=_INDEX_SCHEMA)
                facts.add(table)
                writer.write_table(table, row_group_size=len(rows))
            writer.add_key_value_metadata({_FACTS: json.dumps(asdict(facts))})
        if index_key(unit) != path.stem:
            raise DatasetError(f"{unit.files[0]}: changed while it was read; run again when nobody writes there")

    replace_file(path, walk)
    return UnitIndex(path, unit, facts)


def _row(sample: FoundSample) -> dict[str, Any]:
    sha256 = hashlib.sha256(sample.image).hexdigest()
    known = {"key": _key_of_name(sample.name), "class": sample.label, "image_sha256": sha256, "extension": sample.extension}
    return {**sample.record, **known, **sample.place}


def _key_of_name(name: str) -> str:
    """A key for a sample's name; different names have different keys. Plain names stay readable, others get a hash.

    A key has no dot, where the stem of a tar's member ends, and no slash, since it is no path. It begins with a letter
    or a digit: loaders skip members that begin with a dot or with two underscores (`datasets`), and tools take a hyphen
    for an option.
    """
    if len(name) <= MAX_KEY and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*(?:/[A-Za-z0-9_-]+)*", name):
        return name.replace("/", "~")
    mark = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    readable = re.sub("[^A-Za-z0-9_-]", "_", name)[-(MAX_KEY - len(mark) - 1) :].lstrip("_-")
    return f"{readable}-{mark}" if readable else mark
