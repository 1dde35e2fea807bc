"""Wrong labels are doubted, and right ones are not."""

from __future__ import annotations

import numpy as np

from synthforge.evaluation.diagnosis.labels import doubts, label_filter
from tests.evaluation.sets import random_features


def test_classes_that_overlap_wholly_are_not_doubted() -> None:
    classes, of_pool = np.arange(600) % 20, np.arange(1000) % 20
    found = doubts(random_features(600, 0), classes, random_features(1000, 1), of_pool, neighbours=10, loss=0.02)
    assert found.share < 0.02


def test_wrong_labels_are_doubted_and_right_ones_are_not() -> None:
    centres = np.repeat([[0.0] * 4, [6.0] * 4], 100, axis=0)
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    shown = labels.copy()
    shown[:30] = 1
    found = doubts(centres + rng.normal(0, 1, (200, 4)), labels, centres + rng.normal(0, 1, (200, 4)), shown, neighbours=10, loss=0.02)
    assert found.doubted_M[:30].all()
    assert found.doubted_M[30:].sum() <= 2
    assert found.p_value < 1e-6
    assert (
        doubts(centres + rng.normal(0, 1, (200, 4)), labels, centres + rng.normal(0, 1, (200, 4)), labels, neighbours=10, loss=0.02).p_value
        > 0.01
    )


def test_wrong_labels_are_doubted_where_some_real_images_look_like_another_class() -> None:
    rng = np.random.default_rng(0)

    def some(num: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(num) % 2
        lies_there = rng.random(num) < 0.06
        return 6.0 * (labels ^ lies_there)[:, None] + rng.normal(0, 1, (num, 4)), labels

    (real, labels), (pool, of_pool) = some(400), some(800)
    shown = of_pool.copy()
    shown[:240] = 1 - of_pool[:240]
    found = doubts(real, labels, pool, shown, neighbours=10, loss=0.02)
    assert found.doubted_M[:240].mean() > 0.4  # of others one of ten neighbours is such an image, which votes for their label
    assert found.doubted_M[240:].mean() < 0.1
    assert found.p_value < 1e-6
    assert doubts(real, labels, pool, of_pool, neighbours=10, loss=0.02).share == 0  # there are as many as among the real ones


def test_a_class_of_few_images_is_not_doubted_for_being_small() -> None:
    classes = np.array([0] * 400 + [1] * 8)
    centres = np.where(classes[:, None] == 1, 2.0, 0.0) * np.ones((1, 4))
    rng = np.random.default_rng(0)
    found = doubts(centres + rng.normal(0, 1, (408, 4)), classes, centres + rng.normal(0, 1, (408, 4)), classes, neighbours=10, loss=0.02)
    assert found.doubted_M[classes == 1].mean() < 0.8
    assert found.doubted_M[classes == 0].mean() < 0.06


def test_a_class_that_is_doubted_wholly_passes() -> None:
    passes, wholly = label_filter(np.array([True, True, False, True]), np.array([3, 3, 5, 5]))
    assert passes.tolist() == [True, True, True, False]
    assert wholly == [3]
