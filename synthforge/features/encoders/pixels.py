"""Raw pixels as features, 0 to 1. No model, no labels, nothing learned.

On small aligned images they did as well as learned features. On others, distances between pixels mean little.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthforge.features.encoders.config import PixelsConfig
from synthforge.features.encoders.protocol import Encoder, Loading


class PixelsEncoder(Encoder):
    """One view of raw pixels."""

    def __init__(self, config: PixelsConfig) -> None:
        self.name = f"pixels at {config.resolution} px"
        self.resolution = config.resolution
        self.dim = config.channels * config.resolution**2
        self._channels = config.channels

    def identity(self) -> dict[str, Any]:
        """See `Encoder`."""
        return {"kind": "pixels", "resolution": self.resolution, "channels": self._channels, "dtype": "float32"}

    def embed(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """See `Encoder`; always on the CPU, since there is nothing to compute."""
        images = torch.from_numpy(np.ascontiguousarray(images_NHWC)).float() / 255
        return (images.mean(dim=3) if self._channels == 1 else images).flatten(1)


def load(config: PixelsConfig, _: Loading) -> list[PixelsEncoder]:
    """The one encoder of a Config."""
    return [PixelsEncoder(config)]
