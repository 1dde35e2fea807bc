"""The common parts of foreign sets of labelled images: samples, units, what is left out.

A *foreign* set is one that another program wrote. A *unit* is the piece of it that is indexed in one go.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa

from synthforge.data.images import FORMATS, HEAD_BYTES, SUFFIXES, Uint8, decode, format_of
from synthforge.data.read_config import WHITE, Background
from synthforge.errors import DatasetError

Part = Literal["fit", "validation"]
Kind = Literal["dataset folder", "webdataset", "image folder", "datasets"]
WHERE_LABELS_STAND: dict[Kind, str] = {
    "webdataset": "each needs a .cls, or a .json with class, label or cls, beside it in the tar",
    "datasets": "a column of ClassLabel, or one named class, label or cls, is needed",
    "image folder": "each class needs a sub-folder",
}
"""Where each kind of foreign set has its labels, for messages."""
IMAGE_SUFFIXES = tuple(f".{suffix}" for suffix in SUFFIXES)
"""`SUFFIXES` with their dots, in lower case."""
NOT_AN_IMAGE = "not an image"
"""Reason why a file of a class folder is not used."""
NO_IMAGE = "without an image"
HIDDEN = "hidden, with a name that begins with a dot"


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

    def pixels(self, channels: int | None = None) -> Uint8:
        """The decoded image; see `images.decode`."""
        return decode(self.image, channels, self.background)


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


def left_out(where: str, unused: Unused) -> SourceProblem:
    """The problem that some samples or files are not used."""
    return SourceProblem(f"{where}: {unused}", "left out", unused=unused)


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
