"""Greedy rules against their definitions written out in float64, and what every method has to hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from synthforge.curation.selection import methods, spaces
from synthforge.curation.selection.methods import DRIFT, DRIFT_COST, SMOOTHING, Covariance, matching, select
from synthforge.curation.selection.rules import RULES
from synthforge.curation.selection.spaces import Gaussian, Moments, View, means_over, project, variance_of

Array = NDArray[Any]
GREEDY = ("covariance", "mean+covariance", "mmd", "smoothed")
MATCHING = ("covariance", "mean+covariance", "mmd")
each = pytest.mark.parametrize("method", list(RULES))
each_matching = pytest.mark.parametrize("method", MATCHING)


def view(num_pool: int, num_real: int, width: int, seed: int = 0, stretch: float = 1.3, shift: float = 0.3) -> View:
    """A pool beside real images: the same kind of distribution, skewed, stretched and shifted."""
    rng = np.random.default_rng(seed)
    scales = np.linspace(2, 0.5, width)

    def draw(num: int) -> Array:
        return (rng.normal(size=(num, width)) + 0.3 * rng.exponential(size=(num, width))) * scales

    return View((draw(num_pool) * stretch + shift).astype(np.float32), draw(num_real).astype(np.float32))


def pool_of_real(num_pool: int, num_real: int, width: int, seed: int = 0) -> View:
    """A pool of the real distribution itself."""
    return view(num_pool, num_real, width, seed, stretch=1, shift=0)


# The definitions


def projected(given: View, dim: int | None) -> tuple[Array, Array]:
    pool, real = given.pool_ND.astype(np.float64), given.real_MD.astype(np.float64)
    pool, real = pool - real.mean(axis=0), real - real.mean(axis=0)
    if dim is None or dim >= real.shape[1]:
        return pool, real
    _, axes = np.linalg.eigh(np.cov(real.T))
    axes = axes[:, ::-1][:, : min(dim, len(real) - 1)]
    return pool @ axes, real @ axes


def off_diagonal(matrix: Array) -> Array:
    return matrix[~np.eye(len(matrix), dtype=bool)]


def gaussian(one: Array, other: Array, sigma: float) -> Array:
    return np.exp(-((one[:, None] - other[None]) ** 2).sum(axis=2) / (2 * sigma**2))


def median(real: Array) -> float:
    return float(np.median(off_diagonal(np.sqrt(((real[:, None] - real[None]) ** 2).sum(axis=2)))))


def variance(kernel: Callable[[Array, Array], Array], real: Array) -> float:
    matrix = kernel(real, real)
    return float(np.diag(matrix).mean() - off_diagonal(matrix).mean())


def mmd_direct(pool: Array, real: Array) -> Callable[[list[int]], float]:
    sigma = median(real)
    return mmd2_with(lambda one, other: gaussian(one, other, sigma), pool, real)


def moments_direct(pool: Array, real: Array) -> Callable[[list[int]], float]:
    """Not as a kernel: the differences of means and of second moments."""
    linear = variance(lambda one, other: one @ other.T, real)
    squared = variance(lambda one, other: (one @ other.T) ** 2, real)

    def value(rows: list[int]) -> float:
        chosen = pool[rows]
        mean = chosen.mean(axis=0) - real.mean(axis=0)
        second = chosen.T @ chosen / len(chosen) - real.T @ real / len(real)
        return float((mean**2).sum() / linear + (second**2).sum() / squared) / 2  # the variance of the sum of both kernels is 2

    return value


def mmd2_with(kernel: Callable[[Array, Array], Array], pool: Array, real: Array) -> Callable[[list[int]], float]:
    unit = variance(kernel, real)

    def value(rows: list[int]) -> float:
        chosen = pool[rows]
        return float(kernel(chosen, chosen).mean() - 2 * kernel(chosen, real).mean() + kernel(real, real).mean()) / unit

    return value


def smoothed_direct(pool: Array, real: Array) -> Callable[[list[int]], float]:
    """Kernel means under Gaussian noise by determinant and inverse of the covariances' sum."""
    sigma = median(real)
    noise = SMOOTHING**2 * np.diag((real**2).mean(axis=0))
    unit = variance(lambda one, other: gaussian(one, other, sigma), real)

    def mean_kernel(one: Array, other: Array, noises: int) -> float:
        total = sigma**2 * np.eye(real.shape[1]) + noises * noise
        apart = one[:, None] - other[None]
        exponent = np.einsum("nmi,ij,nmj->nm", apart, np.linalg.inv(total), apart)
        return float(np.exp(-exponent / 2).mean() * np.sqrt(sigma ** (2 * real.shape[1]) / np.linalg.det(total)))

    def value(rows: list[int]) -> float:
        union = np.concatenate([real, pool[rows]])
        return (mean_kernel(union, union, 0) - 2 * mean_kernel(union, real, 1) + mean_kernel(real, real, 2)) / unit

    return value


