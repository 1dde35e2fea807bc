"""Find the foreign set of labelled images at a path, and read its samples.

Kinds: tars of WebDataset and img2dataset, with the label in .cls, or in .json as class, label or cls; image folders by
class; tables of Hugging Face `datasets`, which are arrow files of `save_to_disk` or parquet files with an image column.

A unit is one tar, one table, or up to 1,000 image files.
Members of a tar are data, never paths: nothing is extracted, and links and devices are skipped.
Not covered: remote places (download them), tars inside tars, other formats of img2dataset, tables that only hold paths.
"""

from __future__ import annotations

import functools
import lzma
import os
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import pyarrow as pa

from synthforge.data import units
from synthforge.data.hf_datasets import tables_at
from synthforge.data.images import READABLE
from synthforge.data.tars import MEMBERS, read_exactly
from synthforge.errors import DatasetError

MAX_MEMBER_BYTES = 1 << 28
"""Larger members of a tar are never read. Images that are decoded are smaller."""
TAR_BLOCK = 10_000
FILES_BLOCK = 1_000
_CLASS_FILES = ("classes.txt", "classnames.txt")
_WANTED = {*READABLE, "cls", "txt", "json"}
"""Extensions of members that are read."""
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
"""Errors of reading a tar that is damaged or gone."""


def find_foreign(place: str) -> units.ForeignSet | None:
    """The set at an absolute path or pattern; no image is read. None: nothing there can be read.

    Parts are only named if there are both of them.
    """
    folder = Path(place)
    tars, problems = units.files_at(place, ".tar")
    if tars:
        return _set_of_tars(Path(os.path.commonpath([path.parent for path in tars])), dict.fromkeys(tars), problems)
    if tables := tables_at(place):
        return tables
    if not folder.is_dir():
        return None
    parts = units.part_folders(folder)
    if tars_in := {path: part for part, inside in parts.items() for path in sorted(inside.glob("*.tar"))}:
        return _set_of_tars(folder, tars_in if len(set(tars_in.values())) > 1 else dict.fromkeys(tars_in), [])
    pieces = [unit for part, inside in parts.items() for unit in _image_units(inside, f"{inside.name}/", part if len(parts) > 1 else None)]
    pieces = pieces if parts else list(_image_units(folder, "", None))
    return units.ForeignSet("image folder", pieces) if pieces else None


def _image_units(folder: Path, prefix: str, part: units.Part | None) -> Iterator[units.SourceUnit]:
    files = units.image_files(folder)
    num_of_stem = Counter(path.rpartition(".")[0] for path in files)
    for start in range(0, len(files), FILES_BLOCK):
        paths = tuple(files[start : start + FILES_BLOCK])
        doubles = frozenset(stem for path in paths if num_of_stem[stem := path.rpartition(".")[0]] > 1)
        yield ImageFiles(folder=folder, prefix=prefix, part=part, paths=paths, start=start, doubles=doubles)


def _set_of_tars(root: Path, parts: Mapping[Path, units.Part | None], problems: list[units.SourceProblem]) -> units.ForeignSet:
    unfinished: list[units.SourceProblem] = []
    if any(next(folder.glob("*_stats.json"), None) for folder in {path.parent for path in parts}):  # img2dataset writes it last
        stats = {path: path.with_name(f"{path.stem}_stats.json") for path in parts}
        words = "has no {} beside it, so img2dataset has not finished it"
        unfinished = [units.SourceProblem(f"{path}: {words.format(file.name)}") for path, file in stats.items() if not file.exists()]
    tars: list[units.SourceUnit] = [Tar(path, root, part) for path, part in parts.items()]
    return units.ForeignSet("webdataset", tars, _classes_beside(root), unfinished + problems)


def _classes_beside(folder: Path) -> list[str] | None:
    """Class names by number: lines of classes.txt or classnames.txt, or a list in timm's `_info.json`."""
    for name in _CLASS_FILES:
        if (folder / name).is_file():
            return [line.strip() for line in (folder / name).read_text(encoding="utf-8").splitlines() if line.strip()]
    info = units.json_object(folder / "_info.json")
    lists = (info.get(name) for name in ("classes", "class_names", "label_names"))
    return next(([str(name) for name in names] for names in lists if isinstance(names, list) and names), None)


# Tars


class TornError(Exception):
    """A tar ends too early, or is none. Raised after the last whole sample."""


@dataclass(frozen=True, slots=True)
class TarSample:
    """Neighbouring members of a tar that share a key."""

    name: str
    """The path in the tar up to the first dot of its last part."""
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and size of every member, by extension."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Content of images, .cls, .txt and .json, by extension."""


def tar_samples(path: Path) -> Iterator[TarSample]:
    """Samples of a WebDataset tar in order, one in memory at a time.

    Raises: TornError where the tar is damaged, after the whole samples before that. DatasetError if it can't be read.
    """
    current, before = TarSample(""), TarSample("")
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
            for member in _regular_members(tar):
                directory, _, base = member.name.rpartition("/")
                if base.startswith("."):  # macOS puts a hidden file before each real one
                    continue
                key, _, extension = base.partition(".")
                name, extension = f"{directory}/{key}" if directory else key, extension.lower()
                if name != current.name or extension in current.spans:  # a member twice: another sample with the same key
                    if current.spans:
                        yield current
                    current, before = TarSample(name), current
                if extension in _WANTED and member.size <= MAX_MEMBER_BYTES:
                    current.contents[extension] = read_exactly(cast("IO[bytes]", tar.fileobj), member.offset_data, member.size)
                current.spans[extension] = (member.offset_data, member.size)
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
        if current.spans and current.spans.keys() == before.spans.keys():  # the last one has all members of its neighbour
            yield current
        raise TornError(str(error).splitlines()[0]) from error
    if current.spans:
        yield current


