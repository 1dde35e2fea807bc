"""What holds for encoders of every kind."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synthforge.data.images import decode, encode, resize
from synthforge.features.encoders.config import PixelsConfig
from tests.features.encoders.made import BUILTIN, load, pictures


def test_equal_pixels_give_equal_features_whatever_the_file_format(tmp_path: Path) -> None:
    """PNG and lossless WebP of one image, grey and colour: the format must not show."""
    grey = pictures(1, 8)[0][:, :, :1]
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(buffer, "WEBP", lossless=True)
    files = [encode(grey, "png", 100, marking=False), encode(np.repeat(grey, 3, axis=2), "png", 100, marking=True), buffer.getvalue()]
    for config in (*BUILTIN, PixelsConfig(resolution=16)):
        encoder = load(config, tmp_path)[0]
        found = encoder.embed(np.stack([resize(decode(file, 3), encoder.resolution) for file in files]))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
