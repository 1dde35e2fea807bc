"""Open the held-out test set after all choices are made, and find training images that copy one of its images.

A copy is the same file, or the same picture re-encoded or mirrored. Pictures are compared by their pixels at 32 px or
less: two are copies if the root mean square of their difference is at most `NEAR` of 255 levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synthforge.arrays import Bools
from synthforge.data.image_table import Table
from synthforge.data.input_report import InputReport
from synthforge.data.read_config import Reading
from synthforge.errors import DatasetError, RequestError, some
from synthforge.evaluation.reference import RealDraw
from synthforge.evaluation.sets import Images, SetReader, classes_in
from synthforge.evaluation.settings import Setting
from synthforge.evaluation.trainer.loader import decoded
from synthforge.progress import Reporter
from synthforge.training.copies import nearest

NEAR = 3.0
"""Levels. Photographs stay below it after JPEG at quality 75 or more, and after rescaling by a few pixels."""
LARGEST = 32
"""Pixels."""
OVERLAP = 0.1
"""Share of the holdout above which the real images must not copy it."""
FEW_HOLDOUT = 20
"""A class with fewer test images has an uncertain recall."""
_AT_ONCE = 2048


@dataclass(frozen=True)
class Holdout:
    """The held-out test set, opened."""

    address: str
    """As the user gave it."""
    images: Images
    report: InputReport
    notes: list[str]


@dataclass(frozen=True)
class Leakage:
    """Training images that copy holdout images, and the holdout images that remain."""

    is_copy: Mapping[str, bool]
    """SHA-256 of every image file to whether it copies a holdout image. Files that can't be decoded count as copies."""
    copies_removed: dict[str, int]
    """Number of copies by source, for sources that have any."""
    holdout: Images
    """The holdout images that no real image copies."""
    notes: list[str]


def check_holdout(address: str, classes: list[str], cache: Path, reading: Reading) -> None:
    """Before the first training, raise the errors of `open_holdout`, and DatasetError that names broken images.

    Nothing is kept of what is read.
    """
    table = _read(address, classes, cache, Reporter(), reading)
    table.require_readable(np.arange(len(table)))


def open_holdout(address: str, classes: list[str], cache: Path, reporter: Reporter, reading: Reading) -> Holdout:
    """Open the held-out test set.

    Raises RequestError if an image has no label or an unknown class. `check_holdout` has looked for broken images.
    """
    reporter.note(f"opening the held-out test set {address}")
    table = _read(address, classes, cache, reporter, reading)
    collection = table.collections[0]
    return Holdout(address, Images.of(table, classes, is_real=True), collection.report, list(collection.problems))


def _read(address: str, classes: list[str], cache: Path, reporter: Reporter, reading: Reading) -> Table:
    table = Table.open(address, cache, reporter, reading)
    table.require_labels(address)
    if unknown := sorted(classes_in(table, address, classes) - set(classes)):
        raise RequestError(
            f"{address}: no real images of class {unknown[0]!r} (classes: {some(classes, 12)}); remove the class, or add real images of it"
        )
    return table


def find_leakage(holdout: Holdout, draws: Sequence[RealDraw], settings: Sequence[Setting], reader: SetReader, resolution: int) -> Leakage:
    """Compare all training images with the holdout; raises RequestError if the real images copy much of it."""
    by_name = {"real": [part for draw in draws for part in (draw.fit, draw.rest, draw.validation) if part is not None]}
    for setting in settings:
        for key, images in setting.sources.items():
            by_name.setdefault(key.split(" by ")[0], []).append(images)
    copies = HoldoutCopies(holdout.images, reader, resolution)
    copies.look([images for sources in by_name.values() for images in sources])
    files = {name: {sha256 for images in sources for sha256 in images.sha256_N} for name, sources in by_name.items()}
    copied = {sha256 for sha256, is_copy in copies.is_copy.items() if is_copy and sha256 not in copies.unreadable}
    removed = {name: len(of_source & copied) for name, of_source in files.items() if of_source & copied}
    overlap, left, notes = removed.get("real", 0), holdout.images, []
    if copies.unreadable:
        first = next(iter(copies.unreadable.values()))
        notes.append(f"{len(copies.unreadable):,} images can't be read and were left out of every arm: {first}")
    if overlap > OVERLAP * min(len(left), len(files["real"])):
        raise RequestError(
            f"{holdout.address}: {overlap} of the real images are copies of its {len(left)} images; the held-out test "
            "set must have images that are used for nothing else"
        )
    if overlap:
        # Generators, encoders and tuning have seen these images, so every arm may know them, some better than others.
        copied_V = copies.copied_by([images for images in by_name["real"] if len(images)])
        notes.append(f"{int(copied_V.sum()):,} test images were left out, since real images are copies of them")
        left = left.take(~copied_V)
    notes += [f"{num:,} images of {name} are copies of test images and were left out of every arm" for name, num in removed.items()]
    return Leakage(copies.is_copy, removed, left, notes)


