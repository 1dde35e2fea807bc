"""The pixel pipeline as a generator."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from synthforge.errors import ModelError
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pixel.config import PixelConfig
from synthforge.generators.pixel.pipeline import PixelPipeline
from tests.generators.pixel.made import BUILTIN, load, loaded, noise, requests


@pytest.mark.parametrize("guide", ["unconditional", "less_trained"])
def test_an_engine_image_is_what_the_plain_call_gives(guide: str) -> None:
    config = PixelConfig(kind="pixel", model=BUILTIN, guide=guide)  # type: ignore[arg-type]
    generator = loaded(config, SamplingConfig(steps=5))
    pixels, codes = generator.sample(generator.prepare(requests(11, 12, 13)))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 8, 8, 1)
    assert not codes.any()
    pipeline = PixelPipeline.from_pretrained(BUILTIN)
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline(["1", "2", "3"], num_inference_steps=5, guidance_scale=1.5, guided_by=guide, generator=noise(11, 12, 13)).images
    assert np.array_equal(pixels[..., 0].numpy(), np.stack([np.asarray(image) for image in plain]))


def test_autoguidance_needs_the_copy(model: Path) -> None:
    shutil.rmtree(model / "guide")
    index = json.loads((model / "model_index.json").read_text())
    index["guide"] = [None, None]
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="saved without a less trained copy"):
        load(model, guide="less_trained")