def covariance_direct(pool: Array, real: Array) -> Callable[[list[int]], float]:
    unit = variance(lambda one, other: (one @ other.T) ** 2, real)
    return lambda rows: float(((np.cov(pool[rows].T) - np.cov(real.T)) ** 2).sum()) / unit if len(rows) > 1 else np.nan


def drift_cost(pool: Array, real: Array) -> Callable[[list[int]], float]:
    spread = float(np.cov(real.T).trace())

    def cost(rows: list[int]) -> float:
        drift = float((pool[rows].mean(axis=0) ** 2).sum())
        if len(rows) == 1:
            return drift / spread
        bound = max(DRIFT * spread * (1 / len(rows) + 1 / len(real)), float((pool.mean(axis=0) ** 2).sum()))
        return DRIFT_COST * max(0.0, drift / bound - 1)

    return cost


DIRECT = {"mmd": mmd_direct, "mean+covariance": moments_direct, "smoothed": smoothed_direct, "covariance": covariance_direct}
ONE_VIEW = [view(60, 25, 6)]
TWO_VIEWS = [view(60, 25, 6), view(60, 31, 4, seed=1)]


@pytest.mark.parametrize("method", GREEDY)
@pytest.mark.parametrize("dim", [None, 3])
@pytest.mark.parametrize("views", [ONE_VIEW, TWO_VIEWS], ids=["one view", "two views"])
def test_greedy_is_its_definition(method: str, dim: int | None, views: list[View]) -> None:
    picked = select(method, views, 40, seed=0, dim=dim, stop_at_floor=False)
    spaces = [projected(given, dim) for given in views]
    objectives = [DIRECT[method](*space) for space in spaces]
    costs = [drift_cost(*space) for space in spaces] if method == "covariance" else []

    def judged(rows: list[int]) -> float:
        return float(np.nansum([objective(rows) for objective in objectives])) + sum(cost(rows) for cost in costs)

    chosen: list[int] = []
    for turn, index in enumerate(picked.indices.tolist()):
        values = {row: judged([*chosen, row]) for row in range(60) if row not in chosen}
        assert values[index] <= min(values.values()) + 2e-6, f"pick {turn}"
        chosen.append(index)
        np.testing.assert_allclose(picked.objective[turn], sum(objective(chosen) for objective in objectives), rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("views", [ONE_VIEW, TWO_VIEWS], ids=["one view", "two views"])
def test_novel_is_its_definition(views: list[View]) -> None:
    picked = select("novel", views, 40, seed=0, dim=None)
    away = np.zeros((len(views), 60))
    spaces = [projected(given, None) for given in views]
    spreads = np.array([[np.cov(real.T).trace()] for _, real in spaces])
    for number, (pool, real) in enumerate(spaces):
        away[number] = ((pool[:, None] - real[None]) ** 2).sum(axis=2).min(axis=1)
    for index, radius in zip(picked.indices, picked.objective, strict=True):
        score = (away / spreads).sum(axis=0)
        assert score[index] >= score.max() - 1e-5
        for number, (pool, _) in enumerate(spaces):
            away[number] = np.minimum(away[number], ((pool - pool[index]) ** 2).sum(axis=1))
        np.testing.assert_allclose(radius, (away / spreads).sum(axis=0).max(), rtol=1e-4, atol=1e-5)


def test_nearest_is_its_definition() -> None:
    given = view(300, 20, 3)
    picked = select("nearest", [given], 100, seed=4, dim=None).indices
    squared = ((given.pool_ND[:, None].astype(np.float64) - given.real_MD[None]) ** 2).sum(axis=2)
    order = np.random.Generator(np.random.Philox(key=4)).permutation(20)
    for turn, index in enumerate(picked):
        mine = squared[:, order[turn % 20]].copy()
        mine[picked[:turn]] = np.inf
        assert index == mine.argmin()


def test_nearest_serves_the_real_images_of_all_views() -> None:
    pool = np.array([[0.0], [1], [2], [3], [50], [51]], np.float32)
    views = [View(pool, np.array([[0.0], [50]], np.float32)), View(pool, np.array([[2.0], [3.1]], np.float32))]
    assert set(select("nearest", views, 4, seed=0, dim=None).indices) == {0, 4, 2, 3}


def test_center_is_its_definition() -> None:
    given = view(50, 20, 4)
    distance = ((given.pool_ND - given.real_MD.mean(axis=0)) ** 2).sum(axis=1)
    np.testing.assert_array_equal(select("center", [given], 50, seed=0, dim=None).indices, np.argsort(distance))


def test_ties_at_one_distance_go_to_the_lowest() -> None:
    pool = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]], np.float32)
    real = np.array([[3.0, 0], [-3, 0], [0, 3], [0, -3]], np.float32)
    for method in ("center", "covariance", "mean+covariance", "mmd", "smoothed", "novel"):
        assert select(method, [View(pool, real)], 1, seed=0, dim=None).indices[0] == 0, method


