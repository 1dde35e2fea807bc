"""Which training images copy a holdout image: the same file, or the same picture but for re-encoding, also mirrored.

A picture is compared at 32 px or less, in pixels; two whose pixels differ by a root mean square of at most `NEAR` of 255 levels are one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from synthforge.errors import DatasetError
from synthforge.evaluation.sets import Bools, Images, SetReader
from synthforge.evaluation.trainer.loader import decoded
from synthforge.training.memorising import nearest

NEAR = 3.0
"""Levels: JPEG at quality 75 or more, and rescaling by a few pixels, stay below on photographs."""
LARGEST = 32
"""Pixels."""
_AT_ONCE = 2048


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
        """By SHA-256 of the image file."""
        self.unreadable: dict[str, str] = {}
        """Of files that can't be decoded: SHA-256 to what is wrong. They are left out like copies."""

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
