"""Weights against the conditions that the exact solution meets, and against planted density ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from synthforge.curation.selection import importance as weights_module
from synthforge.curation.selection.importance import importance_weights
from synthforge.curation.selection.spaces import View

Array = NDArray[Any]


def tilted(num_pool: int, num_real: int, width: int, tilt: float = 0.7, seed: int = 0) -> tuple[View, Array]:
    """Normal pool, real images shifted along one axis, and the true density ratio of each pool image."""
    rng = np.random.default_rng(seed)
    pool, real = rng.normal(size=(num_pool, width)), rng.normal(size=(num_real, width))
    real[:, 0] += tilt
    return View(pool.astype(np.float32), real.astype(np.float32)), np.exp(tilt * pool[:, 0] - tilt**2 / 2)


def slope(view: View, weight_N: Array) -> Array:
    """Half the gradient of what is minimised, N times."""
    pool, real = (rows.astype(np.float64) for rows in (view.pool_ND, view.real_MD))

    def squared(one: Array, other: Array) -> Array:
        return ((one[:, None] - other[None]) ** 2).sum(axis=2)

    sigma2 = np.median(squared(real, real)[np.triu_indices(len(real), 1)])

    def kernel(one: Array, other: Array) -> Array:
        return np.exp(-squared(one, other) / (2 * sigma2))

    unit = 1 - kernel(real, real)[~np.eye(len(real), dtype=bool)].mean()
    off_N = kernel(pool, pool) @ weight_N / len(pool) - kernel(pool, real).mean(axis=1)
    return off_N / unit + (weight_N - 1) / len(real)


@pytest.mark.parametrize("max_weight", [1.5, 10.0])
@pytest.mark.parametrize("num_views", [1, 2])
def test_weights_meet_the_conditions_of_the_exact_solution(max_weight: float, num_views: int) -> None:
    views = [tilted(120, 60 + 10 * number, 3, seed=number)[0] for number in range(num_views)]
    weight_N = importance_weights(views, max_weight=max_weight)
    slope_N = sum(slope(view, weight_N) for view in views)
    at_low, at_high = weight_N < 1e-9, weight_N > max_weight - 1e-9
    inside = ~at_low & ~at_high
    level = slope_N[inside].mean()
    assert np.ptp(slope_N[inside]) < 2e-3
    assert (slope_N[at_low] > level - 1e-3).all() and (slope_N[at_high] < level + 1e-3).all()
    assert at_high.any() == (max_weight < 2)


@pytest.mark.parametrize(("num_pool", "num_real", "width"), [(2000, 2000, 2), (2000, 500, 8), (5000, 300, 4)])
def test_weights_recover_a_planted_density_ratio(num_pool: int, num_real: int, width: int) -> None:
    view, ratio_N = tilted(num_pool, num_real, width)
    weight_N = importance_weights([view])
    assert weight_N.dtype == np.float64 and weight_N.shape == (num_pool,)
    assert np.corrcoef(weight_N, ratio_N)[0, 1] > 0.9
    assert abs((weight_N * view.pool_ND[:, 0]).mean() - view.real_MD[:, 0].mean()) < 0.1


def test_weights_repair_wrong_proportions() -> None:
    rng = np.random.default_rng(0)
    kind_N, kind_M = rng.random(3000) < 0.8, rng.random(400) < 0.3
    pool, real = ((kind[:, None] * 5 + rng.normal(size=(len(kind), 4))).astype(np.float32) for kind in (kind_N, kind_M))
    weight_N = importance_weights([View(pool, real)])
    assert abs(weight_N[kind_N].sum() / 3000 - kind_M.mean()) < 0.04


@pytest.mark.parametrize(("num_real", "most"), [(5, 0.6), (200, 0.4), (5000, 0.3)])
def test_a_pool_that_is_right_is_left_alone(num_real: int, most: float) -> None:
    view, _ = tilted(2000, num_real, 4, tilt=0)
    assert importance_weights([view]).std() < most


@pytest.mark.parametrize("max_weight", [1.0, 2.0, 10.0])
def test_weights_keep_bounds_and_mean(max_weight: float) -> None:
    view, _ = tilted(500, 300, 2, tilt=2.5)
    weight_N = importance_weights([view], max_weight=max_weight)
    assert weight_N.min() >= 0 and weight_N.max() <= max_weight
    assert abs(weight_N.mean() - 1) < 1e-9
    assert (max_weight > 1) == (weight_N.std() > 0.1)


def test_weights_are_the_same_every_time_and_for_equal_images() -> None:
    view, _ = tilted(300, 100, 5)
    twice = View(np.concatenate([view.pool_ND] * 2), view.real_MD)
    weight_N = importance_weights([twice])
    np.testing.assert_array_equal(weight_N, importance_weights([twice]))
    np.testing.assert_allclose(weight_N[:300], weight_N[300:], atol=1e-3)


def test_landmarks_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    view, _ = tilted(700, 500, 4)
    few = importance_weights([view])
    monkeypatch.setattr(weights_module, "LANDMARKS", 700)
    exact = importance_weights([view])
    assert np.abs(few - exact).mean() < 0.05 and np.corrcoef(few, exact)[0, 1] > 0.99


@pytest.mark.parametrize("case", ["one real image", "equal real images", "one pool image", "equal pool images"])
def test_small_and_flat_sets(case: str) -> None:
    view, _ = tilted(20, 10, 3)
    pool, real = view.pool_ND, view.real_MD
    if case.startswith("one"):
        pool, real = (pool[:1], real) if "pool" in case else (pool, real[:1])
    else:
        pool, real = (np.repeat(pool[:1], 20, axis=0), real) if "pool" in case else (pool, np.repeat(real[:1], 10, axis=0))
    weight_N = importance_weights([View(pool, real)])
    assert np.isfinite(weight_N).all() and abs(weight_N.mean() - 1) < 1e-9
    if "pool" in case:
        np.testing.assert_allclose(weight_N, 1, atol=1e-3)
