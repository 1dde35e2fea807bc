"""Feature spaces and kernels against their definitions written out in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthforge.curation.selection.spaces import Gaussian, Kernel, Moments, Rows, View, first_duplicates, means_over, project, variance_of


def rows_of(num: int, width: int = 4, seed: int = 0) -> Rows:
    return Rows.of(torch.from_numpy(np.random.default_rng(seed).normal(size=(num, width)).astype(np.float32)))


@pytest.mark.parametrize("num_real", [6, 60])
def test_a_projection_is_centred_on_the_real_mean_and_keeps_its_largest_axes(num_real: int) -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(num_real, 8)) * np.linspace(3, 0.3, 8) + 5
    space = project(View(rng.normal(size=(20, 8)), real), 3, "cpu")
    np.testing.assert_allclose(space.real.features_ND.mean(dim=0), 0, atol=1e-5)
    largest = np.linalg.eigvalsh(np.cov(real.T, bias=True))[::-1][:3]
    np.testing.assert_allclose(space.variances, largest, rtol=1e-4)
    assert space.knows_floor and space.pool.features_ND.shape == (20, 3)


def test_without_spread_among_real_images_the_pool_sets_the_scale() -> None:
    pool = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    space = project(View(pool, np.ones((1, 3), np.float32)), None, "cpu")
    assert not space.knows_floor and len(space.typical) == 50
    np.testing.assert_allclose(space.pool.features_ND, pool - 1, atol=1e-6)


@pytest.mark.parametrize("kernel", [Gaussian(1.7), Moments(0.5, 0.25)])
def test_kernels_are_their_formulas(kernel: Kernel) -> None:
    one, other = rows_of(7), rows_of(5, seed=1)
    x, y = one.features_ND.double().numpy(), other.features_ND.double().numpy()
    squared, products = ((x[:, None] - y[None]) ** 2).sum(axis=2), x @ y.T
    expected = np.exp(-squared / (2 * 1.7**2)) if isinstance(kernel, Gaussian) else 0.5 * products + 0.25 * products**2
    np.testing.assert_allclose(kernel(one, other), expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(kernel.itself(one), np.diag(kernel(one, one)), rtol=1e-4)
    np.testing.assert_allclose(means_over(kernel, one, other), expected.mean(axis=1), rtol=1e-4, atol=1e-6)


def test_the_variance_of_the_linear_kernel_is_that_of_the_features() -> None:
    rows = rows_of(40)
    assert variance_of(Moments(1, 0), rows) == pytest.approx(float(rows.features_ND.double().var(dim=0).sum()), rel=1e-5)
    assert variance_of(Gaussian(1.0), rows_of(1)) == 1.0


def test_evenly_spaced_rows_begin_and_end_with_the_first_and_the_last() -> None:
    rows = rows_of(101)
    few = rows.evenly(3)
    assert torch.equal(few.features_ND, rows.features_ND[[0, 50, 100]]) and len(rows.evenly(500)) == 101


def test_equal_only_in_one_view_is_not_equal() -> None:
    twins = first_duplicates(
        [View(np.zeros((4, 3), np.float32), np.zeros((1, 3))), View(np.float32([[0.0], [1], [-0.0], [1]]), np.zeros((1, 1)))]
    )
    np.testing.assert_array_equal(twins, [0, 1, 0, 1])
