"""Sets of labelled images that others wrote: what lies at a path, and one walk over each file that finds its samples.

tars     WebDataset, also as img2dataset writes it: members that share a key; label in .cls, or in .json as class, label or cls
files    image folders by class
tables   Hugging Face `datasets`: arrow files of `save_to_disk`, parquet files with an image column

What is walked in one go is a *unit*: one tar, one table, or up to 1,000 image files. Members of a tar are data, never paths: nothing
is extracted, links and devices are passed over.
Not covered: remote places (download them), tars inside tars, img2dataset's other formats, images that a table only names.
"""

from __future__ import annotations

import functools
import glob
import json
import lzma
import os
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, Protocol, cast

import numpy as np
import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.errors import DatasetError
from synthforge.images import READABLE
from synthforge.shards.tars import MEMBERS

Part = Literal["fit", "validation"]
Kind = Literal["dataset folder", "webdataset", "image folder", "datasets"]

PART_FOLDERS: dict[Part, tuple[str, ...]] = {"fit": ("fit", "train", "training"), "validation": ("validation", "val", "valid", "test")}
VALIDATION_SHARE = 0.2
MAX_TARS = 1_000_000
MAX_MEMBER_BYTES = 1 << 28
"""Larger members of a tar are never read: no image that we decode is so large."""
MAX_LABEL = 1_000
"""Longer text (characters) is no label."""
TAR_BLOCK = TABLE_BLOCK = 10_000
FILES_BLOCK = 1_000

_TEXT_FIELDS = ("source", "source_sha256")
_CAPTIONS = ("prompt", "caption", "text")
_LABELS = ("class", "label", "cls")
_CLASS_FILES = ("classes.txt", "classnames.txt")
_MAGIC = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\0", "tif"), (b"MM\0*", "tif"))
"""First bytes of formats; WebP's stand further on (see `_extension_of`)."""


@dataclass(frozen=True, slots=True)
class Members:
    """One whole sample, as it is copied."""

    image: bytes
    """The encoded image file."""
    extension: str
    """Of the image, without dot, in small letters."""
    cls: bytes | None = None
    txt: bytes | None = None
    json: bytes | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """One sample as the walk over a unit finds it."""

    name: str
    """Of letters, digits, `-`, `_` and `/` where it can be; the same name never stands for two samples of a set."""
    image: bytes
    extension: str
    label: str | None
    record: Mapping[str, Any]
    """What is known: prompt, source, source_sha256, strength, guidance, seed; types are not checked yet."""
    place: Mapping[str, int | str]
    """Where it lies in the unit: columns of the index."""


class Unit(Protocol):
    """What is indexed in one go."""

    @property
    def name(self) -> str:
        """For messages and blocks."""

    @property
    def part(self) -> Part | None:
        """The part of a reference that all of it belongs to, if the place says so."""

    @property
    def block_samples(self) -> int:
        """So many samples make a block at most."""

    @property
    def identity(self) -> list[object]:
        """What its index depends on beside the files' contents."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that it is read from."""

    def walk(self, problems: list[str]) -> Iterator[Found]:
        """All samples in order; adds a line to `problems` for what is left out."""

    def read(self, rows: pa.Table, whole: bool) -> Iterator[Members]:
        """The samples of rows of the index, in their order; without `whole` only image and extension."""


@dataclass(frozen=True)
class ForeignSet:
    """What was found at a path."""

    kind: Kind
    units: list[Unit]
    classes: list[str] | None = None
    """Names by number, where something beside the data gives them."""
    problems: list[str] = field(default_factory=list)


def find_foreign(place: str) -> ForeignSet | None:
    """Look what lies at an absolute path or pattern, without reading any image; None if nothing that we know."""
    folder = Path(place)
    tars, problems = _files_at(place, ".tar")
    if tars:
        found = _set_of_tars(Path(os.path.commonpath([path.parent for path in tars])), dict.fromkeys(tars))
        return replace(found, problems=found.problems + problems)
    if tables := _tables_at(place):
        return tables
    if not folder.is_dir():
        return None
    parts = part_folders(folder)
    if tars_in := {path: part for part, inside in parts.items() for path in sorted(inside.glob("*.tar"))}:
        return _set_of_tars(folder, tars_in if len(set(tars_in.values())) > 1 else dict.fromkeys(tars_in))
    if parts:
        told = "validation" in parts
        units = [unit for part, inside in parts.items() for unit in _units_of_files(inside, f"{inside.name}/", part if told else None)]
    else:
        units = list(_units_of_files(folder, "", None))
    return ForeignSet("image folder", units) if units else None