def notes_of_classes(images: Images, classes: list[str]) -> list[str]:
    """Notes on classes with few or no holdout images."""
    counts, notes = images.per_class(len(classes)), []
    if without := [name for name, num in zip(classes, counts, strict=True) if num == 0]:
        notes.append(f"the held-out test set has no images of class {', '.join(without)}, so results do not cover it")
    if few := [name for name, num in zip(classes, counts, strict=True) if 0 < num < FEW_HOLDOUT]:
        notes.append(f"fewer than {FEW_HOLDOUT} test images of class {', '.join(few)}, so recall is uncertain there")
    return notes


class HoldoutCopies:
    """Finds copies of holdout images. Each image is compared once."""

    def __init__(self, holdout: Images, reader: SetReader, resolution: int) -> None:
        self._reader, self._resolution = reader, min(LARGEST, resolution)
        self._files = set(holdout.sha256_N)
        plain_VD = self._pixels(holdout)
        side = self._resolution
        mirrored_VD = plain_VD.view(-1, 3, side, side).flip(3).reshape(len(plain_VD), -1)
        self._pixels_WD = torch.cat([plain_VD, mirrored_VD])
        self._scale = plain_VD.shape[1] ** 0.5
        self.is_copy: dict[str, bool] = {}
        """SHA-256 of each image file to whether it is a copy."""
        self.unreadable: dict[str, str] = {}
        """SHA-256 of each file that can't be decoded to the error."""

    def look(self, sources: Sequence[Images]) -> None:
        """Compare images that were not compared yet."""
        for source in sources:
            new = np.array([sha256 not in self.is_copy for sha256 in source.sha256_N], np.bool_)
            for part in _parts(source.take(new)):
                if not (readable := self._readable(part)):
                    continue
                distance_N = nearest(_flat(np.concatenate([*readable.values()])), self._pixels_WD) / self._scale
                for sha256, distance in zip(readable, distance_N.tolist(), strict=True):
                    self.is_copy[sha256] = sha256 in self._files or distance <= NEAR

    def copied_by(self, sources: Sequence[Images]) -> Bools:
        """Which holdout images are copied by images that were compared, bool (V,)."""
        copied_W = torch.zeros(len(self._pixels_WD), dtype=torch.bool)
        for source in sources:
            copies = source.take(np.array([self.is_copy[sha256] and sha256 not in self.unreadable for sha256 in source.sha256_N], np.bool_))
            for part in _parts(copies):
                copied_W |= nearest(self._pixels_WD, self._pixels(part)) / self._scale <= NEAR
        return copied_W.view(2, -1).any(dim=0).numpy()

    def _readable(self, images: Images) -> dict[str, NDArray[np.uint8]]:
        """Pixels (1, 3, H, W) of files that can be decoded, by their SHA-256."""
        pixels = {}
        for sha256, data in zip(images.sha256_N, self._reader.files(images), strict=True):
            try:
                pixels[sha256] = decoded([data], self._resolution, self._reader.background)
            except DatasetError as error:
                self.unreadable[sha256] = str(error)
                self.is_copy[sha256] = True
        return pixels

    def _pixels(self, images: Images) -> torch.Tensor:
        return _flat(decoded(self._reader.files(images), self._resolution, self._reader.background))


def _parts(images: Images) -> Iterator[Images]:
    return (images.take(np.arange(start, min(start + _AT_ONCE, len(images)))) for start in range(0, len(images), _AT_ONCE))


def _flat(pixels_NCHW: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels_NCHW).flatten(1).float()
