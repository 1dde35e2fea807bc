"""Open the holdout, once all choices are made, and find the training images that copy one of it.

A copy is the same file, or the same picture but for re-encoding, also mirrored. Pictures are compared in pixels, at 32 px or less: two are
one if their pixels differ by a root mean square of at most `NEAR` of 255 levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synthforge.data.pools import Table
from synthforge.errors import DatasetError, RequestError, some
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.sets import Bools, Images, SetReader, classes_in
from synthforge.evaluation.trainer.loader import decoded
from synthforge.progress import Reporter
from synthforge.training.memorising import nearest

NEAR = 3.0
"""Levels: JPEG at quality 75 or more, and rescaling by a few pixels, stay below on photographs."""
LARGEST = 32
"""Pixels."""
OVERLAP = 0.1
"""A real set that holds so much of the holdout is the holdout."""
FEW_HOLDOUT = 20
"""Holdout images of a class, below which its recall says little."""
_AT_ONCE = 2048


@dataclass(frozen=True)
class Holdout:
    """The holdout as it was found."""

    address: str
    """As the user named it."""
    images: Images
    notes: list[str]


@dataclass(frozen=True)
class Leakage:
    """Training images that copy the holdout, and the holdout images that are left to measure on."""

    is_copy: Mapping[str, bool]
    """SHA-256 of every image file to whether it copies the holdout. A file that can't be decoded counts as a copy: no arm takes it."""
    copies_removed: dict[str, int]
    """Number of copies by source; sources without any are not named."""
    holdout: Images
    """The holdout images that no real image copies."""
    notes: list[str]


def open_holdout(address: str, classes: list[str], cache: Path, reporter: Reporter) -> Holdout:
    """Open it; raises RequestError if an image has no label, or its classes are not the real images', DatasetError for a broken image."""
    reporter.note(f"opening the holdout {address}")
    table = Table.open(address, cache, reporter)
    table.require_labels(address)
    if unknown := sorted(classes_in(table, address, classes) - set(classes)):
        raise RequestError(
            f"{address}: class {unknown[0]!r} is not among the real images' ({some(classes, 12)}); leave it out, or add real images of it"
        )
    table.require_readable(np.arange(len(table)))
    notes = [f"{address}: {problem}" for problem in table.collections[0].problems]
    return Holdout(address, Images.of(table, classes, is_real=True), notes)


def find_leakage(holdout: Holdout, draws: Sequence[RealDraw], settings: Sequence[Setting], reader: SetReader, resolution: int) -> Leakage:
    """Compare all training images with the holdout; raises RequestError if the real images are the holdout."""
    by_name: dict[str, list[Images]] = {
        "real": [part for draw in draws for part in (draw.fit, draw.rest, draw.validation) if part is not None]
    }
    for setting in settings:
        for key, images in setting.sources.items():
            by_name.setdefault(key.split(" by ")[0], []).append(images)
    copies = HoldoutCopies(holdout.images, reader, resolution)
    copies.look([images for sources in by_name.values() for images in sources])
    files = {name: {sha256 for images in sources for sha256 in images.sha256_N} for name, sources in by_name.items()}
    removed = {name: sum(copies.is_copy[sha256] and sha256 not in copies.unreadable for sha256 in found) for name, found in files.items()}
    removed = {name: num for name, num in removed.items() if num}
    overlap, left, notes = removed.get("real", 0), holdout.images, []
    if copies.unreadable:
        first = next(iter(copies.unreadable.values()))
        notes.append(f"{len(copies.unreadable):,} images can't be read and were left out of every arm: {first}")
    if overlap > OVERLAP * min(len(left), len(files["real"])):
        raise RequestError(
            f"{holdout.address}: {overlap} of the real images are copies of its {len(left)} images; a holdout must hold "
            "images that are used for nothing else"
        )
    if overlap:
        # Generators, encoders and tuning have seen the real ones, so that every arm may know these, and not all equally well.
        copied_V = copies.copied_by([images for images in by_name["real"] if len(images)])
        notes.append(f"{int(copied_V.sum()):,} holdout images that real images copy were left out of the measurement")
        left = left.take(~copied_V)
    notes += [f"{num:,} images of {name} copy holdout images and were left out of every arm" for name, num in removed.items()]
    return Leakage(copies.is_copy, removed, left, notes)


def notes_of_classes(images: Images, classes: list[str]) -> list[str]:
    """Which classes have too few holdout images to tell much."""
    counts, notes = images.per_class(len(classes)), []
    if without := [name for name, num in zip(classes, counts, strict=True) if num == 0]:
        notes.append(f"the holdout has no images of class {', '.join(without)}: nothing is known of them")
    if few := [name for name, num in zip(classes, counts, strict=True) if 0 < num < FEW_HOLDOUT]:
        notes.append(f"fewer than {FEW_HOLDOUT} holdout images of class {', '.join(few)}: their recall says little")
    return notes


class HoldoutCopies:
    """Finds copies of holdout images; each image is looked at once."""

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
        """SHA-256 of each file that can't be decoded to what is wrong with it."""

    def look(self, sources: Sequence[Images]) -> None:
        """Look at images that were not looked at yet."""
        for source in sources:
            new = np.array([sha256 not in self.is_copy for sha256 in source.sha256_N], np.bool_)
            left = source.take(new)
            for start in range(0, len(left), _AT_ONCE):
                readable = self._readable(left.take(np.arange(start, min(start + _AT_ONCE, len(left)))))
                if not readable:
                    continue
                distance_N = nearest(_flat(np.concatenate([*readable.values()])), self._pixels_WD) / self._scale
                for sha256, distance in zip(readable, distance_N.tolist(), strict=True):
                    self.is_copy[sha256] = sha256 in self._files or distance <= NEAR

    def copied_by(self, sources: Sequence[Images]) -> Bools:
        """Which of the V holdout images some of these copy, of images that were looked at."""
        copied_W = torch.zeros(len(self._pixels_WD), dtype=torch.bool)
        for source in sources:
            those = source.take(np.array([self.is_copy[sha256] and sha256 not in self.unreadable for sha256 in source.sha256_N], np.bool_))
            for start in range(0, len(those), _AT_ONCE):
                part = self._pixels(those.take(np.arange(start, min(start + _AT_ONCE, len(those)))))
                copied_W |= nearest(self._pixels_WD, part) / self._scale <= NEAR
        found: Bools = copied_W.view(2, -1).any(dim=0).numpy()
        return found

    def _readable(self, images: Images) -> dict[str, NDArray[np.uint8]]:
        """Pixels (1, 3, H, W) of files that can be decoded, by their SHA-256."""
        found = {}
        for sha256, data in zip(images.sha256_N, self._reader.files(images), strict=True):
            try:
                found[sha256] = decoded([data], self._resolution)
            except DatasetError as error:
                self.unreadable[sha256] = str(error)
                self.is_copy[sha256] = True
        return found

    def _pixels(self, images: Images) -> torch.Tensor:
        return _flat(decoded(self._reader.files(images), self._resolution))


def _flat(pixels_NCHW: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(pixels_NCHW).flatten(1).float()
