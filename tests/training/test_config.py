"""Settings of training: bounds, and what is in a digest."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from synthforge.config import identity_of
from synthforge.training.config import AugmentConfig, LoopConfig


def test_compilation_is_no_part_of_the_identity_and_all_else_is() -> None:
    def identity(config: LoopConfig) -> object:
        return identity_of(config, lambda path, value: value)

    assert identity(LoopConfig(compile=False)) == identity(LoopConfig())
    for changed in (LoopConfig(seed=1), LoopConfig(batch=8), LoopConfig(precision="float32"), LoopConfig(images=10)):
        assert identity(changed) != identity(LoopConfig())


@pytest.mark.parametrize("fields", [{"share": 1.5}, {"rotate": 200}, {"shift": -0.1}, {"zoom": 1}])
def test_augmentation_out_of_bounds_is_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate(fields)
