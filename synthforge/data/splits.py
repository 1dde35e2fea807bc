"""The files of a foreign set: those at a path or pattern, splits (train, validation, test), and class folders."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
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
_WORDS = {*itertools.chain.from_iterable(SPLITS.values()), *HELD_OUT_SPLITS}
_ENDS = re.compile(r"[-_. ]*(set|data|images?|imgs?|split)$")
"""What may follow the word in the name of a split, as in train-set."""
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


def split_word(name: str) -> str | None:
    """The word of `SPLITS` or `HELD_OUT_SPLITS` that a split's name consists of, in any case, such as train for
    Train_Set. None: it is no name of a split."""
    word = _ENDS.sub("", name.lower())
    return word if word in _WORDS else None


def split_word_in(file: Path) -> str:
    """The word of a split in the name of a file, such as test for imagenet-test-0001.tar. Empty: there is none, or
    several."""
    words = _WORDS & set(re.split(r"[-_. \d]+", file.name.lower()))
    return words.pop() if len(words) == 1 else ""


def parts_among(names: Iterable[str]) -> dict[Part, str]:
    """The name of the split that is each part, among names of splits."""
    by_word: dict[str | None, str] = {}
    for name in names:
        by_word.setdefault(split_word(name), name)
    return {part: by_word[word] for part, words in SPLITS.items() for word in [word for word in words if word in by_word][:1]}


def why_not_read(name: str, read: Iterable[str]) -> str:
    """Why a split is not read, in words."""
    return "it is kept for the final test" if split_word(name) in HELD_OUT_SPLITS else f"{some(list(read))} is used"


def parted(split_of: Mapping[Path, str], problems: list[SourceProblem]) -> dict[Path, Part | None]:
    """The files that are read, each with its part, from the name of the split that each is of.

    Without a split to fit on all are read, without parts. Adds the splits that are not read to `problems`.
    """
    first_of: dict[str, Path] = {}
    for path, name in split_of.items():
        first_of.setdefault(name, path)
    part_of = {name: part for part, name in parts_among(first_of).items()}
    if "fit" not in part_of.values():
        return dict.fromkeys(split_of)
    for name, path in first_of.items():
        if name not in part_of:
            problems.append(SourceProblem(f"{path.parent}: split {name!r} is not read, since {why_not_read(name, part_of)}"))
    return {path: part_of[name] if len(part_of) > 1 else None for path, name in split_of.items() if name in part_of}


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
    folders = [path.name for path in _visible(place) if path.is_dir()]
    named = [name for name in folders if split_word(name) is not None]
    if parts and not named:
        raise DatasetError(f"{place}: columns.splits is true, but no folder has the name of a split, such as train; leave it out")
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
    chosen = parts_among(named)
    if "fit" not in chosen:
        if all(split_word(name) in HELD_OUT_SPLITS for name in named):
            raise DatasetError(f"{place}: has {some(named)} only, which is kept for the final test; name {place / named[0]} to read it")
        raise DatasetError(f"{place}: has {some(named)} but no train folder beside; add one, or name one of them")
    problems = []
    left = [name for name in folders if name not in chosen.values()]
    problems += [SourceProblem(f"{place / name}: not read, since {why_not_read(name, chosen.values())}") for name in left]
    problems += _beside(place, "beside the splits")
    return Splits({part: place / name for part, name in chosen.items()}, problems)


def _images_directly_in(folder: Path) -> bool:
    return any(path.name.lower().endswith(IMAGE_SUFFIXES) and path.is_file() for path in folder.iterdir())


def files_by_class(place: Path) -> tuple[list[str], list[SourceProblem]]:
    """Files in class folders, in order, as paths relative to `place`, and what is left out.

    Hidden files and folders are left out, and files that lie in no class folder.
    """
    paths: list[tuple[str, ...]] = []
    hidden: list[str] = []
    folders_in: dict[str, list[str]] = {}
    for name in sorted(path.name for path in place.iterdir() if path.is_dir()):
        if name.startswith("."):
            hidden.append(name)
            continue
        for directory, folders, files in os.walk(place / name):  # a class folder may be a link
            hidden += [os.path.relpath(os.path.join(directory, one), place) for one in folders if one.startswith(".")]
            hidden += [os.path.relpath(os.path.join(directory, one), place) for one in files if _is_hidden_image(one)]
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            above = Path(directory).relative_to(place).parts
            folders_in.setdefault(name, sorted(folders))
            paths += [(*above, file) for file in files if not file.startswith(".")]
    is_file = {path: Path(place, *path).is_file() for path in sorted(paths)}
    broken = ["/".join(path) for path, is_there in is_file.items() if not is_there]
    problems = [left_out(str(place), Unused(HIDDEN, len(hidden), sorted(hidden)[0]))] if hidden else []
    if broken:
        by_class = dict(Counter(path.partition("/")[0] for path in broken))
        problems.append(left_out(str(place), Unused("no regular files, such as broken links", len(broken), broken[0], by_class)))
    problems += [*_beside(place, "in no class folder"), *_doubtful(place, folders_in, {path[0] for path in paths if len(path) == 2})]
    if empty := sorted(folders_in.keys() - {path[0] for path in paths}):
        problems.append(SourceProblem(f"{place}: folder {some(empty)} has no files", "it counts as no class"))
    return ["/".join(path) for path, is_there in is_file.items() if is_there], problems


def _beside(place: Path, where: str) -> list[SourceProblem]:
    """Images and broken links that lie beside the class folders or splits of a folder."""
    visible = _visible(place)
    outside = [path.name for path in visible if path.name.lower().endswith(IMAGE_SUFFIXES) and path.is_file()]
    broken = [path.name for path in visible if path.is_symlink() and not (path.is_file() or path.is_dir())]
    found = {where: outside, "broken links": broken}
    return [left_out(str(place), Unused(reason, len(names), names[0])) for reason, names in found.items() if names]


def _visible(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if not path.name.startswith("."))


def folders_beside(place: Path, what: str) -> list[SourceProblem]:
    """Folders of images that lie beside tars or tables, and are not read.

    Args:
        what: what is read.
    """
    if not place.is_dir():
        return []
    if found := [path.name for path in _visible(place) if path.is_dir() and _images_directly_in(path)]:
        what = f"{place}: only its {what} are read, not the images in its folders {some(found)}"
        return [SourceProblem(what, remedy="move the folders or the other files elsewhere")]
    return []


def _doubtful(place: Path, folders_in: Mapping[str, Sequence[str]], with_images: Collection[str]) -> list[SourceProblem]:
    """Raise DatasetError if class folders hold splits; a problem if the one class folder holds nothing but folders."""
    if splits := sorted({folder for folders in folders_in.values() for folder in folders if split_word(folder) in HELD_OUT_SPLITS}):
        name = next(name for name, folders in folders_in.items() if splits[0] in folders)
        raise DatasetError(
            f"{place / name}: holds {some(folders_in[name])}, so the final test would be read too; put the splits first, as in "
            f"{splits[0]}/{name}, or give them other names"
        )
    (name, folders), *others = folders_in.items() or [("", [])]
    if others or len(folders) < 2 or name in with_images:
        return []
    what = f"{place}: has the one class {name!r}, whose folders are {some(folders)}"
    return [SourceProblem(what, f"if these are the classes, name {place / name}")]


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