def test_clusters_takes_evenly_from_those_near_real_images() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [40, 0], [0, 40], [40, 40]], np.float32)
    pool = (centres[np.repeat([0, 1, 2, 3], [300, 60, 30, 30])] + rng.normal(size=(420, 2)) * 0.1).astype(np.float32)
    real = (centres[np.repeat([0, 1], [4, 20])] + rng.normal(size=(24, 2)) * 0.1).astype(np.float32)
    picked = select("clusters", [View(pool, real)], 420, seed=0).indices
    near = np.isin(picked, np.arange(360))
    assert near[:60].all(), "only clusters with a real image, while they last"
    assert (picked[:60] < 300).any() and ((picked[:60] >= 300) & (picked[:60] < 360)).any()


# What every method holds


@each
@pytest.mark.parametrize("stop", [False, True])
def test_a_prefix_is_a_smaller_selection_and_all_can_be_kept(method: str, stop: bool) -> None:
    views = [view(90, 20, 5), view(90, 12, 7, seed=1)]
    whole = select(method, views, 90, seed=3, dim=4, stop_at_floor=stop)
    assert sorted(whole.indices) == list(range(90))
    for num_keep in (1, 17, 60):
        part = select(method, views, num_keep, seed=3, dim=4, stop_at_floor=stop)
        assert part.indices.dtype == np.int64 and part.objective.dtype == part.floor.dtype == np.float64
        for name in ("indices", "objective", "floor"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[:num_keep])


@each
def test_equal_images_are_taken_lowest_first(method: str) -> None:
    one = view(37, 20, 5)
    threefold = np.concatenate([one.pool_ND] * 3)
    picked = select(method, [View(threefold, one.real_MD)], 111, seed=0, stop_at_floor=False).indices
    place = np.argsort(picked)
    if method not in {"random", "clusters"}:
        assert (place[:37] < place[37:74]).all() and (place[37:74] < place[74:]).all()


