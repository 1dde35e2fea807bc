"""The common parts of foreign sets of labelled images: units, files behind a path, labels, captions, image formats.

A *foreign* set is one that another program wrote. A *unit* is the piece of it that is indexed in one go.
"""

from __future__ import annotations

import glob
import itertools
import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthforge.data.images import FORMATS, HEAD_BYTES, SUFFIXES, format_of, opaque
from synthforge.data.read_config import WHITE, Background
from synthforge.errors import DatasetError, some

Part = Literal["fit", "validation"]
Kind = Literal["dataset folder", "webdataset", "image folder", "datasets"]
WHERE_LABELS_STAND: dict[Kind, str] = {
    "webdataset": "each needs a .cls, or a .json with class, label or cls, beside it in the tar",
    "datasets": "a column of ClassLabel, or one named class, label or cls, is needed",
    "image folder": "each class needs a sub-folder",
}
"""Where each kind of foreign set has its labels, for messages."""

SPLITS: dict[Part, tuple[str, ...]] = {"fit": ("train", "training", "fit"), "validation": ("validation", "val", "valid")}
"""Names of splits that are read, by part, those first that win."""
HELD_OUT_SPLITS = ("test", "testing", "holdout")
"""Names of splits that are only read if the address names them: they are for the final test."""
IMAGE_SUFFIXES = tuple(f".{suffix}" for suffix in SUFFIXES)
"""`SUFFIXES` with their dots, in lower case."""
VALIDATION_SHARE = 0.2
MAX_TARS = 1_000_000
MAX_LABEL = 1_000
"""Longer text, in characters, is not taken for a label."""

NOT_AN_IMAGE = "not an image"
"""Reason why a file of a class folder is not used."""
NO_IMAGE = "without an image"
HIDDEN = "hidden, with a name that begins with a dot"

TEXT_FIELDS = ("source", "source_sha256")
CAPTIONS = ("prompt", "caption", "text")
LABELS = ("class", "label", "cls")
KNOWN = (*CAPTIONS, *TEXT_FIELDS, "strength", "guidance", "seed")
"""Fields of a record that `known_of` reads."""


@dataclass(frozen=True, slots=True)
class Members:
    """The contents of one sample. None: it has no such member, or only the image was asked for."""

    image: bytes
    """The encoded image file, as it is stored."""
    extension: str
    """Format of the image, in lower case, without a dot."""
    cls: bytes | None = None
    txt: bytes | None = None
    json: bytes | None = None
    background: Background = WHITE
    """What the image is put on if it is transparent."""

    @property
    def opaque(self) -> bytes:
        """The image file to decode; see `images.opaque`."""
        return opaque(self.image, self.background)


@dataclass(frozen=True, slots=True)
class FoundSample:
    """One sample that was found while a unit was read."""

    name: str
    """Unique in the set; made of letters, digits, `-`, `_` and `/` where possible."""
    image: bytes
    """The encoded image file."""
    extension: str
    label: str | None
    record: Mapping[str, Any]
    """Columns of the index that its metadata fills; see `known_of`."""
    place: Mapping[str, int | str]
    """Columns of the index that say where the sample is in the unit."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where an image is stored."""

    name: str
    """The place, for messages."""
    key: str
    """The place inside its set; the same on every machine."""
    file: Path | None = None
    """The file of this image. None: it is inside a tar or a table."""


@dataclass(frozen=True, slots=True)
class Unused:
    """Some samples or files of a set that are there and are not used."""

    reason: str
    """The same text for all of a kind, such as "without an image"."""
    num: int
    first: str
    """Where the first of them is."""
    by_class: dict[str, int] = field(default_factory=dict)
    """Number of them by class folder, where there are any."""

    def __add__(self, other: Unused) -> Unused:
        by_class = dict(Counter(self.by_class) + Counter(other.by_class))
        return Unused(self.reason, self.num + other.num, self.first, by_class)

    def __str__(self) -> str:
        return f"{self.num:,} {self.reason} (first: {self.first})"


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """A fault of a set, such as a sample without an image."""

    what: str
    then: str = ""
    """The part that is used in spite of the fault."""
    remedy: str = ""
    """Advice in case every image counts. Empty: no image is lost."""
    unused: Unused | None = None
    """The images that are left out, if they can be counted."""

    def __str__(self) -> str:
        return f"{self.what}; {self.then}" if self.then else self.what


class SourceUnit(Protocol):
    """The piece of a foreign set that is indexed in one go: one tar, one table, or some image files."""

    @property
    def name(self) -> str:
        """Its name in messages and blocks."""

    @property
    def part(self) -> Part | None:
        """The part of a reference that it belongs to. None: its path does not say."""

    @property
    def block_samples(self) -> int:
        """Most samples in one block."""

    @property
    def identity(self) -> list[object]:
        """Everything that its index depends on, besides the contents of its files."""

    @property
    def files(self) -> Sequence[Path]:
        """The files that it is read from."""

    def walk(self, problems: list[SourceProblem]) -> Iterator[FoundSample]:
        """All samples in order. Adds what is left out to `problems`."""

    def location(self, name: str) -> Location:
        """Where a sample is stored.

        Args:
            name: of the sample in the index.
        """

    def read(self, rows: pa.Table, whole: bool) -> Iterator[Members]:
        """The samples of some rows of the index, in their order; only image and extension if not `whole`."""


