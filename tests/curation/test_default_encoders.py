"""The encoders that curation uses if the settings name none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthforge.curation.default_encoders import CLIP, SMALL, encoders_for
from synthforge.data.opening import open_collection
from synthforge.features.encoders.config import FittedConfig, OpenClipConfig, PixelsConfig, TimmConfig
from synthforge.recipe.curation import CurationConfig
from tests.curation.planted import REFERENCE


@pytest.fixture
def chosen(tmp_path: Path) -> Callable[..., tuple[object, object]]:
    """The encoders for real images of a height and width in pixels."""

    def choose(size: int, config: CurationConfig) -> tuple[object, object]:
        for name in "ab":
            (tmp_path / "real" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.zeros((size, size, 3), np.uint8)).save(tmp_path / "real" / name / "0.png")
        address = str(tmp_path / "real")
        return encoders_for(config, address, open_collection(address, tmp_path / "cache"))

    return choose


def test_small_images_get_fitted_encoders_and_larger_ones_models_of_natural_images(chosen: Callable[..., tuple[object, object]]) -> None:
    encoder, metric_encoder = chosen(SMALL, CurationConfig())
    assert isinstance(encoder, FittedConfig) and isinstance(metric_encoder, FittedConfig)
    assert encoder.pixels is not None and metric_encoder.pixels is None and metric_encoder != encoder
    encoder, metric_encoder = chosen(SMALL + 1, CurationConfig())
    assert encoder == CLIP and isinstance(metric_encoder, TimmConfig)


def test_what_the_settings_name_is_used(chosen: Callable[..., tuple[object, object]]) -> None:
    encoder, metric_encoder = chosen(SMALL + 1, CurationConfig(encoder=PixelsConfig(), metric_encoder=FittedConfig()))
    assert encoder == PixelsConfig()
    assert metric_encoder == FittedConfig(pixels=None), "raw pixels never measure"
    assert chosen(SMALL + 1, CurationConfig(metric_encoder=PixelsConfig())) == (CLIP, PixelsConfig())


def test_the_digits_have_embedded_models(tmp_path: Path) -> None:
    found = encoders_for(CurationConfig(), REFERENCE, open_collection(REFERENCE, tmp_path))
    assert found == (OpenClipConfig(model="builtin:digits/encoder"), FittedConfig(model="builtin:digits/judge"))
