"""Metrics against reference implementations, and against what is known of simple cases."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import prdc as reference_prdc
import pytest
import torch
from torch_fidelity import metric_fid, metric_kid
from vendi_score import vendi as reference_vendi

from synthforge.curation.gap import metrics


def sets(num_real: int, num_other: int, dim: int, seed: int = 0, shift: float = 0.3) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((dim, dim)) / dim**0.5
    real = rng.standard_normal((num_real, dim)) @ mixing + 1
    other = 1.2 * rng.standard_normal((num_other, dim)) @ mixing + 1 + shift
    return real.astype(np.float32), other.astype(np.float32)


def figures(real: Any, other: Any) -> dict[str, float]:
    return metrics.figures(metrics.Pair(metrics.RealSide(real), other))


def frechet(real: Any, other: Any) -> float:
    return metrics.NormalFit.of(real).frechet(metrics.NormalFit.of(other))


def vendi(rows: Any) -> float:
    return metrics.Pair(metrics.RealSide(rows, k=1), rows).vendi()


def mmd2(real: Any, other: Any, kernel: Any) -> float:
    """MMD² of sets of one class, without weights, as the gap computes it."""
    real_images, images = (
        metrics.Weighted.of(np.zeros(len(rows), np.int64), np.ones((1, len(rows)), np.float32)) for rows in (real, other)
    )
    inside = metrics.within(kernel(real, real), real_images, 1) + metrics.within(kernel(other, other), images, 1)
    return float((inside - 2 * metrics.between(kernel(other, real), images, real_images, 1))[0, -1])


def gaussian(sigma: float) -> Any:
    return functools.partial(metrics.gaussian_kernel, sigma=sigma)


@pytest.mark.parametrize(("num_real", "num_other", "dim"), [(200, 150, 16), (120, 300, 64), (90, 80, 5)])
def test_neighbourhoods_agree_with_prdc(num_real: int, num_other: int, dim: int) -> None:
    real, other = sets(num_real, num_other, dim)
    expected = reference_prdc.compute_prdc(real.astype(np.float64), other.astype(np.float64), nearest_k=5)
    found = figures(real, other)
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    assert 0.05 < expected["recall"] < 0.999  # else it would agree by saying nothing


@pytest.mark.parametrize(("num_real", "num_other", "dim"), [(300, 250, 16), (100, 80, 60), (400, 90, 40)])
def test_frechet_agrees_with_torch_fidelity(num_real: int, num_other: int, dim: int) -> None:
    real, other = sets(num_real, num_other, dim)
    statistics = [metric_fid.fid_features_to_statistics(torch.from_numpy(rows.astype(np.float64))) for rows in (real, other)]
    expected = metric_fid.fid_statistics_to_metric(*statistics, verbose=False)[metric_fid.KEY_METRIC_FID]
    assert frechet(real, other) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_fewer_images_than_features_equals_that_of_the_covariances() -> None:
    """Torch-fidelity's roots of slightly negative eigenvalues are inexact; the sum over the common space is exact."""
    real, other = sets(20, 15, 50)
    one, two = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (real, other))
    values, vectors = np.linalg.eigh(one)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ two @ root), 0)).sum()
    means = ((real.astype(np.float64).mean(axis=0) - other.astype(np.float64).mean(axis=0)) ** 2).sum()
    assert frechet(real, other) == pytest.approx(means + np.trace(one) + np.trace(two) - 2 * trace, rel=1e-5)
    assert frechet(real, real) == pytest.approx(0, abs=1e-6)


def test_kid_agrees_with_torch_fidelity() -> None:
    real, other = (rows.astype(np.float64) for rows in sets(200, 200, 24))
    kernel = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1.0}
    assert mmd2(real, other, metrics.cubic_kernel) == pytest.approx(metric_kid.kernel_mmd(real, other, **kernel), rel=1e-9)