@dataclass(frozen=True)
class FileUnit:
    """The common part of units that are one file."""

    path: Path
    root: Path
    """The folder of the set."""
    part: Part | None

    @property
    def name(self) -> str:
        return self.path.relative_to(self.root).as_posix()

    @property
    def files(self) -> Sequence[Path]:
        return [self.path]


@dataclass(frozen=True)
class ForeignSet:
    """A set that another program wrote."""

    kind: Kind
    units: list[SourceUnit]
    classes: list[str] | None = None
    """Class names by number. None: the set does not name them."""
    problems: list[SourceProblem] = field(default_factory=list)


def json_object(source: Path | bytes) -> dict[str, Any]:
    """The JSON object in a file or in some bytes; empty if there is none."""
    try:
        content = json.loads(source if isinstance(source, bytes) else source.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


AUXILIARY = re.compile(r"(^|[._-])(masks?|seg(mentations?)?|depths?|normals?|edges?|thumb(nail)?s?)([._-]|$)", re.IGNORECASE)
"""Names of columns, or of members of a tar, that hold pictures which are not the image itself."""


def chosen_column(names: Sequence[str], wanted: str | None, where: str, what: Literal["image", "label"]) -> str:
    """The column that holds the image or the label; raises DatasetError if it can't be told.

    Args:
        names: all columns that could, at least one.
        wanted: the user's choice, for sets that have it.
    """
    if wanted in names:
        return str(wanted)
    plain = [name for name in names if not AUXILIARY.search(name)] or list(names)
    if len(plain) > 1:
        raise DatasetError(
            f"{where}: {' and '.join(plain)} could all be the {what}; say which with --set columns.{what}={plain[0]} "
            f"(in a recipe: curation.columns.{what})"
        )
    return plain[0]


def files_at(place: str, suffixes: tuple[str, ...]) -> tuple[list[Path], list[SourceProblem]]:
    """The files with some suffixes at a path: one file, those of a folder, or those that match a pattern.

    A pattern may have *, ? and braces, such as train-{000000..000009}.tar.
    If files that braces name are missing, that is returned as a problem.
    """
    if Path(place).is_dir():
        return files_in(Path(place), suffixes), []
    if place.endswith(suffixes) and Path(place).is_file():  # a file with a strange name is no pattern
        return [Path(place)], []
    patterns = [place]
    while match := re.search(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}", patterns[0]):
        if match[3] is not None:
            options = match[3].split(",")
        else:
            first, last = int(match[1]), int(match[2])
            options = [str(number).zfill(len(match[1])) for number in range(first, min(last, first + MAX_TARS) + 1)]
        if len(patterns) * len(options) > MAX_TARS:
            raise DatasetError(f"{place}: names more than {MAX_TARS:,} files; use fewer, or *")
        patterns = [pattern.replace(match[0], option) for pattern in patterns for option in options]
    paths_of = {pattern: sorted(glob.glob(pattern)) for pattern in patterns}
    files = dict.fromkeys(Path(path) for paths in paths_of.values() for path in paths if path.endswith(suffixes))
    missing = [pattern for pattern, paths in paths_of.items() if not paths]
    if not missing:
        return list(files), []
    what = f"{place}: {len(missing):,} of the {len(paths_of):,} files that it spells out are missing, the first is {missing[0]}"
    return list(files), [SourceProblem(what, remedy="name those that are there")]


def files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The files of a folder with some suffixes, in order. A sub-folder may have such a name too."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(suffixes) and path.is_file())


@dataclass(frozen=True)
class Splits:
    """The sub-folders of a folder that are splits."""

    parts: dict[Part, Path]
    """The folder of each part. Only `fit`: nothing names a validation part."""
    problems: list[SourceProblem]
    """Which splits are not read."""


def splits_of(place: Path, parts: bool | None = None) -> Splits | None:
    """The splits of a folder. None: its sub-folders are no splits, but classes or anything else.

    They are splits if all of them have names of splits and none holds images directly.

    Args:
        parts: whether sub-folders are splits, if the user says so.
    Raises: DatasetError if it can't be told.
    """
    with os.scandir(place) as entries:
        folders = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    names = {*itertools.chain.from_iterable(SPLITS.values()), *HELD_OUT_SPLITS}
    named = [name for name in folders if name in names]
    if parts is False or not named:
        return None
    holding = [name for name in named if not _images_directly_in(place / name)]
    if parts is None and len(holding) < len(folders):
        if not holding:
            return None
        others = [name for name in folders if name not in holding]
        raise DatasetError(
            f"{place}: are its folders splits or classes? {some(holding)} would be splits, {some(others)} classes; "
            "say with --set columns.splits=true or false (in a recipe: curation.columns.splits)"
        )
    chosen = {part: name for part, options in SPLITS.items() if (name := next((one for one in options if one in named), None))}
    if "fit" not in chosen:
        if set(named) <= set(HELD_OUT_SPLITS):
            raise DatasetError(f"{place}: has {some(named)} only, which is kept for the final test; name {place / named[0]} to read it")
        raise DatasetError(f"{place}: has {some(named)} but no train folder beside; add one, or name one of them")
    problems = []
    for name in folders:
        if name not in chosen.values():
            why = "it is kept for the final test" if name in HELD_OUT_SPLITS else f"{some(list(chosen.values()))} is used"
            problems.append(SourceProblem(f"{place / name}: not read, since {why}"))
    return Splits({part: place / name for part, name in chosen.items()}, problems)


def _images_directly_in(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name.lower().endswith(IMAGE_SUFFIXES) for entry in entries if entry.is_file())


def files_by_class(place: Path) -> tuple[list[str], list[SourceProblem]]:
    """Files in class folders, in order, as paths relative to `place`, and what is left out.

    Hidden files and folders are left out, and files that lie in no class folder.
    """
    paths: list[tuple[str, ...]] = []
    hidden: list[str] = []
    with os.scandir(place) as entries:
        top = list(entries)
    outside = sorted(entry.name for entry in top if entry.is_file() and entry.name.lower().endswith(IMAGE_SUFFIXES))
    for entry in top:
        if not entry.is_dir():
            continue
        if entry.name.startswith("."):
            hidden.append(entry.name)
            continue
        for directory, folders, files in os.walk(place / entry.name):  # a class folder may be a link
            hidden += [os.path.join(directory, name) for name in folders if name.startswith(".")]
            hidden += [os.path.join(directory, name) for name in files if name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES)]
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            above = Path(directory).relative_to(place).parts
            paths += [(*above, file) for file in files if not file.startswith(".")]
    problems = []
    for reason, found in ((HIDDEN, sorted(hidden)), ("in no class folder", outside)):
        if found:
            problems.append(left_out(str(place), Unused(reason, len(found), os.path.relpath(place / found[0], place))))
    return ["/".join(path) for path in sorted(paths) if Path(place, *path).is_file()], problems


