"""Find the foreign set of labelled images at a path, and read its samples.

Kinds: tars of WebDataset and img2dataset, also compressed, with the label in .cls, or in .json as class, label or cls;
image folders by class; tables of Hugging Face `datasets`, which are arrow files of `save_to_disk` or parquet files with
an image column.

A unit is one tar, one table, or up to 1,000 files. Whether a file is an image is told by its content.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, ClassVar, cast

import pyarrow as pa

from synthforge.data import units
from synthforge.data.hf_datasets import tables_at
from synthforge.data.images import HEAD_BYTES, SUFFIXES, format_of
from synthforge.data.labels import AUXILIARY, chosen_column, known_of, label_of
from synthforge.data.read_config import ColumnsConfig
from synthforge.data.splits import (
    HELD_OUT_SPLITS,
    files_at,
    files_by_class,
    files_in,
    folders_beside,
    is_of_macos,
    parted,
    split_word_in,
    splits_of,
)
from synthforge.data.tars import MEMBERS, read_exactly
from synthforge.data.text_files import lines_of
from synthforge.errors import DatasetError, some

MAX_MEMBER_BYTES = 1 << 28
"""Larger members of a tar are never read. Images that are decoded are smaller."""
MAX_HELD_BYTES = 1 << 30
"""Most bytes of unfinished samples in memory, where members of a sample are not neighbours."""
_TOO_LARGE = f"larger than {MAX_MEMBER_BYTES:,} bytes"
_NO_FILE = "no regular files (links, devices)"
TAR_BLOCK = 10_000
FILES_BLOCK = 1_000
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_CLASS_FILES = ("classes.txt", "classnames.txt")
_TEXTS = ("cls", "txt", "json")
_DAMAGE = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError, ValueError, OverflowError, MemoryError)
"""Errors of reading a tar that is damaged or gone. The last three come from sizes in a header that can't be."""


def find_foreign(place: str, columns: ColumnsConfig) -> units.ForeignSet | None:
    """The set at an absolute path or pattern; no image is read. None: nothing there can be read.

    Parts are only named if there are both of them.
    """
    folder = Path(place)
    tars, problems = files_at(place, TARS)
    if tars:
        root = Path(os.path.commonpath([path.parent for path in tars]))
        parts_of_tars = dict.fromkeys(tars) if columns.splits is False else _parts_of_tars(tars, problems)
        return _set_of_tars(root, parts_of_tars, problems + folders_beside(folder, "tars"), columns)
    if tables := tables_at(place, columns):
        reads_files = any(len(unit.files) > 1 for unit in tables.units)
        return tables if reads_files else replace(tables, problems=tables.problems + folders_beside(folder, "tables"))
    if not folder.is_dir():
        return None
    if stats := next(folder.glob("*_stats.json"), None):
        raise DatasetError(
            f"{folder}: {stats.name} says that img2dataset wrote this, as single files with their labels in .json; "
            "make it again with --output_format webdataset"
        )
    if (splits := splits_of(folder, columns.splits)) is None:
        files, problems = files_by_class(folder)
        pieces = list(_image_units(folder, files, "", None))
        return units.ForeignSet("image folder", pieces, _classes_beside(folder), problems) if pieces else None
    parts, problems = splits.parts, list(splits.problems)
    if tars_in := {path: part for part, inside in parts.items() for path in files_in(inside, TARS)}:
        return _set_of_tars(folder, tars_in if len(set(tars_in.values())) > 1 else dict.fromkeys(tars_in), problems, columns)
    pieces = []
    for part, inside in parts.items():
        files, without = files_by_class(inside)
        problems += without
        pieces += _image_units(inside, files, f"{inside.name}/", part if len(parts) > 1 else None)
    return units.ForeignSet("image folder", pieces, _classes_beside(folder), problems) if pieces else None


def _parts_of_tars(tars: Sequence[Path], problems: list[units.SourceProblem]) -> dict[Path, units.Part | None]:
    """The tars that are read, each with its part, by the names of splits in their names.

    Raises: DatasetError if that leaves a doubt.
    """
    word_of = {path: split_word_in(path) for path in tars}
    if all(word_of.values()) and len(set(word_of.values())) > 1:
        return parted(word_of, problems)
    held_out = [path.name for path, word in word_of.items() if word in HELD_OUT_SPLITS]
    if held_out and len(held_out) < len(tars):
        raise DatasetError(
            f"{tars[0].parent}: {some(held_out)} would be the final test, but the other tars name no split; move them elsewhere, or say "
            "with --set columns.splits=false that all are to be read"
        )
    return dict.fromkeys(tars)