def test_gaussian_mmd_agrees_with_torch_fidelity() -> None:
    real, other = (rows.astype(np.float64) for rows in sets(150, 150, 24))
    expected = metric_kid.kernel_mmd(real, other, kid_kernel="rbf", kid_kernel_rbf_sigma=2.5)
    assert mmd2(real, other, gaussian(2.5)) == pytest.approx(expected, rel=1e-9)


def test_cmmd_agrees_with_its_definition() -> None:
    real, other = (rows.astype(np.float64) for rows in sets(60, 40, 12, shift=2))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (real, other)]

    def mean(one: Any, two: Any, others_only: bool) -> Any:
        pairs = [
            np.exp(-((x - y) ** 2).sum() / (2 * 10**2))
            for i, x in enumerate(one)
            for j, y in enumerate(two)
            if not (others_only and i == j)
        ]
        return np.mean(pairs)

    expected = 1000 * (mean(unit[0], unit[0], True) + mean(unit[1], unit[1], True) - 2 * mean(unit[0], unit[1], False))
    assert 1000 * mmd2(*unit, gaussian(10.0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # vendi-score's import of scipy
@pytest.mark.parametrize(("num", "dim"), [(50, 8), (30, 90)])
def test_vendi_agrees_with_vendi_score(num: int, dim: int) -> None:
    rows = sets(num, 2, dim)[0].astype(np.float64)
    assert vendi(rows) == pytest.approx(reference_vendi.score_X(rows, normalize=True), rel=1e-6)


def test_vendi_counts_what_differs() -> None:
    assert vendi(np.ones((9, 4))) == pytest.approx(1)
    assert vendi(np.eye(7)) == pytest.approx(7)
    assert vendi(np.repeat(np.eye(5), 3, axis=0)) == pytest.approx(5)


def test_unbiased_mmd_is_zero_on_average() -> None:
    rng = np.random.default_rng(0)
    found = [mmd2(rng.standard_normal((30, 6)), rng.standard_normal((20, 6)), gaussian(3.0)) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / 20 and min(found) < 0


def test_sigma_is_the_median_distance() -> None:
    rows = np.array([[0.0], [1.0], [3.0], [7.0]])
    assert metrics.median_sigma(rows) == pytest.approx(((3**2 + 4**2) / 2) ** 0.5)  # of 1 2 3 4 6 7; the median is that of squares
    assert metrics.median_sigma(np.ones((5, 2))) == 1.0 == metrics.median_sigma(np.ones((1, 2)))


def test_nearness_finds_copies() -> None:
    rng = np.random.default_rng(0)
    real, fresh = rng.standard_normal((400, 8)), rng.standard_normal((400, 8))
    copied = fresh.copy()
    copied[:100] = real[:100] + 1e-3 * rng.standard_normal((100, 8))
    honest, caught = figures(real, fresh), figures(real, copied)
    assert honest["nearest"] == pytest.approx(1, abs=0.08)
    assert honest["copies1"] < 0.03 and 0.01 < honest["copies5"] < 0.1
    assert 0.25 <= caught["copies1"] < 0.29
    assert figures(real, real)["nearest"] == 0


def test_squared_distances_do_not_drown_far_from_the_origin() -> None:
    rows = 1e4 + np.random.default_rng(0).standard_normal((20, 3))
    expected = ((rows[:, None] - rows[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(metrics.squared_distances(rows, rows), expected, atol=1e-9)


def test_every_metric_has_a_row_and_a_figure() -> None:
    real, other = sets(40, 40, 6)
    found = figures(real, other)
    assert set(found) == {name for name, metric in metrics.METRICS.items() if metric.equal_sizes}
    assert all(np.isfinite(value) for value in found.values())
    of_class = metrics.figures(metrics.Pair(metrics.RealSide(real), other), of_class=True)
    assert {name for name, value in of_class.items() if np.isnan(value)} == {"frechet", "vendi"}
