"""Read a pool or reference as a collection: labelled images in any form, block by block, never all in memory.

Dataset folders, on disk or remote, are read by their seals, which name the content.
Foreign sets (see `foreign`) have no seals. Each unit is read once, and its index is kept in a cache.
The index is used until path, size or time of a file changes.
A sample without a label has class null. Images are not decoded here, so broken ones are not noticed.
Not covered: remote foreign sets.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.data.folder import DatasetFolder
from synthforge.data.foreign import find_foreign
from synthforge.data.layout import MANIFEST, digest_of
from synthforge.data.storage import Folder, replace_file, resolve
from synthforge.data.tars import MEMBERS, read_exactly
from synthforge.data.units import (
    ForeignSet,
    FoundSample,
    Kind,
    Location,
    Members,
    SourceProblem,
    SourceUnit,
    last_of_each,
    natural_order,
)
from synthforge.errors import DatasetError
from synthforge.progress import Reporter

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

INDEX_VERSION = 3
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

MAX_KEY = 90
"""Most characters of a key, so that names fit the header of a tar."""
_FACTS = b"synthforge"
REQUEST_BYTES = 1 << 20
"""One request to a remote store takes about as long as reading this many more bytes."""


@dataclass(frozen=True)
class Block:
    """Neighbouring samples of a collection, as one unit of work. Small and picklable."""

    name: str
    """Unique in the collection: the name of a tar, `images 0-999`, ..."""
    digest: str
    """SHA-256 over these images in this order."""
    num_samples: int


class Collection(ABC):
    """Labelled images in blocks; `open_collection` makes one."""

    address: str
    kind: Kind
    digest: str
    """SHA-256 over blocks, labels and parts."""
    classes: list[str]
    blocks: list[Block]
    problems: list[str]
    """Faults of the set, one line each."""
    losses: list[str]
    """The faults by which images are lost, with what to do about them."""

    @property
    def num_samples(self) -> int:
        """Over all blocks."""
        return sum(block.num_samples for block in self.blocks)

    @abstractmethod
    def rows(self, block: Block) -> pa.Table:
        """One row for each sample in order, with the columns of `ROWS_SCHEMA`.

        Keys are unique in the collection, and can be the stem of a tar's member.
        """

    @abstractmethod
    def locations(self, block: Block) -> Iterator[Location]:
        """Where each image of a block is stored, in the order of its rows."""

    def images(self, block: Block) -> Iterator[bytes]:
        """The image files of a block in the order of its rows, one in memory at a time."""
        for members in self._read(block, None, whole=False):
            yield members.image

    def samples(self, block: Block, rows: Sequence[int]) -> Iterator[tuple[int, Members]]:
        """Whole samples by row number, in the order of `rows`."""
        yield from zip(rows, self._read(block, rows, whole=True), strict=True)

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


def open_collection(address: str, cache: Path, *, classes: list[str] | None = None, reporter: Reporter | None = None) -> Collection:
    """Open a pool or reference; raises DatasetError if there is nothing that can be read, or no label.

    Args:
        address: one of: a dataset folder (local or remote), a WebDataset tar, a folder or pattern of tars, a folder of
            images by class, a folder of `datasets` (arrow or parquet).
        cache: folder for indices of foreign sets. An index has some 60 bytes for each image, and the captions.
        classes: class names by number, for foreign sets whose labels are numbers. A dataset folder has its own.
    """
    place = resolve(address)
    if Folder(place).exists(MANIFEST):
        return SealedCollection(DatasetFolder.open(place), cache)
    if "://" in place:
        raise DatasetError(f"{place}: no {MANIFEST} there, and sets of others are read from disk only; download it, or check the address")
    if Folder(place).exists(f"pool/{MANIFEST}"):
        raise DatasetError(f"{place}: is the folder of a run, not a dataset folder; did you mean {place}/pool?")
    if (foreign := find_foreign(place)) is None:
        hint = "images need a sub-folder for each class" if Path(place).is_dir() else "check the path"
        raise DatasetError(f"{place}: no dataset folder, WebDataset tars, folder of images by class or `datasets` there; {hint}")
    return ForeignCollection(place, foreign, cache, classes, reporter or Reporter())


# Dataset folders


class SealedCollection(Collection):
    """The sealed shards of a dataset folder. Other shards may still be in work."""

    kind = "dataset folder"

    def __init__(self, dataset: DatasetFolder, cache: Path) -> None:
        state = dataset.state()
        self.address = dataset.folder.address
        if not state.sealed:
            raise DatasetError(f"{self.address}: no finished shard there yet; run `synthforge generate` to the end")
        seals = dataset.seals(state.sealed)
        self.classes = dataset.manifest.classes
        self.blocks = [Block(shard.tar, seal.tar_sha256, seal.samples) for shard, seal in zip(state.sealed, seals, strict=True)]
        self.problems = [f"{dataset.folder.where(shard.tar)}: given up, and left out" for shard in state.quarantined]
        if missing := len(state.unfinished):
            total = len(state.sealed) + len(state.quarantined) + missing
            self.problems.append(f"{self.address}: {missing} of {total} shards are not made yet, and left out")
        self.losses = []
        self.digest = digest_of([self.classes, [block.digest for block in self.blocks], dataset.manifest.parts])
        self._dataset, self._cache = dataset, cache
        self._shards = {shard.tar: (shard, seal) for shard, seal in zip(state.sealed, seals, strict=True)}

    def rows(self, block: Block) -> pa.Table:
        table = self._table(block)
        num = table.num_rows
        hashes = self._source_hashes(block, table) if table["source"].null_count < num else pa.nulls(num, pa.string())
        own = {"source_sha256": hashes, "extension": pa.repeat(self._dataset.manifest.image_format, num)}
        return pa.table([own[name] if name in own else table[name] for name in ROWS_SCHEMA.names], schema=ROWS_SCHEMA)

    def locations(self, block: Block) -> Iterator[Location]:
        where = self._dataset.folder.where(block.name)
        return (Location(f"{where}:{key}", key) for key in self._table(block)["key"].to_pylist())

    def _table(self, block: Block) -> pa.Table:
        shard, seal = self._shards[block.name]
        if seal.tar_sha256 != block.digest:
            raise DatasetError(f"{self._dataset.folder.where(block.name)}: has changed meanwhile; run again")
        return self._dataset.table(shard)

    def _source_hashes(self, block: Block, table: pa.Table) -> pa.Array:
        """SHA-256 of the real image that each sample was started from. Only the records have it, so it is cached."""
        path = _index_path(self._cache, digest_of([INDEX_VERSION, "sources", block.digest]))
        with suppress(OSError, pa.ArrowException):
            return pq.read_table(path).column("source_sha256")
        spans = list(zip(table["json_offset"].to_pylist(), table["json_size"].to_pylist(), strict=True))
        values = [json.loads(content).get("source_sha256") for content in self._spans(block, spans)]
        hashes = pa.table({"source_sha256": pa.array(values, pa.string())})
        replace_file(path, lambda temporary: pq.write_table(hashes, temporary, compression="zstd"))
        return hashes.column("source_sha256")

    def _read(self, block: Block, rows: Sequence[int] | None, whole: bool) -> Iterator[Members]:
        table = self._table(block)
        members = MEMBERS if whole else MEMBERS[:1]
        first, last = members[0], members[-1]
        columns = [f"{name}_{what}" for name in members for what in ("offset", "size")]
        wanted = (table if rows is None else table.take(pa.array(rows, pa.int64()))).select(columns).to_pylist()
        spans = [(row[f"{first}_offset"], row[f"{last}_offset"] + row[f"{last}_size"] - row[f"{first}_offset"]) for row in wanted]
        for row, (start, _), content in zip(wanted, spans, self._spans(block, spans), strict=True):
            image, *others = (content[row[f"{name}_offset"] - start :][: row[f"{name}_size"]] for name in members)
            yield Members(image, self._dataset.manifest.image_format, *others)

    def _spans(self, block: Block, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Pieces of a shard's tar, by offset and size. A remote tar is fetched whole where that is quicker."""
        folder, (shard, seal) = self._dataset.folder, self._shards[block.name]
        gone = f"{folder.where(shard.tar)}: gone or torn; look with `synthforge verify {self.address}`"
        try:
            if folder.path is None and sum(size + REQUEST_BYTES for _, size in spans) < seal.bytes:
                for start, size in spans:
                    yield folder.read_range(shard.tar, start, size)
                return
            with folder.fetched(shard.tar) as path, path.open("rb") as tar:
                for start, size in spans:
                    yield read_exactly(tar, start, size)
        except (FileNotFoundError, EOFError) as error:
            raise DatasetError(gone) from error

    def _named_parts(self) -> dict[str, NDArray[np.str_]] | None:
        parts = self._dataset.manifest.parts
        if not parts:
            return None
        first, end = parts.get("validation", (0, 0))
        keys = {block.name: np.array(self._table(block)["key"].to_pylist(), dtype=np.int64) for block in self.blocks}
        return {name: np.where((first <= keys_N) & (keys_N < end), "validation", "fit") for name, keys_N in keys.items()}