def _units_of_files(folder: Path, prefix: str, part: Part | None) -> Iterator[Unit]:
    files = image_files(folder)
    num_of_stem = Counter(path.rpartition(".")[0] for path in files)
    for start in range(0, len(files), FILES_BLOCK):
        paths = tuple(files[start : start + FILES_BLOCK])
        doubles = frozenset(stem for path in paths if num_of_stem[stem := path.rpartition(".")[0]] > 1)
        yield ImageFiles(folder, prefix, part, paths, start, doubles)


def _set_of_tars(root: Path, parts: Mapping[Path, Part | None]) -> ForeignSet:
    problems = []
    if any(next(folder.glob("*_stats.json"), None) for folder in {path.parent for path in parts}):  # img2dataset writes it last
        unfinished = [path for path in parts if not path.with_name(f"{path.stem}_stats.json").exists()]
        problems = [f"{path}: has no {path.stem}_stats.json beside it, so img2dataset has not finished it" for path in unfinished]
    return ForeignSet("webdataset", [Tar(path, root, part) for path, part in parts.items()], _classes_beside(root), problems)


def _classes_beside(folder: Path) -> list[str] | None:
    """Names of classes by number: lines of classes.txt, or a list in timm's `_info.json`."""
    for name in _CLASS_FILES:
        if (folder / name).is_file():
            return [line.strip() for line in (folder / name).read_text(encoding="utf-8").splitlines() if line.strip()]
    info = _json_object(folder / "_info.json")
    lists = (info.get(name) for name in ("classes", "class_names", "label_names"))
    return next(([str(name) for name in found] for found in lists if isinstance(found, list) and found), None)


def _json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; empty if there is none, or something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# Which files


def tars_at(place: str) -> list[Path]:
    """A tar, a folder of tars, or a pattern with *, ? or braces such as train-{000000..000009}.tar."""
    return _files_at(place, ".tar")[0]


def _files_at(place: str, suffix: str) -> tuple[list[Path], list[str]]:
    """The files, and a line if some that braces spell out are not there."""
    if Path(place).is_dir():
        return sorted(Path(place).glob(f"*{suffix}")), []
    if place.endswith(suffix) and Path(place).is_file():  # whatever its name holds, it is no pattern
        return [Path(place)], []
    patterns = [place]
    while match := re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", patterns[0]):
        options = _brace_options(match)
        if len(patterns) * len(options) > MAX_TARS:
            raise DatasetError(f"{place}: stands for more than {MAX_TARS:,} files")
        patterns = [pattern.replace(match[0], option) for pattern in patterns for option in options]
    found = {pattern: sorted(glob.glob(pattern)) for pattern in patterns}
    files = dict.fromkeys(path for paths in found.values() for path in paths if path.endswith(suffix))
    missing = [pattern for pattern, paths in found.items() if not paths]
    told = [f"{len(missing):,} of the {len(found):,} files that it spells out are missing, the first is {missing[0]}"] if missing else []
    return [Path(path) for path in files], told


def _brace_options(match: re.Match[str]) -> list[str]:
    if match[3] is not None:
        return match[3].split(",")
    first, last = int(match[1]), int(match[2])
    return [str(number).zfill(len(match[1])) for number in range(first, min(last, first + MAX_TARS) + 1)]


def part_folders(place: Path) -> dict[Part, Path]:
    """The sub-folders that hold the parts; empty if there are none, only `fit` if there is no validation part."""
    found = {part: next((place / name for name in names if (place / name).is_dir()), None) for part, names in PART_FOLDERS.items()}
    fit, validation = found["fit"], found["validation"]
    if fit is None and validation is not None and validation.name != "test":
        raise DatasetError(f"{place}: has {validation.name} but no fit or train folder beside it; add one")
    if fit is None:
        return {}
    return {"fit": fit} if validation is None else {"fit": fit, "validation": validation}


def image_files(place: Path) -> list[str]:
    """Image files by class folder, in order, as paths relative to `place`; hidden files are no images."""
    found: list[str] = []
    for name in sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith(".")):
        inside: list[list[str]] = []
        for directory, folders, files in os.walk(place / name):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            above = Path(directory).relative_to(place).parts
            inside += [[*above, file] for file in files if file.lower().endswith(_IMAGE_SUFFIXES) and not file.startswith(".")]
        found += ["/".join(parts) for parts in sorted(inside) if Path(place, *parts).is_file()]
    return found


