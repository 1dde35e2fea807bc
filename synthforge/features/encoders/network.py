"""A network on its device: normalisation, precision and batches, for all encoders with a network.

Shapes: N images, H = W = resolution, C = 3 channels, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synthforge.devices import pick_device, pick_dtype
from synthforge.errors import ModelError


class DeviceNetwork:
    """A network in evaluation mode on one device, with its normalisation and precision.

    Args:
        forward: normalised float (N, C, H, W) on the device -> features (N, D).
        precision: `auto`, `float32`, `bfloat16` or `float16`.
        mean: per channel, subtracted from pixels in 0 to 1.
        std: per channel, divisor after that.
    """

    def __init__(
        self,
        network: nn.Module,
        forward: Callable[[Tensor], Tensor],
        *,
        device: str,
        precision: str,
        mean: Sequence[float],
        std: Sequence[float],
        where: str,
    ) -> None:
        self.device = pick_device(device, where)
        self.dtype = pick_dtype(precision, self.device)
        network = network.eval().requires_grad_(False).to(self.device)
        if self.device.type == "cuda":
            network.to(memory_format=torch.channels_last)
        self._forward = forward
        self.mean, self.std = [float(value) for value in mean], [float(value) for value in std]
        self._mean_C11 = torch.tensor(self.mean, device=self.device)[:, None, None]
        self._std_C11 = torch.tensor(self.std, device=self.device)[:, None, None]

    @torch.inference_mode()
    def features(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """Features float32 (N, D) on the device."""
        assert images_NHWC.dtype == np.uint8 and images_NHWC.ndim == 4 and images_NHWC.shape[3] == 3
        images = torch.from_numpy(np.ascontiguousarray(images_NHWC))
        if self.device.type == "cuda":
            images = images.pin_memory().to(self.device, non_blocking=True)
        # A permuted view of NHWC is channels-last already. Bytes are copied, and floats are made on the device.
        images_NCHW = images.to(self.device).permute(0, 3, 1, 2).float().div_(255).sub_(self._mean_C11).div_(self._std_C11)
        with self.autocast():
            return self._forward(images_NCHW).float()

    def dim(self, resolution: int, name: str, where: str) -> int:
        """D, from encoding one black image; raises ModelError if the output is not one vector per image."""
        shape = self.features(np.zeros((1, resolution, resolution, 3), dtype=np.uint8)).shape
        if len(shape) != 2:
            raise ModelError(f"{where}: {name} gives features of shape {tuple(shape[1:])}, not one vector an image; choose another model")
        return int(shape[1])

    def autocast(self) -> AbstractContextManager[Any]:
        """Context in which the network runs in its precision."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, dtype=self.dtype)

    def identity(self, resolution: int) -> dict[str, Any]:
        """All processing of an image before the network, and the precision, for `Encoder.identity`."""
        resize = {"resolution": resolution, "resize": "shorter side, bicubic, centre"}
        return {"preprocessing": {**resize, "mean": self.mean, "std": self.std}, "dtype": str(self.dtype).removeprefix("torch.")}
