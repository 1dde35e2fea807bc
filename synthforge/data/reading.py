"""Labelled images from wherever they lie: dataset folders, plain WebDataset tars, folders of images by class.

Real references have a *fit* part and a *validation* part. A dataset folder says which is which; in a folder of images,
sub-folders `fit` or `train` and `validation`, `val` or `test` do; otherwise the last fifth of each class, in order of names, is the
validation part, since neighbours in a collection are often near-duplicates and must not stand on both sides.
Not covered: remote tars of others (download them), tars inside tars.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.data.folder import DatasetFolder
from synthforge.data.foreign import TornError, bytes_of, tar_samples
from synthforge.data.images import Uint8, decode, resize
from synthforge.data.layout import MANIFEST
from synthforge.data.storage import Folder, resolve
from synthforge.data.units import Part, files_at, image_files, label_of, last_of_each, natural_order, part_folders, record_of
from synthforge.errors import DatasetError


@dataclass(frozen=True)
class Example:
    """One labelled image, still encoded."""

    name: str
    """Where it stands, for messages."""
    key: str
    """Where it stands inside its set; the same on every machine."""
    class_name: str
    content: bytes | Path
    """The file's bytes, or where they are read when they are needed."""

    @property
    def data(self) -> bytes:
        """The image file; raises DatasetError if it can't be read."""
        return self.content if isinstance(self.content, bytes) else bytes_of(self.content)

    @functools.cached_property
    def sha256(self) -> str:
        """Of the image file."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Labelled:
    """The images of one part, in order."""

    classes: list[str]
    examples: list[Example]

    def first_of_each(self, per_class: int) -> Labelled:
        """Only the first so many of each class, in order; raises DatasetError if a class has fewer."""
        taken: dict[str, int] = defaultdict(int)
        kept = []
        for example in self.examples:
            taken[example.class_name] += 1
            if taken[example.class_name] <= per_class:
                kept.append(example)
        if short := [name for name in self.classes if taken[name] < per_class]:
            raise DatasetError(f"class {short[0]!r} has {taken[short[0]]} images, fewer than per_class={per_class}; lower it or add images")
        return Labelled(self.classes, kept)

    def arrays(self, resolution: int, channels: Literal[1, 3]) -> tuple[Uint8, NDArray[np.int64]]:
        """Decoded and resized: uint8 (N, C, H, W), and labels int64 (N,); raises DatasetError naming the images that can't be read."""
        images, problems = [], []
        for example in self.examples:
            try:
                images.append(resize(decode(example.data, channels), resolution).transpose(2, 0, 1))
            except DatasetError as error:
                problems.append(f"{example.name}: {error}")
        if problems:
            more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
            raise DatasetError(f"{problems[0]}{more}; remove or replace it")
        number = {name: index for index, name in enumerate(self.classes)}
        return np.ascontiguousarray(np.stack(images)), np.array([number[example.class_name] for example in self.examples], dtype=np.int64)


@dataclass(frozen=True)
class Sources:
    """The real images of a reference's fit part that generation may start from."""

    by_class: dict[str, list[Example]]
    sha256: str
    """Over class, key and content of all of them."""

    @classmethod
    def read(cls, address: str, known_sha256: str | None = None) -> Sources:
        """Find them, and make sure that each can be decoded; raises DatasetError naming those that can't.

        Args:
            known_sha256: where another process has read them all; then nothing but names is read here.
        """
        labelled = read_labelled(address)["fit"]
        by_class: dict[str, list[Example]] = defaultdict(list)
        for example in labelled.examples:
            by_class[example.class_name].append(example)
        return cls(dict(by_class), known_sha256 or _digest_of(labelled.examples))

    def find(self, key: str) -> Example:
        """The image that a record names as its source; raises DatasetError."""
        for examples in self.by_class.values():
            for example in examples:
                if example.key == key:
                    return example
        raise DatasetError(f"{key}: is not among the real images any more, so what was started from it can't be made again")


