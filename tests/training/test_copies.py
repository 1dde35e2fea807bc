"""Near-copies and coverage."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthforge.training.copies import coverage, memorising, nearest


def test_copies_are_told_from_neighbours() -> None:
    rng = np.random.default_rng(0)
    fitted = torch.from_numpy(rng.normal(128, 40, (300, 64)).astype(np.float32))
    fresh = torch.from_numpy(rng.normal(128, 40, (1000, 64)).astype(np.float32))
    copies = fitted[rng.integers(0, 300, 1000)] + torch.from_numpy(rng.normal(0, 2, (1000, 64)).astype(np.float32))
    honest, copied = memorising(fresh, fitted), memorising(copies, fitted)
    assert honest.near_copies < 0.12
    assert honest.near_copies_real == pytest.approx(0.05, abs=0.01)
    assert copied.near_copies > 0.99
    assert copied.excess > 20
    assert copied.median_distance < 5 < copied.median_distance_real


def test_nearest_agrees_with_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(1)
    rows, others = rng.normal(size=(1500, 12)).astype(np.float32), rng.normal(size=(800, 12)).astype(np.float32)
    expected = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(rows)[0][:, 0]
    assert np.allclose(nearest(torch.from_numpy(rows), torch.from_numpy(others)), expected, atol=1e-3)
    expected = NearestNeighbors(n_neighbors=2).fit(rows).kneighbors(rows)[0][:, 1]
    assert np.allclose(nearest(torch.from_numpy(rows), torch.from_numpy(rows), leave_one_out=True), expected, atol=1e-3)


def test_coverage_of_a_half_is_a_half() -> None:
    rng = np.random.default_rng(2)
    real = torch.from_numpy(np.concatenate([rng.normal(0, 1, (200, 8)), rng.normal(100, 1, (200, 8))]).astype(np.float32))
    generated = torch.from_numpy(rng.normal(0, 1, (2000, 8)).astype(np.float32))
    assert coverage(generated, real) == pytest.approx(0.5, abs=0.03)
    assert coverage(real, real) == 1.0