_IMAGE_SUFFIXES = tuple(f".{extension}" for extension in READABLE)


# Names, labels, parts


def natural_order(names: Iterable[str]) -> list[str]:
    """Numbers by their value, then names."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def last_of_each(labels_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows are the validation part where nothing says so: the last fifth of each class, in order; label -1 is no class.

    Neighbours in a collection are often near twins and must not stand on both sides, so it is not drawn at random.
    """
    held_N = np.zeros(len(labels_N), dtype=np.bool_)
    order_N = np.argsort(labels_N, kind="stable")
    labels, starts = np.unique(labels_N[order_N], return_index=True)
    for label, rows in zip(labels, np.split(order_N, starts[1:]), strict=True) if len(order_N) else ():
        if label >= 0:
            held_N[rows[len(rows) - int(len(rows) * VALIDATION_SHARE) :]] = True
    return held_N


def label_of(contents: Mapping[str, bytes], record: Mapping[str, Any]) -> str | None:
    """The label of a sample of a tar: its .cls, else `class`, `label` or `cls` of its .json; None if it has none."""
    candidates = (contents.get("cls", b"").decode("utf-8", "replace"), *map(record.get, _LABELS))
    return next((label for value in candidates if (label := _as_label(value))), None)


def _as_label(value: object) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    label = (as_text(value) or "").strip()
    return label if 0 < len(label) <= MAX_LABEL else None


def as_text(value: object) -> str | None:
    """Text that UTF-8 can hold (JSON may smuggle in halves of characters), or None for anything else."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def record_of(contents: Mapping[str, bytes]) -> dict[str, Any]:
    """The .json of a sample, if it has one that holds an object."""
    try:
        record = json.loads(contents["json"])
    except (KeyError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def known_of(record: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
    """The columns of the index that a record fills, each None if unknown or of a wrong type."""
    prompt = text or next((found for name in _CAPTIONS if (found := as_text(record.get(name)))), None)
    known: dict[str, Any] = {"prompt": prompt}
    for name in _TEXT_FIELDS:
        known[name] = as_text(record.get(name))
    for name in ("strength", "guidance"):
        value = record.get(name)
        with suppress(OverflowError):
            known[name] = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    seed = record.get("seed")
    known["seed"] = seed if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**64 else None
    return known


def _extension_of(data: bytes, name: str) -> str:
    """The format of an image file by its first bytes, whatever its name says, since decoders go by them too.

    Bytes of no format that is known here keep the name's; whoever decodes them says what is wrong.
    """
    start = data[:16]
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    by_name = name.rpartition(".")[2].lower()
    return next((extension for magic, extension in _MAGIC if start.startswith(magic)), by_name if by_name in READABLE else "png")


# Tars


class TornError(Exception):
    """A tar ends too early or is none; raised after the last whole sample."""


@dataclass(frozen=True, slots=True)
class TarSample:
    """Neighbouring members of a tar that share a key."""

    name: str
    """Directory and base name up to its first dot, as they stand in the tar."""
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Extension to offset and size, for all members."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Extension to content, for images, .cls, .txt and .json."""

    @property
    def image(self) -> str | None:
        """The extension of its image."""
        return next((extension for extension in READABLE if extension in self.contents), None)


def tar_samples(path: Path) -> Iterator[TarSample]:
    """Samples of a WebDataset tar in order, one in memory at a time; raises TornError at a tear, after the whole samples before it."""
    current, before = TarSample(""), TarSample("")
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
            for member in _regular_members(tar):
                directory, _, base = member.name.rpartition("/")
                if base.startswith("."):  # a Mac puts such a file before each real one
                    continue
                key, _, extension = base.partition(".")
                name, extension = f"{directory}/{key}" if directory else key, extension.lower()
                if name != current.name or extension in current.spans:  # a member twice: another sample with the same key
                    if current.spans:
                        yield current
                    current, before = TarSample(name), current
                if extension in _WANTED and member.size <= MAX_MEMBER_BYTES:
                    current.contents[extension] = _content(cast("IO[bytes]", tar.fileobj), member.offset_data, member.size)
                current.spans[extension] = (member.offset_data, member.size)
    except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
        if current.spans and current.spans.keys() == before.spans.keys():  # the last one has all that its neighbour has
            yield current
        raise TornError(str(error).splitlines()[0]) from error
    if current.spans:
        yield current


