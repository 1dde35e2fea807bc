"""The images of a training set: resident on the device where they fit, decoded as they are needed where they do not.

Both give the same batches, and real and synthetic images are decoded and resized in one way.
Shapes: N images of the set, B batch, H = W = resolution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthforge.data.images import decode, resize

Order = Callable[[int], Tensor]
"""Step to the rows of its batch, int64 (B,); a pure function."""
Gather = Callable[[NDArray[np.int64]], Sequence[bytes]]
"""Rows to encoded images; called from several threads."""

AHEAD = 4
"""Batches that are decoded before they are asked for."""


class TrainingImages(Protocol):
    """The images of one training."""

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Rows, int64 (B,), and images, uint8 (B, 3, H, W) on the device; steps are asked for in order."""

    def of(self, rows_B: Tensor) -> Tensor:
        """The images of any rows."""

    def close(self) -> None:
        """Let go of what is held."""


class Resident:
    """Implements `TrainingImages`: all images are on the device, uint8 (N, 3, H, W)."""

    def __init__(self, images_NCHW: NDArray[np.uint8], order: Order, device: torch.device) -> None:
        self._images_NCHW = torch.from_numpy(images_NCHW).to(device)
        self._order = order

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        rows_B = self._order(step)
        return rows_B, self.of(rows_B)

    def of(self, rows_B: Tensor) -> Tensor:
        return self._images_NCHW[rows_B.to(self._images_NCHW.device)]

    def close(self) -> None:
        pass


class Streamed:
    """Implements `TrainingImages`: threads decode a few batches ahead, and only those are in memory."""

    def __init__(self, gather: Gather, resolution: int, order: Order, num_steps: int, device: torch.device) -> None:
        self._gather, self._resolution, self._order, self._device = gather, resolution, order, device
        self._num_steps = num_steps
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode")
        self._waiting: dict[int, tuple[Tensor, Future[Tensor]]] = {}

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        for coming in range(step, min(step + AHEAD, self._num_steps)):
            if coming not in self._waiting:
                rows_B = self._order(coming)
                self._waiting[coming] = rows_B, self._pool.submit(self._decode, rows_B)
        rows_B, images = self._waiting.pop(step)
        return rows_B, images.result().to(self._device, non_blocking=True)

    def of(self, rows_B: Tensor) -> Tensor:
        return self._decode(rows_B).to(self._device, non_blocking=True)

    def _decode(self, rows_B: Tensor) -> Tensor:
        images_BCHW = torch.from_numpy(decoded(self._gather(rows_B.numpy()), self._resolution))
        return images_BCHW.pin_memory() if self._device.type == "cuda" else images_BCHW

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def decoded(files: Sequence[bytes], resolution: int) -> NDArray[np.uint8]:
    """uint8 (n, 3, H, W); raises DatasetError for what can't be decoded."""
    found = np.empty((len(files), 3, resolution, resolution), np.uint8)
    for number, data in enumerate(files):
        found[number] = resize(decode(data, 3), resolution).transpose(2, 0, 1)
    return found
