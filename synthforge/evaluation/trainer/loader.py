"""The images of a training set: resident on the device if they fit, otherwise decoded when they are needed.

Both ways give the same batches. Real and synthetic images are decoded and resized in the same way.

Shapes: N images of the set, B batch, H = W = resolution.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthforge.arrays import Ints
from synthforge.data.images import decode, resize
from synthforge.data.read_config import WHITE

Order = Callable[[int], Tensor]
"""Pure function from a step to the rows of its batch, int64 (B,)."""
Gather = Callable[[Ints], Sequence[bytes]]
"""Function from rows to encoded images; called from several threads."""

AHEAD = 4
"""Number of batches that are decoded ahead."""


class Resident:
    """All images are on the device, uint8 (N, 3, H, W)."""

    def __init__(self, images_NCHW: NDArray[np.uint8], order: Order, device: torch.device) -> None:
        self._images_NCHW = torch.from_numpy(images_NCHW).to(device)
        self._order = order

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Rows, int64 (B,), and images, uint8 (B, 3, H, W) on the device. Steps come in order."""
        rows_B = self._order(step)
        return rows_B, self.of(rows_B)

    def of(self, rows_B: Tensor) -> Tensor:
        """Images of any rows, uint8 (B, 3, H, W) on the device."""
        return self._images_NCHW[rows_B.to(self._images_NCHW.device)]

    def close(self) -> None:
        """Nothing is open."""


class Streamed:
    """Threads decode a few batches ahead; only these are in memory. Methods are those of `Resident`."""

    def __init__(self, gather: Gather, resolution: int, background: str, order: Order, num_steps: int, device: torch.device) -> None:
        self._gather, self._order, self._device = gather, order, device
        self._resolution, self._background = resolution, background
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
        images_BCHW = torch.from_numpy(decoded(self._gather(rows_B.numpy()), self._resolution, self._background))
        return images_BCHW.pin_memory() if self._device.type == "cuda" else images_BCHW

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


def decoded(files: Sequence[bytes], resolution: int, background: str = WHITE) -> NDArray[np.uint8]:
    """Images as uint8 (n, 3, H, W); raises DatasetError if one can't be decoded."""
    images_NCHW = np.empty((len(files), 3, resolution, resolution), np.uint8)
    for number, data in enumerate(files):
        images_NCHW[number] = resize(decode(data, 3, background), resolution).transpose(2, 0, 1)
    return images_NCHW
