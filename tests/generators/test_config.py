"""Settings of sampling, and kinds of generator by name."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from synthforge.generators.config import GENERATORS, RealGuidanceConfig, SamplingConfig


@pytest.mark.parametrize("levels", [[-1.0], [101.0], [2.0, 2.0]])
def test_guidance_levels_lie_in_range_and_differ(levels: list[float]) -> None:
    with pytest.raises(ValidationError, match="guidance level"):
        SamplingConfig(guidance=levels)


@pytest.mark.parametrize("levels", [[0.0], [1.1], [0.5, 0.5]])
def test_strength_levels_lie_in_range_and_differ(levels: list[float]) -> None:
    with pytest.raises(ValidationError, match="strength level"):
        RealGuidanceConfig(reference="real", strength=levels)


def test_every_kind_is_found_by_its_name_and_says_what_it_is_conditioned_on() -> None:
    able = {kind: GENERATORS[kind].capabilities for kind in ("pixel", "text-to-image", "dit", "unconditional")}
    assert {kind for kind, can in able.items() if can.text} == {"text-to-image"}
    assert {kind for kind, can in able.items() if can.image} == {"text-to-image", "pixel"}
    assert {kind for kind, can in able.items() if not can.guidance} == {"unconditional"}