def _regular_members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Regular files of a tar; raises tarfile.ReadError if the end of the archive is missing, which tarfile accepts."""
    offset = -1
    while (member := tar.next()) is not None:
        cast("Any", tar).members.clear()  # tarfile would keep all of them
        if tar.offset <= offset:
            raise tarfile.ReadError("a member of negative size")
        offset = tar.offset
        if member.isreg() and not member.issparse():
            yield member
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end of the archive is missing")


@dataclass(frozen=True)
class Tar(units.FileUnit):
    """One WebDataset tar."""

    block_samples: ClassVar[int] = TAR_BLOCK

    @property
    def identity(self) -> list[object]:
        return ["tar", self.name]

    def walk(self, problems: list[units.SourceProblem]) -> Iterator[units.FoundSample]:
        # The suffix is dropped in the root only, so that c in a/b.tar and b/c in a.tar have different names.
        stem = self.name.removesuffix(".tar") if "/" not in self.name else self.name
        times: Counter[str] = Counter()
        num, without_image = 0, 0
        try:
            for sample in tar_samples(self.path):
                num += 1
                extension = next((extension for extension in READABLE if extension in sample.contents), None)
                if extension is None:
                    without_image += 1
                    continue
                times[sample.name] += 1
                again = f"#{times[sample.name]}" if times[sample.name] > 1 else ""
                yield self._found(f"{stem}/{sample.name}{again}", sample, extension)
            if num == 0:
                problems.append(units.SourceProblem(f"{self.path}: an empty tar"))
        except TornError as error:
            used = f"the {num} whole samples before the tear are used" if num else "none of it is used"
            problems.append(units.SourceProblem(f"{self.path}: torn or not a tar ({error})", used, "fetch or make it again"))
        if without_image:
            problems.append(units.SourceProblem(f"{self.path}: {without_image} of {num} samples have no image and are left out"))

    def _found(self, name: str, sample: TarSample, extension: str) -> units.FoundSample:
        record = units.json_object(sample.contents.get("json", b""))
        text = sample.contents.get("txt", b"").decode("utf-8", "replace").strip()
        spans = {"image": sample.spans[extension]} | {name: sample.spans[name] for name in MEMBERS[1:] if name in sample.contents}
        place: dict[str, int | str] = {}
        for member, (offset, size) in spans.items():
            place |= {f"{member}_offset": offset, f"{member}_size": size}
        image = sample.contents[extension]
        return units.FoundSample(
            name=name,
            image=image,
            extension=units.extension_of(image, f".{extension}"),
            label=units.label_of(sample.contents, record),
            record=units.known_of(record, text or None),
            place=place | {"name": sample.name.lstrip("/").encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")},
        )

    def location(self, name: str) -> units.Location:
        return units.Location(f"{self.path}:{name}", f"{self.path.name}:{name}")

    def read(self, rows: pa.Table, whole: bool) -> Iterator[units.Members]:
        members = MEMBERS if whole else MEMBERS[:1]
        columns = [f"{member}_{what}" for member in members for what in ("offset", "size")]
        try:
            with self.path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
                for row in rows.select(["extension", *columns]).to_pylist():
                    # In the order of the file, since a compressed tar is slow to read backwards.
                    present = sorted((row[f"{name}_offset"], name) for name in members if row[f"{name}_offset"] is not None)
                    tar_file = cast("IO[bytes]", tar.fileobj)
                    contents = {name: read_exactly(tar_file, offset, row[f"{name}_size"]) for offset, name in present}
                    image = contents.pop("image")
                    yield units.Members(image, row["extension"], **contents)
        except _DAMAGE as error:
            raise DatasetError(f"{self.path}: can't be read any more ({error}); fetch or make it again") from error


# Folders of images


@dataclass(frozen=True)
class ImageFiles:
    """Up to 1,000 neighbouring files of an image folder."""

    folder: Path
    """The folder of the part, or of the whole set if it has no parts."""
    prefix: str
    """The part's folder, such as `train/`, with which names begin. Empty: there are no parts."""
    part: units.Part | None
    paths: tuple[str, ...]
    """Paths relative to `folder`; the first component is the class."""
    start: int
    """Number of the first file in `folder`."""
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

    def walk(self, problems: list[units.SourceProblem]) -> Iterator[units.FoundSample]:  # noqa: ARG002
        for path, file in zip(self.paths, self.files, strict=True):
            stem, image = path.rpartition(".")[0], bytes_of(file)
            name = self.prefix + (path if stem in self.doubles else stem)
            label, place = path.partition("/")[0], {"name": path}
            yield units.FoundSample(name, image, units.extension_of(image, path), label, record=units.known_of({}), place=place)

    def location(self, name: str) -> units.Location:
        return units.Location(str(self.folder / name), name, self.folder / name)

    def read(self, rows: pa.Table, whole: bool) -> Iterator[units.Members]:  # noqa: ARG002
        for row in rows.select(["name", "extension"]).to_pylist():
            yield units.Members(bytes_of(self.folder / row["name"]), row["extension"])


def bytes_of(path: Path) -> bytes:
    """A file's content; raises DatasetError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