def _image_units(folder: Path, files: Sequence[str], prefix: str, part: units.Part | None) -> Iterator[units.SourceUnit]:
    num_of_stem = Counter(_stem(path) for path in files)
    for start in range(0, len(files), FILES_BLOCK):
        paths = tuple(files[start : start + FILES_BLOCK])
        doubles = frozenset(stem for path in paths if num_of_stem[stem := _stem(path)] > 1)
        yield ImageFiles(folder=folder, prefix=prefix, part=part, paths=paths, start=start, doubles=doubles)


def _stem(path: str) -> str:
    """A path without the suffix of its last part."""
    directory, _, name = path.rpartition("/")
    return f"{directory}/{name.rpartition('.')[0] or name}"


def _set_of_tars(
    root: Path, parts: Mapping[Path, units.Part | None], problems: list[units.SourceProblem], columns: ColumnsConfig
) -> units.ForeignSet:
    unfinished: list[units.SourceProblem] = []
    if any(next(folder.glob("*_stats.json"), None) for folder in {path.parent for path in parts}):  # img2dataset writes it last
        stats = {path: path.with_name(f"{path.stem}_stats.json") for path in parts}
        words = "has no {} beside it, so img2dataset has not finished it"
        unfinished = [units.SourceProblem(f"{path}: {words.format(file.name)}") for path, file in stats.items() if not file.exists()]
    tars: list[units.SourceUnit] = [Tar(path, root, part, columns.image) for path, part in parts.items()]
    return units.ForeignSet("webdataset", tars, _classes_beside(root), unfinished + problems)


def _classes_beside(folder: Path) -> list[str] | None:
    """Class names by number: lines of classes.txt or classnames.txt, or a list in timm's `_info.json`."""
    for name in _CLASS_FILES:
        if (folder / name).is_file():
            return lines_of(folder / name)
    info = units.json_object(folder / "_info.json")
    lists = (info.get(name) for name in ("classes", "class_names", "label_names"))
    return next(([str(name) for name in names] for names in lists if isinstance(names, list) and names), None)


# Tars


class TornError(Exception):
    """A tar ends too early, or is none. Raised after the last whole sample."""


class _MoreError(tarfile.ReadError):
    """A tar is whole, but more follows."""


