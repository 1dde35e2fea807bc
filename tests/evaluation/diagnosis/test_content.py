"""How often a pool shows what the real images show, and with how much variety."""

from __future__ import annotations

import numpy as np
import pytest

from synthforge.evaluation.diagnosis.content import SIGNIFICANT, content_weights, variety
from tests.evaluation.sets import random_features


def test_real_images_of_a_kind_that_the_pool_lacks_weigh_nothing() -> None:
    real = np.concatenate([random_features(30, 0), random_features(30, 1, centre=8)])
    weight, p_values = content_weights(real, np.zeros(60, np.int64), random_features(300, 2), np.zeros(300, np.int64))
    assert weight[30:].max() == 0
    assert weight.mean() == pytest.approx(1)
    assert p_values == {0: 0.01}


def test_a_mix_of_kinds_like_the_real_one_gives_no_weights() -> None:
    classes, of_pool = np.arange(600) % 20, np.arange(4000) % 20
    weight, p_values = content_weights(random_features(600, 0), classes, random_features(4000, 2), of_pool)
    assert len(p_values) == 20
    assert np.mean([p_value <= SIGNIFICANT for p_value in p_values.values()]) <= 0.2  # of 20 that have it by chance, 1 in 20
    unshown = [number for number, p_value in p_values.items() if p_value > SIGNIFICANT]
    assert (weight[np.isin(classes, unshown)] == 1).all()


def test_classes_of_which_there_are_too_few_images_keep_their_weights() -> None:
    of_pool = np.array([0] + [1] * 39)
    weight, p_values = content_weights(random_features(12, 0), np.array([0] * 10 + [1, 1]), random_features(40, 1), of_pool)
    assert weight.tolist() == [1.0] * 12
    assert p_values == {}


def test_a_pool_of_near_copies_has_less_variety() -> None:
    classes = np.zeros(60, np.int64)
    copies = np.repeat(random_features(6, 3), 10, axis=0) + 0.01 * random_features(60, 4)
    assert variety(random_features(60, 0), classes, random_features(60, 1), classes) == pytest.approx(1, abs=0.15)
    assert variety(random_features(60, 0), classes, copies, classes) < 0.3