_WANTED = {*READABLE, "cls", "txt", "json"}


def _regular_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Plain files of a tar up to its end; raises tarfile.ReadError if the end is missing, which tarfile itself lets pass."""
    offset = -1
    while (member := tar.next()) is not None:
        cast("Any", tar).members.clear()  # tarfile keeps all of them
        if tar.offset <= offset:
            raise tarfile.ReadError("a member of negative size")
        offset = tar.offset
        if member.isreg() and not member.issparse():
            yield member
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end of the archive is missing")


def _content(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise tarfile.ReadError("unexpected end of data")
    return data


@dataclass(frozen=True)
class Tar:
    """One WebDataset tar."""

    path: Path
    root: Path
    part: Part | None
    block_samples: ClassVar[int] = TAR_BLOCK

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @property
    def identity(self) -> list[object]:
        return ["tar", self.name]

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    def walk(self, problems: list[str]) -> Iterator[Found]:
        # Only a tar that lies in the root goes without its suffix: a/b.tar holding c and a.tar holding b/c must differ.
        stem = self.name.removesuffix(".tar") if "/" not in self.name else self.name
        seen: dict[str, int] = {}
        num, without_image = 0, 0
        try:
            for sample in tar_samples(self.path):
                num += 1
                if (extension := sample.image) is None:
                    without_image += 1
                    continue
                seen[sample.name] = times = seen.get(sample.name, 0) + 1
                yield self._found(f"{stem}/{sample.name}" + (f"#{times}" if times > 1 else ""), sample, extension)
        except TornError as error:
            used = f"the {num} whole samples before the tear are used" if num else "nothing of it is used"
            problems.append(f"{self.path}: torn or not a tar ({error}); {used}")
        else:
            if num == 0:
                problems.append(f"{self.path}: an empty tar")
        if without_image:
            problems.append(f"{self.path}: {without_image} of {num} samples have no image and are left out")

    def _found(self, name: str, sample: TarSample, extension: str) -> Found:
        record = record_of(sample.contents)
        text = sample.contents.get("txt", b"").decode("utf-8", "replace").strip()
        spans = {"image": sample.spans[extension]} | {name: sample.spans[name] for name in MEMBERS[1:] if name in sample.contents}
        place = {f"{member}_{what}": value for member, span in spans.items() for what, value in zip(("offset", "size"), span, strict=True)}
        image = sample.contents[extension]
        known = known_of(record, text or None)
        return Found(name, image, _extension_of(image, f".{extension}"), label_of(sample.contents, record), known, place)

    def read(self, rows: pa.Table, whole: bool) -> Iterator[Members]:
        members = MEMBERS if whole else MEMBERS[:1]
        columns = [f"{member}_{what}" for member in members for what in ("offset", "size")]
        try:
            with self.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
                for row in rows.select(["extension", *columns]).to_pylist():
                    # In the order of the file: what is compressed can't be read backwards.
                    present = sorted(
                        (row[f"{name}_offset"], row[f"{name}_size"], name) for name in members if row[f"{name}_offset"] is not None
                    )
                    contents = {name: _content(cast("IO[bytes]", tar.fileobj), offset, size) for offset, size, name in present}
                    yield Members(contents["image"], row["extension"], contents.get("cls"), contents.get("txt"), contents.get("json"))
        except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            raise DatasetError(f"{self.path}: can't be read any more ({error}); fetch or make it again") from error


# Folders of images


@dataclass(frozen=True)
class ImageFiles:
    """Up to 1,000 neighbours of an image folder."""

    folder: Path
    """Of the part, or the whole."""
    prefix: str
    """Of names: `train/`, or nothing where there are no parts."""
    part: Part | None
    paths: tuple[str, ...]
    """Relative to `folder`; the first component is the class."""
    start: int
    """Number of the first in `folder`."""
    doubles: frozenset[str]
    """Paths without suffix that several images share."""
    block_samples: ClassVar[int] = FILES_BLOCK

    @property
    def name(self) -> str:
        return f"{self.prefix}images {self.start}-{self.start + len(self.paths) - 1}"

    @property
    def identity(self) -> list[object]:
        return ["files", self.name, sorted(self.doubles)]

    @functools.cached_property
    def files(self) -> Sequence[Path]:
        return [self.folder / path for path in self.paths]

    def walk(self, problems: list[str]) -> Iterator[Found]:  # noqa: ARG002
        for path, file in zip(self.paths, self.files, strict=True):
            stem, image = path.rpartition(".")[0], bytes_of(file)
            name = self.prefix + (path if stem in self.doubles else stem)
            yield Found(name, image, _extension_of(image, path), path.partition("/")[0], known_of({}), {"path": path})

    def read(self, rows: pa.Table, whole: bool) -> Iterator[Members]:  # noqa: ARG002
        for row in rows.select(["path", "extension"]).to_pylist():
            yield Members(bytes_of(self.folder / row["path"]), row["extension"])


def bytes_of(path: Path) -> bytes:
    """A file's content; raises DatasetError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror})") from error