@dataclass(frozen=True, slots=True)
class TarSample:
    """Members of a tar that share a key."""

    name: str
    """The path in the tar up to the first dot of its last part."""
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Offset and size of every member, by extension."""
    contents: dict[str, bytes] = field(default_factory=dict)
    """Content of images, .cls, .txt and .json, by extension."""
    images: list[str] = field(default_factory=list)
    """Extensions of members that are images by their content, or by their name."""


@dataclass
class Skipped:
    """Members of a tar that are not read."""

    too_large: list[str] = field(default_factory=list)
    """Names of members of more than `MAX_MEMBER_BYTES`."""
    keys: set[str] = field(default_factory=set)
    """Names of samples whose image may be among the skipped members."""
    others: dict[str, list[str]] = field(default_factory=dict)
    """Names of other members, by reason."""


def tar_samples(path: Path, skipped: Skipped | None = None) -> Iterator[TarSample]:
    """Samples of a WebDataset tar, in the order in which they are complete.

    Members of a sample need not be neighbours: the names are read first, which tells where each sample ends.

    Args:
        skipped: gets what is not read.
    Raises: TornError where the tar is damaged, after the whole samples before that. DatasetError if it can't be read,
        or if too much of unfinished samples would have to be in memory.
    """
    skipped = skipped or Skipped()
    sizes = _members_of_samples(path, skipped)
    waiting: dict[str, TarSample] = {}
    held, whole = 0, TarSample("")
    try:
        for file, member, key, extension in _keyed_members(path):
            if not sizes.get(key):
                raise DatasetError(f"{path}: changed while it was read; run again when nobody writes there")
            sample = waiting.setdefault(key, TarSample(key))
            if member.size > MAX_MEMBER_BYTES:
                skipped.too_large.append(member.name)
                if _is_of_image(member.name):
                    skipped.keys.add(key)
            elif (content := _content(file, member, extension)) is not None:
                held += len(content)
                sample.contents[extension] = content
                if extension not in _TEXTS:
                    sample.images.append(extension)
            sample.spans[extension] = (member.offset_data, member.size)
            if len(sample.spans) == sizes[key][0]:
                sizes[key].pop(0)
                held -= sum(map(len, sample.contents.values()))
                whole = waiting.pop(key)
                yield whole
            elif held > MAX_HELD_BYTES:
                raise DatasetError(
                    f"{path}: the members of a sample lie too far apart ({len(waiting):,} samples are unfinished at {member.name}); "
                    "make the tar again with the members of a sample as neighbours, for example with `tar --sort=name`"
                )
    except _DAMAGE as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
        yield from (sample for sample in waiting.values() if sample.spans and sample.spans.keys() == whole.spans.keys())  # is whole
        raise TornError((str(error) or type(error).__name__).splitlines()[0]) from error
    yield from waiting.values()


def _members_of_samples(path: Path, skipped: Skipped) -> dict[str, list[int]]:
    """Number of members of each sample, by key; a member twice begins another sample with the same key.

    The last sample before a tear counts one member more, since it may be incomplete.
    """
    sizes: dict[str, list[int]] = {}
    seen: dict[str, set[str]] = {}
    key = ""
    try:
        for _, _, key, extension in _keyed_members(path, skipped):
            if extension in seen.setdefault(key, {extension}) and key in sizes:
                seen[key] = set()
                sizes[key].append(0)
            seen[key].add(extension)
            sizes.setdefault(key, [0])[-1] += 1
    except _MoreError:
        pass  # all samples were whole; the reader of contents tells what follows
    except _DAMAGE:  # it comes again when the contents are read
        sizes.setdefault(key, [0])[-1] += 1
    return sizes


def _keyed_members(path: Path, skipped: Skipped | None = None) -> Iterator[tuple[IO[bytes], tarfile.TarInfo, str, str]]:
    """Regular members of a tar that are not hidden, each with the open tar, its key and its extension."""
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as tar:
        for member in _members(tar):
            parts = _key_and_extension(member.name)
            is_regular = member.isreg() and not member.issparse()
            if parts is not None and is_regular:
                yield cast("IO[bytes]", tar.fileobj), member, *parts
            elif skipped is not None and _is_of_image(member.name) and not is_of_macos(member.name):
                skipped.others.setdefault(units.HIDDEN if parts is None else _NO_FILE, []).append(member.name)
                skipped.keys.update(parts[:1] if parts is not None else ())


def _is_of_image(name: str) -> bool:
    return name.lower().endswith(units.IMAGE_SUFFIXES)


def _key_and_extension(name: str) -> tuple[str, str] | None:
    """Key and extension of a member, as WebDataset parts them. None: hidden (macOS puts one before each real one)."""
    directory, _, base = name.rpartition("/")
    if base.startswith("."):
        return None
    key, _, extension = base.partition(".")
    return f"{directory}/{key}" if directory else key, extension.lower()


def _content(file: IO[bytes], member: tarfile.TarInfo, extension: str) -> bytes | None:
    """The content of a member that is an image or a text of the sample; None for others, of which only the head is
    read."""
    if extension in _TEXTS or extension.rpartition(".")[2] in SUFFIXES:
        return read_exactly(file, member.offset_data, member.size)
    head = read_exactly(file, member.offset_data, min(HEAD_BYTES, member.size))
    if format_of(head) is None:
        return None
    rest = file.read(member.size - len(head))
    if len(head) + len(rest) != member.size:
        raise EOFError("unexpected end of data")
    return head + rest


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Members of a tar that are no folders.

    Raises tarfile.ReadError if the end of the archive is missing, which tarfile accepts.
    """
    offset = -1
    while (member := tar.next()) is not None:
        cast("Any", tar).members.clear()  # tarfile would keep all of them
        if tar.offset <= offset:
            raise tarfile.ReadError("a member of negative size")
        offset = tar.offset
        if not member.isdir():
            yield member
    file = cast("IO[bytes]", tar.fileobj)
    file.seek(tar.offset)
    if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the end of the archive is missing")
    while rest := file.read(1 << 20):
        if rest.strip(tarfile.NUL):
            raise _MoreError("there is more after the end of the archive, as if tars had been joined by cat")


