"""Settings of the pixel pipeline and of its fit."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from synthforge.config import identity_of
from synthforge.data.storage import resolve
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pixel.config import PixelConfig, PixelFitConfig


@pytest.mark.parametrize(
    "fields", [{"resolution": 10}, {"resolution": 128}, {"channels": 2}, {"width": 12}, {"guide_at": 1.0}, {"steps": 5}]
)
def test_fits_out_of_bounds_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        PixelFitConfig.model_validate(fields)


def test_device_and_compilation_are_no_part_of_a_fits_identity() -> None:
    def identity(**fields: Any) -> object:
        return identity_of(PixelFitConfig.model_validate(fields), lambda path, value: value)

    assert identity(device="cpu", loop={"compile": False}) == identity()
    assert identity(patience=5) != identity()


def test_the_built_in_model_says_its_size_and_digest_without_being_loaded() -> None:
    config = PixelConfig(kind="pixel", model="builtin:digits/generator")
    files = config.files()
    assert files.model.folder.samefile(resolve("builtin:digits/generator"))
    assert config.image_size(files, SamplingConfig()) == (8, 1)
    assert set(files.digests()) == {"generator.model"}