# Tables of Hugging Face `datasets`


@dataclass(frozen=True)
class Table:
    """One arrow or parquet file with an image column."""

    path: Path
    root: Path
    part: Part | None
    image: str
    """Column of images."""
    label: str | None
    """Column of labels."""
    names: list[str] | None
    """Names of the classes, if labels are numbers."""
    block_samples: ClassVar[int] = TABLE_BLOCK

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @property
    def identity(self) -> list[object]:
        return ["table", self.name, self.image, self.label, self.names]

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]

    def walk(self, problems: list[str]) -> Iterator[Found]:
        stem = self.name.rpartition(".")[0]
        number, without_image = 0, 0
        try:
            with _TableFile(self.path) as file:
                others = [name for name in (*_CAPTIONS, *_TEXT_FIELDS, "strength", "guidance", "seed") if name in file.schema.names]
                wanted = list(dict.fromkeys([self.image, *([self.label] if self.label else []), *others]))
                for group in range(file.num_groups):
                    rows = (row for batch in file.batches(group, wanted) for row in batch.to_pylist())
                    for within, row in enumerate(rows):
                        data, path = _image_in(row[self.image])
                        if data:
                            place = {"group": group, "row": within}
                            label = self._label(row[self.label]) if self.label else None
                            yield Found(f"{stem}/{number}", data, _extension_of(data, path), label, known_of(row), place)
                        else:
                            without_image += 1
                        number += 1
                if file.damage:
                    raise OSError(file.damage)
        except (pa.ArrowException, OSError) as error:
            problems.append(f"{self.path}: damaged ({str(error).splitlines()[0]}); the {number} rows before that are used")
        if without_image:
            problems.append(f"{self.path}: {without_image} of {number} rows hold no image and are left out")

    def _label(self, value: object) -> str | None:
        if self.names is not None and isinstance(value, int):
            return self.names[value] if 0 <= value < len(self.names) else None  # -1 is how `datasets` says "none"
        return _as_label(value)

    def read(self, rows: pa.Table, whole: bool) -> Iterator[Members]:
        """Rows of one row group are best asked for in order: going back in it means decoding it again."""
        try:
            with _TableFile(self.path) as file:
                batches: Iterator[Any] = iter(())
                batch: Any = []
                group, start = -1, 0
                for row in rows.select(["group", "row", "extension", "prompt"]).to_pylist():
                    if row["group"] != group or row["row"] < start:
                        batches, group, start, batch = file.batches(row["group"], [self.image]), row["group"], 0, []
                    while row["row"] >= start + len(batch):
                        start, batch = start + len(batch), next(batches).column(0)
                    data, _ = _image_in(batch[row["row"] - start].as_py())
                    assert data is not None  # rows without an image are not in the index
                    yield Members(data, row["extension"], txt=row["prompt"].encode() if whole and row["prompt"] else None)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.path}: can't be read any more ({str(error).splitlines()[0]}); fetch or make it again") from error


class _TableFile:
    """An arrow or parquet file as groups of rows, memory-mapped, so that only what is looked at is read.

    Of parquet, up to a row group is in memory: `datasets` makes them of 100 images, and pages can't be read in part.
    """

    def __init__(self, path: Path) -> None:
        self.map = pa.memory_map(str(path))
        self.parquet = pq.ParquetFile(self.map) if path.suffix == ".parquet" else None
        self.stream: list[Any] = []
        self.damage = ""
        """Why the rest of a stream can't be read."""
        if self.parquet is not None:
            self.schema, self.num_groups = self.parquet.schema_arrow, self.parquet.num_row_groups
            return
        reader = pyarrow.ipc.open_stream(self.map)
        self.schema = reader.schema
        try:
            self.stream.extend(reader)
        except (pa.ArrowException, OSError) as error:
            self.damage = str(error)
        self.num_groups = len(self.stream)

    def __enter__(self) -> _TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.map.close()

    def batches(self, group: int, columns: list[str], rows: int = 16) -> Iterator[Any]:
        """Record batches of one group."""
        if self.parquet is not None:
            return iter(self.parquet.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False))
        whole = self.stream[group].select(columns)
        return (whole.slice(start, rows) for start in range(0, whole.num_rows, rows))


