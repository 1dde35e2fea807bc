"""The files of a foreign set: those at a path or pattern, splits (train, validation, test), and class folders."""

from __future__ import annotations

import glob
import itertools
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthforge.data.units import HIDDEN, IMAGE_SUFFIXES, Part, SourceProblem, Unused, left_out
from synthforge.errors import DatasetError, some

SPLITS: dict[Part, tuple[str, ...]] = {"fit": ("train", "training", "fit"), "validation": ("validation", "val", "valid")}
"""Names of splits that are read, by part, those first that win."""
HELD_OUT_SPLITS = ("test", "testing", "holdout")
"""Names of splits that are only read if the address names them: they are for the final test."""
VALIDATION_SHARE = 0.2
MAX_TARS = 1_000_000


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


def is_of_macos(name: str) -> bool:
    """Whether a file holds what macOS stores beside another one: there is one `._x.png` for each x.png."""
    return name.rpartition("/")[2].startswith("._")


def _is_hidden_image(name: str) -> bool:
    return name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES) and not is_of_macos(name)


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
            hidden += [os.path.join(directory, name) for name in files if _is_hidden_image(name)]
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            above = Path(directory).relative_to(place).parts
            paths += [(*above, file) for file in files if not file.startswith(".")]
    problems = []
    for reason, found in ((HIDDEN, sorted(hidden)), ("in no class folder", outside)):
        if found:
            problems.append(left_out(str(place), Unused(reason, len(found), os.path.relpath(place / found[0], place))))
    return ["/".join(path) for path in sorted(paths) if Path(place, *path).is_file()], problems


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