# Foreign sets


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


@dataclass(frozen=True)
class _Index:
    """The index of one unit: a parquet file with one row group for each block."""

    path: Path
    unit: SourceUnit
    facts: _Facts


class ForeignCollection(Collection):
    """A set that another program wrote, read by its indices in the cache."""

    def __init__(self, place: str, foreign: ForeignSet, cache: Path, classes: list[str] | None, reporter: Reporter) -> None:
        self.address, self.kind = place, foreign.kind
        indices = _indices(foreign.units, cache, reporter)
        problems = foreign.problems + [problem for index in indices for problem in index.facts.problems]
        self.problems = list(map(str, problems))
        losses = [f"{problem.what}; {problem.remedy}" for problem in problems if problem.remedy]
        self.losses = [loss if loss.startswith(place) else f"{place}: {loss}" for loss in losses]
        num_samples = sum(index.facts.num_samples for index in indices)
        labels = {label for index in indices for label in index.facts.labels}
        if num_samples == 0:
            raise DatasetError(f"{place}: {self.kind} without a single image ({(self.problems or ['nothing in it'])[0]}); check the path")
        if not labels:
            raise DatasetError(f"{place}: {num_samples} images and no label; {WHERE_LABELS_STAND[self.kind]}")
        self._name_of = _names_of_labels(place, natural_order(labels), classes or foreign.classes)
        self.classes = classes or foreign.classes or list(self._name_of)
        self._places: dict[str, tuple[_Index, int]] = {}
        self.blocks = list(self._cut(indices))
        self._require_known_classes()
        contents = [[block.digest, block.labels_sha256, index.unit.part] for index in indices for block in index.facts.blocks]
        self.digest = digest_of([self.classes, contents, self._name_of])

    def _cut(self, indices: list[_Index]) -> Iterator[Block]:
        for index in indices:
            start = 0
            for group, block in enumerate(index.facts.blocks):
                name = index.unit.name if len(index.facts.blocks) == 1 else f"{index.unit.name} {start}-{start + block.num_samples - 1}"
                start += block.num_samples
                self._places[name] = (index, group)
                yield Block(name, block.digest, block.num_samples)

    def _require_known_classes(self) -> None:
        pairs = {(index.unit.part, self._name_of[label]) for index, _ in self._places.values() for label in index.facts.labels}
        if unknown := {name for part, name in pairs if part == "validation" and ("fit", name) not in pairs}:
            raise DatasetError(
                f"{self.address}: class {min(unknown)!r} of the validation part has no images in the fit part; add some or remove it"
            )

    def rows(self, block: Block) -> pa.Table:
        table = self._indexed(block)
        names = pa.array([self._name_of.get(label) for label in table["class"].to_pylist()], pa.string())
        return table.set_column(1, "class", names).select(ROWS_SCHEMA.names).cast(ROWS_SCHEMA)

    def locations(self, block: Block) -> Iterator[Location]:
        return map(self._places[block.name][0].unit.location, self._indexed(block)["name"].to_pylist())

    def _indexed(self, block: Block) -> pa.Table:
        index, group = self._places[block.name]
        if index.facts.blocks[group].digest != block.digest or _index_key(index.unit) != index.path.stem:
            raise DatasetError(f"{self.address}: {block.name} has changed meanwhile; run again")
        try:
            return pq.ParquetFile(index.path).read_row_group(group)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{index.path}: the index of {block.name} is gone or damaged; remove it and run again") from error

    def _read(self, block: Block, rows: Sequence[int] | None, whole: bool) -> Iterator[Members]:
        table = self._indexed(block)
        return self._places[block.name][0].unit.read(table if rows is None else table.take(pa.array(rows, pa.int64())), whole)

    def _named_parts(self) -> dict[str, NDArray[np.str_]] | None:
        parts = [self._places[block.name][0].unit.part for block in self.blocks]
        if None in parts:
            return None
        return {block.name: np.full(block.num_samples, part) for block, part in zip(self.blocks, parts, strict=True)}