@pytest.mark.parametrize("method", ["mmd", "mean+covariance", "novel"])
def test_a_copy_of_a_picked_image_waits_for_better_ones(method: str) -> None:
    rng = np.random.default_rng(0)
    once = np.array([[5.0, 0], [-5, 0], [0, 5], [0, -5]], np.float32)
    real = np.concatenate([once] * 5) + rng.normal(size=(20, 2)).astype(np.float32) * 0.1
    picked = select(method, [View(np.repeat(once, 4, axis=0), real)], 16, seed=0, dim=None, stop_at_floor=False).indices
    assert set(picked[:4] // 4) == {0, 1, 2, 3}
    assert set(picked[:4] % 4) == {0}


@each
def test_blocks_and_storage_change_nothing(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    pool, real = rng.normal(size=(150, 9)).astype(np.float16), rng.normal(size=(40, 9)).astype(np.float16)
    plain = select(method, [View(pool.astype(np.float32), real.astype(np.float32))], 60, seed=0, dim=5)
    stored = np.memmap(tmp_path / "pool", np.float16, "w+", shape=pool.shape)
    stored[:] = pool
    monkeypatch.setattr(spaces, "BLOCK", 333)
    other = select(method, [View(stored, real)], 60, seed=0, dim=5)
    np.testing.assert_array_equal(plain.indices, other.indices)
    np.testing.assert_allclose(plain.objective, other.objective, rtol=1e-4, atol=1e-6)


@each
@pytest.mark.parametrize(
    "case", ["one real image", "equal real images", "one pool image", "equal pool images", "more features than images"]
)
def test_small_and_flat_sets(method: str, case: str) -> None:
    rng = np.random.default_rng(0)
    pool, real = rng.normal(size=(30, 6)).astype(np.float32), rng.normal(size=(8, 6)).astype(np.float32)
    if case == "one real image":
        real = real[:1]
    elif case == "equal real images":
        real = np.repeat(real[:1], 5, axis=0)
    elif case == "one pool image":
        pool = pool[:1]
    elif case == "equal pool images":
        pool = np.repeat(pool[:1], 30, axis=0)
    else:
        pool, real = rng.normal(size=(30, 600)).astype(np.float32), rng.normal(size=(8, 600)).astype(np.float32)
    picked = select(method, [View(pool, real)], len(pool), seed=0)
    assert sorted(picked.indices) == list(range(len(pool)))
    if case == "equal pool images" and method not in {"random", "clusters"} and not picked.num_at_floor:
        np.testing.assert_array_equal(picked.indices, np.arange(30))


@each
def test_equal_seed_gives_equal_picks(method: str) -> None:
    given = [pool_of_real(200, 50, 6)]
    first, again, other = (select(method, given, 100, seed=seed).indices for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    if method in {"random", "nearest", "clusters"}:
        assert (first != other).any()


# What they are for


@each_matching
def test_planted_real_images_are_found(method: str) -> None:
    rng = np.random.default_rng(0)
    real = view(1, 40, 5).real_MD
    junk = (rng.normal(size=(400, 5)) * 0.3 + np.array([12, 0, 0, 0, 0])).astype(np.float32)
    order = rng.permutation(440)
    pool = np.concatenate([real, junk])[order]
    picked = select(method, [View(pool, real)], 40, seed=0, dim=None, stop_at_floor=False)
    assert (order[picked.indices] < 40).all()
    assert picked.objective[-1] < 1e-6


@pytest.mark.parametrize("method", MATCHING)
def test_large_norms_are_not_favoured(method: str) -> None:
    given = pool_of_real(2000, 200, 8)
    given.pool_ND[::20] *= 6
    picked = select(method, [given], 200, seed=0, stop_at_floor=False).indices
    assert (picked % 20 == 0).sum() <= 2


@each_matching
@pytest.mark.parametrize("seed", range(3))
def test_a_selection_of_real_images_ends_near_the_floor(method: str, seed: int) -> None:
    views = [pool_of_real(3000, 150, 10, seed)]
    stopped = select(method, views, 300, seed=seed)
    free = select(method, views, 300, seed=seed, stop_at_floor=False)
    # Random picks from a set at the floor may well take it lower: the floor is a mean over references.
    assert 0.4 < stopped.objective[-1] / stopped.floor[-1] < 1.1
    assert free.objective[-1] < 0.03 * free.floor[-1]
    assert stopped.num_at_floor == (stopped.objective[:-1] <= stopped.floor[:-1]).sum() > 50
    assert free.num_at_floor == 0


@each_matching
def test_at_the_floor_the_next_pick_is_the_next_of_the_permutation(method: str) -> None:
    views = [pool_of_real(500, 100, 6), pool_of_real(500, 80, 4, seed=1)]
    picked = select(method, views, 200, seed=7)
    order = [int(index) for index in np.random.Generator(np.random.Philox(key=7)).permutation(500)]
    taken: set[int] = set()
    for turn, index in enumerate(picked.indices.tolist()):
        if turn and picked.objective[turn - 1] <= picked.floor[turn - 1]:
            assert index == next(row for row in order if row not in taken)
        taken.add(index)


def test_a_far_pool_is_matched_as_well_as_it_can_be() -> None:
    views = [view(3000, 150, 6, stretch=1.5, shift=1.0)]
    random = np.random.default_rng(0).permutation(3000)[:150].tolist()
    pool, real = projected(views[0], None)
    for method, direct in (("mmd", mmd_direct), ("mean+covariance", moments_direct), ("covariance", covariance_direct)):
        picked = select(method, views, 150, seed=0, dim=None)
        assert picked.objective[-1] < 0.2 * direct(pool, real)(random), method


def test_the_mean_stays_in_bounds_under_covariance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 4)).astype(np.float32)
    pool = np.concatenate([rng.normal(size=(1000, 4)) * 0.5, rng.normal(size=(1000, 4)) + np.array([4, 0, 0, 0])]).astype(np.float32)
    pool[:1000] -= pool.mean(axis=0)

    def drift() -> float:
        picked = select("covariance", [View(pool, real)], 150, seed=0, dim=None, stop_at_floor=False).indices
        return float(((pool[picked].mean(axis=0) - real.mean(axis=0)) ** 2).sum())

    bound = max(DRIFT * 4 * (1 / 150 + 1 / 200), float(((pool.mean(axis=0) - real.mean(axis=0)) ** 2).sum()))
    assert drift() < bound * 1.1
    monkeypatch.setattr(methods, "DRIFT_COST", 0.0)
    assert drift() > bound * 2, "else the bound was not what held it"


@pytest.mark.parametrize("skewed", [False, True])
def test_the_floor_is_what_a_very_large_real_set_has(skewed: bool) -> None:
    """The mean over references of the distance to 1,500 other real images."""
    rng = np.random.default_rng(0)

    def draw(num: int) -> Array:
        rows = rng.gamma(3, size=(num, 5)) / 3**0.5 if skewed else rng.normal(size=(num, 5))
        return (rows * np.linspace(1.5, 0.5, 5)).astype(np.float32)

    found: dict[str, list[tuple[float, float]]] = {"mmd": [], "moments": [], "covariance": []}
    for _ in range(120):
        space = project(View(draw(1500), draw(50)), None, "cpu")
        for name, kernel in (("mmd", Gaussian.for_space(space)), ("moments", Moments.for_space(space))):
            pairs = ((space.pool, space.pool), (space.pool, space.real), (space.real, space.real))
            within, across, real = (float(means_over(kernel, one, other).mean()) for one, other in pairs)
            found[name].append((within - 2 * across + real, matching(kernel, space).floor(1500) * variance_of(kernel, space.typical)))
        covariance = Covariance(space)
        away = np.cov(space.pool.features_ND.T) - np.cov(space.real.features_ND.T)
        found["covariance"].append((float((away**2).sum()), covariance.floor(1500) * covariance._variance))
    means = {name: np.mean(values, axis=0) for name, values in found.items()}
    assert all(0.85 < value / floor < 1.2 for value, floor in means.values()), means


def test_smoothing_has_the_closed_form_of_its_definition() -> None:
    """Against noise that is really drawn."""
    rng = np.random.default_rng(0)
    given = view(4, 30, 3)
    pool, real = projected(given, None)
    space = project(given, None, "cpu")
    herding = methods.matching_smoothed(space)
    noisy = np.concatenate([real + rng.normal(size=real.shape) * real.std(axis=0) * SMOOTHING for _ in range(2000)])
    drawn = gaussian(pool, noisy, median(real)).mean(axis=1)
    np.testing.assert_allclose(herding._target_N, drawn, rtol=0.01)
    assert all(np.isnan(select("smoothed", [given], 4, seed=0).floor))


def test_smoothed_brings_what_is_not_there_yet() -> None:
    pool, real = view(2000, 100, 4, stretch=1.5, shift=0).pool_ND, view(2000, 100, 4).real_MD
    spread = {
        method: float(pool[select(method, [View(pool, real)], 100, seed=0, dim=None, stop_at_floor=False).indices].var(axis=0).sum())
        for method in ("mmd", "smoothed", "novel")
    }
    assert spread["mmd"] < spread["smoothed"] < spread["novel"]


def test_views_count_alike_whatever_their_scale() -> None:
    def picks(scale: float) -> Sequence[int]:
        one, other = view(200, 40, 5), view(200, 40, 5, seed=1)
        return [
            int(row)
            for method in MATCHING
            for row in select(
                method, [one, View(other.pool_ND * scale, other.real_MD * scale)], 30, seed=0, dim=None, stop_at_floor=False
            ).indices
        ]

    assert picks(1.0) == picks(64.0)


def test_nothing_of_the_size_of_all_pairs_is_held() -> None:
    """20,000 squared in float32 would be 1.6 GB."""
    given = pool_of_real(20_000, 500, 16)
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        select("mmd", [given], 5, seed=0)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert largest < 100e6