def _image_in(cell: object) -> tuple[bytes | None, str]:
    """Content and path of an image as `datasets` stores it, {bytes, path}, or as bare bytes."""
    if isinstance(cell, dict):
        return cell.get("bytes"), str(cell.get("path") or "")
    return (cell, "") if isinstance(cell, bytes) else (None, "")


def _tables_at(place: str) -> ForeignSet | None:
    """The tables of a folder that `datasets` wrote, of one of parquet files, or of a pattern; None if they hold no images."""
    folder = Path(place)
    splits = _json_object(folder / "dataset_dict.json").get("splits")
    problems: list[str] = []
    if isinstance(splits, list):
        paths = {path: str(split) for split in splits for path in _arrow_files(folder / Path(str(split)).name)}
    elif (folder / "state.json").is_file():
        paths = dict.fromkeys(_arrow_files(folder), "")
    else:
        # As on the Hub: train-00000-of-00002.parquet, at the top or one folder below, or a folder for each split.
        found, problems = _files_at(place, ".parquet")
        found = found or (sorted(folder.glob("*/*.parquet")) if folder.is_dir() else [])
        paths = {path: path.parent.name if path.parent.name in _SPLITS else path.stem.partition("-")[0] for path in found}
    if not paths:
        return None
    root = Path(os.path.commonpath([path.parent for path in paths]))
    tables = _with_parts([table for path in paths if (table := _table(path, root, problems)) is not None], paths)
    names = next((table.names for table in tables if table.names), None)
    return ForeignSet("datasets", list(tables), names, list(dict.fromkeys(problems))) if tables else None


_SPLITS = {name for names in PART_FOLDERS.values() for name in names}


def _arrow_files(folder: Path) -> list[Path]:
    """In the order that `datasets` gives them."""
    listed = _json_object(folder / "state.json").get("_data_files")
    if not isinstance(listed, list):
        raise DatasetError(f"{folder}: has no state.json that lists data files; save it again with save_to_disk")
    return [folder / Path(str(entry["filename"])).name for entry in listed]


def _with_parts(tables: list[Table], splits: Mapping[Path, str]) -> list[Table]:
    """Those of the two splits that are the parts; all of them, without parts, if there is none to fit."""
    present = {splits[table.path] for table in tables}
    chosen = {part: next((name for name in names if name in present), None) for part, names in PART_FOLDERS.items()}
    if chosen["fit"] is None:
        return tables
    part_of: dict[str | None, Part] = {split: part for part, split in chosen.items() if split is not None}
    only_fit = chosen["validation"] is None
    return [replace(table, part=None if only_fit else part_of[splits[table.path]]) for table in tables if splits[table.path] in part_of]


def _table(path: Path, root: Path, problems: list[str]) -> Table | None:
    """The table in a file, or None if it has no images."""
    try:
        with _TableFile(path) as file:
            schema = file.schema
    except (pa.ArrowException, OSError) as error:
        problems.append(f"{path}: not a whole {path.suffix[1:]} file ({str(error).splitlines()[0]}); nothing of it is used")
        return None
    features = _features(schema, path.parent)
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    images += [entry.name for entry in schema if pa.types.is_struct(entry.type) and entry.type.get_field_index("bytes") >= 0]
    if not images:
        return None
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = sorted(labels, key=lambda name: name not in _LABELS) or [name for name in _LABELS if name in schema.names]
    label = labels[0] if labels else None
    if len(labels) > 1:
        problems.append(f"{root}: has label columns {', '.join(labels)}; {label} is used")
    names = features.get(label, {}).get("names") if label else None
    return Table(path, root, None, images[0], label, list(map(str, names)) if names else None)


def _features(schema: pa.Schema, folder: Path) -> dict[str, dict[str, Any]]:
    """What `datasets` says of the columns: in the file itself, else in dataset_info.json beside it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = _json_object(folder / "dataset_info.json").get("features")
    if not isinstance(features, dict):
        return {}
    return {name: entry for name, entry in features.items() if isinstance(entry, dict)}
