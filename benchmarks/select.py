"""How near greedy selection comes to the matrix-vector products that it can't do without, and how it grows with the
pool."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import torch
from goodpoints.compress import compresspp_kt
from numpy.typing import NDArray

from benchmarks.harness import keep, seconds, spread
from synthforge.curation.gap.metrics import gaussian_kernel, median_sigma
from synthforge.curation.selection import methods
from synthforge.curation.selection.methods import greedily, matching, select
from synthforge.curation.selection.rules import Problem
from synthforge.curation.selection.spaces import Gaussian, View, first_duplicates, project

POOL, KEEP, DIM, REAL, RUNS = 50_000, 5_000, 64, 1_000, 3
SIZES, FEW = (50_000, 200_000, 1_000_000), 50
PRODUCTS = {"mmd": 1, "mean+covariance": 1, "covariance": 2}
"""Products of the whole pool with a vector, per pick."""

Array = NDArray[Any]


def main() -> None:
    keep(
        "select",
        "a greedy pick takes about twice as long as its bare products of the pool with a vector, and grows with the pool as these do",
        {
            "threads": torch.get_num_threads(),
            f"{KEEP:,} of {POOL:,} at {DIM} features": {method: _against_products(method) for method in PRODUCTS},
            f"mmd, {DIM} features, by pool size": _by_size(),
            "beside goodpoints (compress++ kernel thinning of a pool to itself)": {f"{num:,}": _thinning(num) for num in (4096, 16_384)},
            "beside the covariance loop as published": _naive_covariance(),
        },
    )


def _view(num_pool: int, num_real: int, width: int) -> View:
    rng = np.random.default_rng(0)
    scales = np.linspace(2, 0.2, width, dtype=np.float32)
    return View(
        rng.standard_normal((num_pool, width), np.float32) * scales * 1.3, rng.standard_normal((num_real, width), np.float32) * scales
    )


def _against_products(method: str) -> dict[str, Any]:
    """Each run beside as many bare products, and matrix products of the same machine for comparison."""
    view = _view(POOL, REAL, DIM)
    pool_ND = torch.from_numpy(view.pool_ND)
    vector_D, matrix_DK = torch.randn(DIM), torch.randn(DIM, 512)
    products = KEEP * PRODUCTS[method]

    def bare() -> None:
        for _ in range(products):
            torch.mv(pool_ND, vector_D)

    def select_all() -> None:
        select(method, [view], KEEP, seed=0, dim=None, stop_at_floor=False)

    taken, shares, rates, dense = [], [], [], []
    for _ in range(RUNS):
        taken.append(seconds(select_all))
        shares.append(seconds(bare) / taken[-1])
        rates.append(products * POOL * DIM / taken[-1] / 1e9)
        dense.append(10 * POOL * DIM * 512 / seconds(lambda: [pool_ND @ matrix_DK for _ in range(10)]) / 1e9)
    return {
        "seconds": spread(taken),
        "10^9 multiply-adds per second": spread(rates),
        "share of bare matrix-vector products": spread(shares),
        "10^9 multiply-adds per second of a matrix product": spread(dense),
        "share of that": spread([rate / most for rate, most in zip(rates, dense, strict=True)]),
    }


def _by_size() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for num in SIZES:
        began = time.perf_counter()
        views = [_view(num, 200, DIM)]
        with torch.inference_mode():
            space = project(views[0], None, "cpu")
            problem = Problem([space], first_duplicates(views), FEW, 0, False)
            herding = matching(Gaussian.for_space(space), space)
            ready = time.perf_counter() - began
            greedily(problem, [herding])
            taken = [seconds(lambda: greedily(problem, [herding])) / FEW for _ in range(RUNS)]  # noqa: B023
        products = [seconds(lambda: torch.mv(space.pool.features_ND, space.pool.features_ND[0])) for _ in range(FEW)]  # noqa: B023
        found[f"{num:,}"] = {
            "milliseconds of a bare product": spread([1e3 * each for each in products]),
            "milliseconds per pick": spread([1e3 * each for each in taken]),
            "nanoseconds per pick and image": spread([1e9 * each / num for each in taken]),
            "seconds before the first pick": round(ready, 2),
        }
    return found


def _thinning(num: int) -> dict[str, Any]:
    """Both choose √n of n rows to stand for all n; the squared distance is Gaussian MMD² with the same width, computed
    directly."""
    pool = _view(num, 1, DIM).pool_ND
    sigma, few = median_sigma(pool), int(num**0.5)
    wide = pool.astype(np.float64)
    methods: dict[str, Callable[[int], Array]] = {
        "select mmd": lambda seed: select("mmd", [View(pool, pool)], few, seed=seed, dim=None, stop_at_floor=False).indices,
        "goodpoints": lambda seed: np.asarray(compresspp_kt(wide, b"gaussian", k_params=np.array([2 * sigma**2]), g=4, seed=seed)),
        "random": lambda seed: np.random.default_rng(seed).permutation(num)[:few],
    }
    own = np.mean([gaussian_kernel(pool[at : at + 1024], pool, sigma).mean() for at in range(0, num, 1024)])
    found: dict[str, Any] = {}
    for name, method in methods.items():
        times, distances = [], []
        for seed in range(RUNS):
            began = time.perf_counter()
            rows = method(seed)
            times.append(time.perf_counter() - began)
            assert len(rows) == few
            chosen = pool[rows]
            within, across = gaussian_kernel(chosen, chosen, sigma).mean(), gaussian_kernel(chosen, pool, sigma).mean()
            distances.append(1e3 * float(within - 2 * across + own))
        found[name] = {"seconds": spread(times), "1,000 MMD²": spread(distances)}
    return found


def _naive_covariance() -> dict[str, Any]:
    """The covariance of every candidate set anew; the first image is ours, which the published rule leaves open."""
    num_keep, width = 40, 32
    view = _view(2000, 200, width)
    pool, target = view.pool_ND.astype(np.float64), np.cov(view.real_MD.T.astype(np.float64))

    def ours() -> Array:
        return select("covariance", [view], num_keep, seed=0, dim=None, stop_at_floor=False).indices

    def naive() -> list[int]:
        chosen = [int(ours()[0])]
        while len(chosen) < num_keep:
            left = [row for row in range(len(pool)) if row not in chosen]
            chosen.append(min(left, key=lambda row: float(np.linalg.norm(np.cov(pool[[*chosen, row]].T) - target))))
        return chosen

    with mock.patch.object(methods, "DRIFT_COST", 0.0):
        num_equal = int((ours() == np.array(naive())).sum())
    times = {"ours": [seconds(ours) for _ in range(RUNS)], "as published": [seconds(naive) for _ in range(RUNS)]}
    return {
        f"{num_keep} of {len(pool):,} at {width} features, seconds": {name: spread(values) for name, values in times.items()},
        "times faster": spread([slow / fast for fast, slow in zip(times["ours"], times["as published"], strict=True)]),
        "equal picks, without our bound on the mean": num_equal,
    }
