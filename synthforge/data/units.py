"""What all labelled images of others have in common: what a unit of them is, which files a place stands for, names, labels, formats."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synthforge.data.images import READABLE
from synthforge.errors import DatasetError

Part = Literal["fit", "validation"]
Kind = Literal["dataset folder", "webdataset", "image folder", "datasets"]

PART_FOLDERS: dict[Part, tuple[str, ...]] = {"fit": ("fit", "train", "training"), "validation": ("validation", "val", "valid", "test")}
VALIDATION_SHARE = 0.2
MAX_TARS = 1_000_000
MAX_LABEL = 1_000
"""Longer text (characters) is no label."""

TEXT_FIELDS = ("source", "source_sha256")
CAPTIONS = ("prompt", "caption", "text")
LABELS = ("class", "label", "cls")
_MAGIC = ((b"\x89PNG", "png"), (b"\xff\xd8\xff", "jpg"), (b"GIF8", "gif"), (b"BM", "bmp"), (b"II*\0", "tif"), (b"MM\0*", "tif"))
"""First bytes of formats; WebP's stand further on (see `extension_of`)."""


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
class FoundSample:
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


@dataclass(frozen=True, slots=True)
class Location:
    """Where an image lies."""

    name: str
    """For messages."""
    key: str
    """Inside its set; the same on every machine."""
    file: Path | None = None
    """The file that holds this image alone."""


@dataclass(frozen=True, slots=True)
class SourceProblem:
    """Something that is left out of a set, or is not as it should be."""

    what: str
    then: str = ""
    """What is used all the same."""
    remedy: str = ""
    """What to do about it where every image counts; empty if no image is lost."""

    def __str__(self) -> str:
        return f"{self.what}; {self.then}" if self.then else self.what


class SourceUnit(Protocol):
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

    def walk(self, problems: list[SourceProblem]) -> Iterator[FoundSample]:
        """All samples in order; adds to `problems` what is left out."""

    def location(self, name: str) -> Location:
        """Where the sample of a name in the index lies."""

    def read(self, rows: pa.Table, whole: bool) -> Iterator[Members]:
        """The samples of rows of the index, in their order; without `whole` only image and extension."""


@dataclass(frozen=True)
class ForeignSet:
    """What was found at a path."""

    kind: Kind
    units: list[SourceUnit]
    classes: list[str] | None = None
    """Names by number, where something beside the data gives them."""
    problems: list[SourceProblem] = field(default_factory=list)


def json_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object; empty if there is none, or something else."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


# Which files


def files_at(place: str, suffix: str) -> tuple[list[Path], list[SourceProblem]]:
    """A file, a folder's files, or those of a pattern with *, ? or braces such as train-{000000..000009}.tar.

    And a problem if some that braces spell out are not there.
    """
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
    if not missing:
        return [Path(path) for path in files], []
    what = f"{len(missing):,} of the {len(found):,} files that it spells out are missing, the first is {missing[0]}"
    return [Path(path) for path in files], [SourceProblem(what, remedy="name those that are there")]


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

    Neighbours in a collection are often near-duplicates and must not stand on both sides, so it is not drawn at random.
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
    candidates = (contents.get("cls", b"").decode("utf-8", "replace"), *map(record.get, LABELS))
    return next((label for value in candidates if (label := as_label(value))), None)


def as_label(value: object) -> str | None:
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
    prompt = text or next((found for name in CAPTIONS if (found := as_text(record.get(name)))), None)
    known: dict[str, Any] = {"prompt": prompt}
    for name in TEXT_FIELDS:
        known[name] = as_text(record.get(name))
    for name in ("strength", "guidance"):
        value = record.get(name)
        with suppress(OverflowError):
            known[name] = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    seed = record.get("seed")
    known["seed"] = seed if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**64 else None
    return known


def extension_of(data: bytes, name: str) -> str:
    """The format of an image file by its first bytes, whatever its name says, since decoders go by them too.

    Bytes of no format that is known here keep the name's; whoever decodes them says what is wrong.
    """
    start = data[:16]
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    by_name = name.rpartition(".")[2].lower()
    return next((extension for magic, extension in _MAGIC if start.startswith(magic)), by_name if by_name in READABLE else "png")