@dataclass(frozen=True)
class Tar(units.FileUnit):
    """One WebDataset tar."""

    image: str | None = None
    """Extension of the image, where a sample has several. None: the user did not say."""
    block_samples: ClassVar[int] = TAR_BLOCK

    @property
    def identity(self) -> list[object]:
        return ["tar", self.name, self.image]

    def walk(self, problems: list[units.SourceProblem]) -> Iterator[units.FoundSample]:
        # The suffix is dropped in the root only, so that c in a/b.tar and b/c in a.tar have different names.
        suffix = next(one for one in sorted(TARS, key=len, reverse=True) if self.name.endswith(one))
        stem = self.name.removesuffix(suffix) if "/" not in self.name else self.name
        times: Counter[str] = Counter()
        skipped, without = Skipped(), list[str]()
        num = 0
        try:
            for sample in tar_samples(self.path, skipped):
                num += 1
                if sample.name in skipped.keys and all(map(AUXILIARY.search, sample.images)):
                    continue  # its image was skipped, and what is left may be a mask
                if not sample.images:
                    without.append(sample.name)
                    continue
                self._require_no_dots(sample)
                extension = chosen_column(sample.images, self.image, f"{self.path}: sample {sample.name}", "image")
                times[sample.name] += 1
                again = f"#{times[sample.name]}" if times[sample.name] > 1 else ""
                yield self._found(f"{stem}/{sample.name}{again}", sample, extension)
            if num == 0:
                problems.append(units.SourceProblem(f"{self.path}: an empty tar"))
        except TornError as error:
            used = f"the {num} whole samples before the tear are used" if num else "none of it is used"
            problems.append(units.SourceProblem(f"{self.path}: torn or not a tar ({error})", used, "fetch or make it again"))
        images, others = (  # of members that are too large
            [name for name in skipped.too_large if _is_of_image(name) is wanted] for wanted in (True, False)
        )
        for reason, names in {units.NO_IMAGE: without, _TOO_LARGE: images, **skipped.others}.items():
            if names:
                problems.append(units.left_out(str(self.path), units.Unused(reason, len(names), names[0])))
        if others:
            problems.append(units.SourceProblem(f"{self.path}: {len(others)} members are {_TOO_LARGE} (first: {others[0]})", "not read"))

    def _require_no_dots(self, sample: TarSample) -> None:
        """Raise DatasetError if keys have dots: then WebDataset takes several samples for one."""
        texts = [extension for extension in sample.spans if "." in extension and extension.rpartition(".")[2] in _TEXTS]
        if texts and all("." in extension for extension in sample.images):
            raise DatasetError(
                f"{self.path}: {sample.name}.{texts[0]} has the key {sample.name.rpartition('/')[2]!r}: in WebDataset a key ends at the "
                "first dot; rename the members, so that keys have no dots"
            )

    def _found(self, name: str, sample: TarSample, extension: str) -> units.FoundSample:
        record = units.json_object(sample.contents.get("json", b""))
        text = sample.contents.get("txt", b"").decode("utf-8-sig", "replace").strip()
        spans = {"image": sample.spans[extension]} | {name: sample.spans[name] for name in MEMBERS[1:] if name in sample.contents}
        place: dict[str, int | str] = {}
        for member, (offset, size) in spans.items():
            place |= {f"{member}_offset": offset, f"{member}_size": size}
        image = sample.contents[extension]
        return units.FoundSample(
            name=name,
            image=image,
            extension=units.extension_of(image, extension),
            label=label_of(sample.contents, record),
            record=known_of(record, text or None),
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
                    image, cls, text, record = (contents.get(name) for name in MEMBERS)
                    assert image is not None
                    yield units.Members(image, row["extension"], cls, text, record)
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
    """Paths relative to `folder`, of images and other files; the first component is the class."""
    start: int
    """Number of the first file in `folder`."""
    doubles: frozenset[str]
    """Paths without suffix that several images share."""
    block_samples: ClassVar[int] = FILES_BLOCK

    @property
    def name(self) -> str:
        return f"{self.prefix}files {self.start}-{self.start + len(self.paths) - 1}"

    @property
    def identity(self) -> list[object]:
        return ["files", self.name, sorted(self.doubles)]

    @functools.cached_property
    def files(self) -> Sequence[Path]:
        return [self.folder / path for path in self.paths]

    def walk(self, problems: list[units.SourceProblem]) -> Iterator[units.FoundSample]:
        others: list[str] = []
        for path, file in zip(self.paths, self.files, strict=True):
            label, stem = path.partition("/")[0], _stem(path)
            if not path.lower().endswith(units.IMAGE_SUFFIXES) and format_of(units.bytes_of(file, HEAD_BYTES)) is None:
                others.append(path)
                continue
            image = units.bytes_of(file)
            name = self.prefix + (path if stem in self.doubles else stem)
            yield units.FoundSample(name, image, units.extension_of(image, path), label, record=known_of({}), place={"name": path})
        if others:
            by_class = dict(Counter(path.partition("/")[0] for path in others))
            unused = units.Unused(units.NOT_AN_IMAGE, len(others), others[0], by_class)
            problems.append(units.left_out(str(self.folder), unused))

    def location(self, name: str) -> units.Location:
        return units.Location(str(self.folder / name), name, self.folder / name)

    def read(self, rows: pa.Table, whole: bool) -> Iterator[units.Members]:  # noqa: ARG002
        for row in rows.select(["name", "extension"]).to_pylist():
            yield units.Members(units.bytes_of(self.folder / row["name"]), row["extension"])