def left_out(where: str, unused: Unused) -> SourceProblem:
    """The problem that some samples or files are not used."""
    return SourceProblem(f"{where}: {unused}", "left out", unused=unused)


def natural_order(names: Iterable[str]) -> list[str]:
    """Numbers by their value, then names."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def last_of_each(labels_N: NDArray[np.int64]) -> NDArray[np.bool_]:
    """A mask of the validation part if nothing names one: the last fifth of each class, in order.

    It is not drawn at random: neighbours are often near-duplicates, and must not be in both parts.

    Args:
        labels_N: class indices; -1 is no class, and such rows are never held out.
    """
    held_N = np.zeros(len(labels_N), dtype=np.bool_)
    order_N = np.argsort(labels_N, kind="stable")
    labels, starts = np.unique(labels_N[order_N], return_index=True)
    for label, rows in zip(labels, np.split(order_N, starts[1:]), strict=True) if len(order_N) else ():
        if label >= 0:
            held_N[rows[len(rows) - int(len(rows) * VALIDATION_SHARE) :]] = True
    return held_N


def label_of(contents: Mapping[str, bytes], record: Mapping[str, Any]) -> str | None:
    """The label of a sample in a tar: its .cls, or else `class`, `label` or `cls` of its .json. None: it has none."""
    candidates = (contents.get("cls", b"").decode("utf-8", "replace"), *map(record.get, LABELS))
    return next((label for value in candidates if (label := as_label(value))), None)


def as_label(value: object) -> str | None:
    """A label from a whole number or a short text. None: the value is neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return str(value)
    label = (as_text(value) or "").strip()
    return label if 0 < len(label) <= MAX_LABEL else None


def as_name(label: str) -> str:
    """A class name in NFC, so that equal names are equal texts."""
    return unicodedata.normalize("NFC", label)


def as_text(value: object) -> str | None:
    """A text without the halves of characters that JSON may have and UTF-8 can't. None: the value is no text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def known_of(record: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
    """The columns of the index that a record fills: prompt, source, source_sha256, strength, guidance, seed.

    A value that is missing or has a wrong type is None.

    Args:
        text: the caption, if it is not in the record.
    """
    prompt = text or next((caption for name in CAPTIONS if (caption := as_text(record.get(name)))), None)
    known: dict[str, Any] = {"prompt": prompt} | {name: as_text(record.get(name)) for name in TEXT_FIELDS}
    for name in ("strength", "guidance"):
        value = record.get(name)
        with suppress(OverflowError):
            known[name] = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    seed = record.get("seed")
    known["seed"] = seed if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**64 else None
    return known


def bytes_of(path: Path, most: int = -1) -> bytes:
    """A file's content, or its first bytes; raises DatasetError."""
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror})") from error


def extension_of(data: bytes, name: str) -> str:
    """The format of an image file by its content. Files of an unknown format keep the suffix of their name: decoding
    them says what is wrong."""
    suffix = name.rpartition(".")[2].lower()
    return format_of(data[:HEAD_BYTES]) or (suffix if suffix in FORMATS else "png")