WHERE_LABELS_STAND: dict[Kind, str] = {
    "webdataset": "each needs a .cls, or a .json with class, label or cls, beside it in the tar",
    "datasets": "a column of ClassLabel, or one named class, label or cls, is needed",
    "image folder": "each class needs a sub-folder",
}
"""Where each kind of foreign set has its labels, for messages."""


def _names_of_labels(place: str, labels: list[str], classes: list[str] | None) -> dict[str, str]:
    """Class name of each label. A label is a class name, or a number among the classes."""
    if classes is None:
        return {label: label for label in labels}
    names = {label: label for label in set(labels) & set(classes)}
    names |= {label: classes[int(label)] for label in labels if label not in names and label.isdecimal() and int(label) < len(classes)}
    if unknown := natural_order(set(labels) - names.keys()):
        raise DatasetError(f"{place}: label {unknown[0]!r} is none of the {len(classes)} classes and no number of one; add it to them")
    return {label: names[label] for label in labels}


# Indices in the cache


def _indices(units: list[SourceUnit], cache: Path, reporter: Reporter) -> list[_Index]:
    """The index of each unit. Those that are not in the cache are made."""
    paths = [_index_path(cache, _index_key(unit)) for unit in units]
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


def _index_key(unit: SourceUnit) -> str:
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


