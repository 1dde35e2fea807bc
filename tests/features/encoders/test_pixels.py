"""Raw pixels as features."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from synthforge.features.encoders.config import PixelsConfig
from tests.features.encoders.made import load, pictures


def test_pixels_are_pixels(tmp_path: Path) -> None:
    images = pictures(3, 8)
    (encoder,) = load(PixelsConfig(resolution=8), tmp_path)
    assert np.allclose(encoder.embed(images).numpy(), images.reshape(3, -1) / 255, atol=1e-7)
    (grey,) = load(PixelsConfig(resolution=8, channels=1), tmp_path)
    assert (encoder.dim, grey.dim) == (192, 64)
    assert np.allclose(grey.embed(images).numpy(), images.mean(axis=3).reshape(3, -1) / 255, atol=1e-6)
    assert encoder.identity() != grey.identity()
    assert encoder.seen == frozenset()