def _digest_of(examples: list[Example]) -> str:
    """SHA-256 of what is there; every image is decoded, since one that can't be would otherwise stop the work hours later."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode") as pool:
        problems = [problem for problem in pool.map(_problem_with, examples) if problem]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DatasetError(f"{problems[0]}{more}; remove or replace it")
    total = hashlib.sha256()
    for example in examples:
        total.update(f"{example.class_name}\0{example.key}\0{example.sha256}\n".encode())
    return total.hexdigest()


def _problem_with(example: Example) -> str | None:
    try:
        decode(example.data)
    except DatasetError as error:
        return str(error) if example.name in str(error) else f"{example.name}: {error}"
    return None


def read_labelled(address: str) -> dict[Part, Labelled]:
    """Both parts of a set of labelled real images; raises DatasetError."""
    place = resolve(address)
    if "://" in place or Folder(place).exists(MANIFEST):
        return _from_dataset_folder(place)
    tars, missing = files_at(place, ".tar")
    if tars:
        if missing:
            raise DatasetError(f"{place}: {missing[0]}; name those that are there")
        examples = [example for tar in tars for example in _in_tar(tar)]
        return _split(examples, place)
    if Path(place).is_dir():
        return _from_image_folder(Path(place))
    raise DatasetError(f"{place}: no dataset folder, WebDataset tars or folder of images by class there; check the path")


def _from_dataset_folder(place: str) -> dict[Part, Labelled]:
    dataset = DatasetFolder.open(place)
    classes = dataset.manifest.classes
    examples: list[tuple[int, Example]] = []
    for shard in dataset.state().sealed:
        where = dataset.folder.where(shard.tar)
        rows = dataset.table(shard).select(["key", "class", "image_offset", "image_size"]).to_pylist()
        try:
            with dataset.folder.fetched(shard.tar) as path, path.open("rb") as tar:
                for row in rows:
                    tar.seek(row["image_offset"])
                    data = tar.read(row["image_size"])
                    examples.append((int(row["key"]), Example(f"{where}:{row['key']}", row["key"], row["class"], data)))
        except FileNotFoundError as error:
            raise DatasetError(f"{where}: gone; look with `synthforge verify {dataset.folder.address}`") from error
    parts = dataset.manifest.parts
    if not parts:
        return _split([example for _, example in examples], place, classes)
    return {
        part: Labelled(classes, [example for index, example in examples if parts[part][0] <= index < parts[part][1]])
        for part in ("fit", "validation")
        if part in parts
    }


def _in_tar(path: Path) -> Iterator[Example]:
    """Samples of a plain WebDataset tar that hold an image; each needs a label."""
    try:
        for sample in tar_samples(path):
            if sample.image is None:
                continue
            name, key = f"{path}:{sample.name.lstrip('/')}", f"{path.name}:{sample.name.lstrip('/')}"
            label = label_of(sample.contents, record_of(sample.contents))
            if label is None:
                raise DatasetError(f"{name}: has no label; a .cls, or a .json with `class` or `label`, is needed")
            yield Example(name, key, label, sample.contents[sample.image])
    except TornError as error:
        raise DatasetError(f"{path}: torn or not a tar ({error}); fetch or make it again") from error


def _from_image_folder(place: Path) -> dict[Part, Labelled]:
    parts = part_folders(place)
    if not parts:
        return _split(_images_by_class(place), str(place))
    fit, validation = parts["fit"], parts.get("validation")
    fit_part = _labelled(_images_by_class(fit), str(fit))
    if validation is None:
        return _split(fit_part.examples, str(fit))
    validation_part = _labelled(_images_by_class(validation), str(validation), fit_part.classes)
    if unknown := {example.class_name for example in validation_part.examples} - set(fit_part.classes):
        raise DatasetError(f"{validation}: class {min(unknown)!r} has no images in {fit}; add some or remove it")
    return {"fit": fit_part, "validation": validation_part}


def _images_by_class(place: Path) -> list[Example]:
    return [Example(str(place / path), path, path.partition("/")[0], place / path) for path in image_files(place)]


def _labelled(examples: list[Example], place: str, classes: list[str] | None = None) -> Labelled:
    if not examples:
        raise DatasetError(f"{place}: no images by class there; it needs a sub-folder with images for each class")
    return Labelled(classes or natural_order({example.class_name for example in examples}), examples)


def _split(examples: list[Example], place: str, classes: list[str] | None = None) -> dict[Part, Labelled]:
    whole = _labelled(examples, place, classes)
    number = {name: index for index, name in enumerate(whole.classes)}
    held_N = last_of_each(np.array([number[example.class_name] for example in examples], dtype=np.int64))
    return {
        "fit": Labelled(whole.classes, [example for example, held in zip(examples, held_N, strict=True) if not held]),
        "validation": Labelled(whole.classes, [example for example, held in zip(examples, held_N, strict=True) if held]),
    }