def _index_path(cache: Path, key: str) -> Path:
    return cache / "index" / f"{key}.parquet"


def _read_index(path: Path, unit: SourceUnit) -> _Index | None:
    """The index in the cache. None: there is none that can be read."""
    try:
        facts = json.loads(pq.read_metadata(path).metadata[_FACTS])
        blocks = [_IndexedBlock(**block) for block in facts.pop("blocks")]
        problems = [SourceProblem(**problem) for problem in facts.pop("problems")]
        return _Index(path, unit, _Facts(blocks, problems=problems, **facts))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None


def _make_index(path: Path, unit: SourceUnit) -> _Index:
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
        if _index_key(unit) != path.stem:
            raise DatasetError(f"{unit.files[0]}: changed while it was read; run again when nobody writes there")

    replace_file(path, walk)
    return _Index(path, unit, facts)


def _row(sample: FoundSample) -> dict[str, Any]:
    sha256 = hashlib.sha256(sample.image).hexdigest()
    known = {"key": _key_of_name(sample.name), "class": sample.label, "image_sha256": sha256, "extension": sample.extension}
    return {**sample.record, **known, **sample.place}


def _key_of_name(name: str) -> str:
    """A key for a sample's name; different names have different keys. Plain names stay readable, others get a hash.

    A key has no dot, where the stem of a tar's member ends, and no slash, since it is no path.
    """
    if len(name) <= MAX_KEY and re.fullmatch(r"(?:[A-Za-z0-9_-]+/)*[A-Za-z0-9_-]+", name):
        return name.replace("/", "~")
    mark = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return f"{re.sub('[^A-Za-z0-9_-]', '_', name)[-(MAX_KEY - len(mark) - 1) :]}-{mark}"
