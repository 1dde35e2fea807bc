"""From predictions to figures."""

from __future__ import annotations

import numpy as np
import pytest

from synthforge.evaluation.results.scores import calibration_error, claimed, compared, pairs
from synthforge.evaluation.results.words import most
from synthforge.recipe.evaluation import ArmConfig, MixingConfig
from tests.evaluation.results.test_words import ARMS


def test_curated_is_compared_with_random_in_its_place_and_policy() -> None:
    arms = {**ARMS, "real+random": ArmConfig.model_validate("real+random")}
    found = pairs(arms, MixingConfig())
    assert ("real+curated", "real+random") in found
    assert ("heap", "real+random") not in found
    assert ("curated", "random") in found


def test_the_class_that_changes_most_is_named_if_it_changes() -> None:
    """One class of three is recognised half as often; the others as before."""
    truth = np.arange(300) % 3
    before = np.ones((4, 2, 300))
    after = before - (truth == 1) * (np.random.default_rng(0).random((4, 2, 300)) < 0.5)
    (one,) = compared([("b", "a", after - before)], truth, ["x", "y", "z"], 0.005)
    assert one.by_class["x"].value == one.by_class["z"].value == 0
    assert -0.6 < one.by_class["y"].low < one.by_class["y"].value < one.by_class["y"].high < -0.4
    assert one.difference.value == pytest.approx(one.by_class["y"].value / 3, abs=1e-4)
    assert most(one).startswith("largest change in class y: -")
    (same,) = compared([("b", "a", before - before)], truth, ["x", "y", "z"], 0.005)
    assert most(same) == ""


def test_calibration_is_the_distance_of_confidence_from_accuracy() -> None:
    confident = np.full(100, 0.9, np.float32)
    assert calibration_error(confident, np.arange(100) < 90) == pytest.approx(0, abs=1e-6)
    assert calibration_error(confident, np.arange(100) < 50) == pytest.approx(0.4, abs=1e-6)


def test_what_single_comparisons_cannot_tell_they_may_together() -> None:
    """Ten amounts, at each of which a gain of a point is lost among as many comparisons, and one kind that is of
    nothing."""
    rng = np.random.default_rng(0)
    gains = [np.where(rng.random((5, 2, 800)) < 0.51, 1.0, 0.0) - (rng.random((5, 2, 800)) < 0.49) for _ in range(10)]
    nothing = [(rng.random((5, 2, 800)) < 0.5) - (rng.random((5, 2, 800)) < 0.5).astype(float) for _ in range(10)]
    gain, none = claimed({("adding", "gain"): gains, ("pair", "nothing"): nothing}, 0.005)
    assert (gain.what, gain.comparisons, gain.verdict) == ("gain", 10, "helped")
    assert gain.difference.value == pytest.approx(0.02, abs=0.01)
    assert none.verdict in {"cannot tell", "did not help"}
    assert none.lowest < none.difference.value < none.highest
