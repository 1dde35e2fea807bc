"""Labelled images resident on the device, in an order decided by seed and step alone.

Shapes: N images, B batch, C channels, H = W = resolution.
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor


class DeviceImages:
    """uint8 images and their labels on one device; batches are gathered and scaled there.

    Args:
        images_NCHW: uint8.
        labels_N: int64.
    """

    def __init__(self, images_NCHW: Tensor, labels_N: Tensor, device: torch.device) -> None:
        assert images_NCHW.dtype == torch.uint8 and len(images_NCHW) == len(labels_N)
        self.images_NCHW = images_NCHW.to(device)
        self.labels_N = labels_N.to(device)
        self._order: tuple[tuple[int, int], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images_NCHW)

    def batch(self, step: int, batch_size: int, seed: int) -> tuple[Tensor, Tensor]:
        """Batch number `step`: float images in -1 to 1, and labels. Each image is used once before any is used
        again.
        """
        first, offset = divmod(step * batch_size, len(self))
        num_epochs = math.ceil((offset + batch_size) / len(self))
        orders = [self._order_of(epoch, seed) for epoch in range(first, first + num_epochs)]
        order = torch.cat(orders) if num_epochs > 1 else orders[0]
        indices_B = order[offset : offset + batch_size].to(self.images_NCHW.device)
        return to_float(self.images_NCHW[indices_B]), self.labels_N[indices_B]

    def _order_of(self, epoch: int, seed: int) -> Tensor:
        if self._order is None or self._order[0] != (epoch, seed):
            self._order = (epoch, seed), torch.randperm(len(self), generator=seeded("order", seed, epoch))
        return self._order[1]


def seeded(purpose: str, *numbers: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator decided by purpose and numbers alone, so a resumed fit draws the same as an uninterrupted one."""
    return torch.Generator(device).manual_seed(seed_of(purpose, *numbers))


def seed_of(purpose: str, *numbers: int) -> int:
    """Seed of the generator that `seeded` returns."""
    digest = hashlib.blake2b(f"{purpose}|{numbers}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def to_float(images: Tensor) -> Tensor:
    """uint8 to float32 in -1 to 1."""
    return images.to(torch.float32).div_(127.5).sub_(1.0)
