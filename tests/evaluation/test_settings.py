"""What arms of a setting take from its sources."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthforge.evaluation.reference import RealDraw
from synthforge.evaluation.sets import Images
from synthforge.evaluation.settings import Setting
from synthforge.recipe.evaluation import ArmConfig


def _images(per_class: int, is_real: bool) -> Images:
    num = 2 * per_class
    names = np.array([f"{is_real} {row}" for row in range(num)], object)
    return Images("x", np.arange(num), np.repeat([0, 1], per_class), names, is_real, np.ones(num))


def test_a_weighted_set_gives_arms_of_equal_size_and_keeps_its_weights() -> None:
    """Of a class of 40 half counts nothing, and half 3 times; 20 are wanted, or as many as there are."""
    real, pool = (_images(num, is_real) for num, is_real in ((10, True), (40, False)))
    pool = replace(pool, weight_N=np.where(np.arange(80) % 2 == 0, 0.0, 3.0))
    draw = RealDraw(10, 0, real, None, real.take(np.arange(0)))
    arm = ArmConfig.model_validate("curated")
    for ratio, num in ((1.5, 15), (5.0, 20)):
        setting = Setting(draw, ratio, "own", {arm.key_of("curated"): pool})
        (part,) = setting.parts(arm, 0, 2, {})
        assert not isinstance(part, str)
        assert part.per_class(2).tolist() == [num, num]
        assert set(part.weight_N) == {3.0}
