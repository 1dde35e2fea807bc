"""Selection rules: choose a set of images from a pool that matches the real images. One class at a time, in one or more
views.

A rule is a pure function from a `Problem` to rows in the order of picking, so a prefix is a smaller selection. The
greedy rules pick at each step the candidate that gives the lowest objective. This is exact, and takes one pass over the
candidates per pick.

- Kernel herding (Welling 2009; Chen, Welling, Smola 2010) with the self term k(x, x). So the objective is MMD² itself,
  and large norms are not favoured. The linear plus squared kernel matches mean and covariance; the Gaussian kernel
  matches the whole distribution.
- Covariance matching (Rezaei, Kovačević, Locatello, Mondelli 2026, arXiv 2510.08123), by rank-one updates and with a
  bound on the mean.

The objective is the sum over views of squared distances, each in units of its kernel's variance. That is the mean
squared distance of one real image from their mean.

The *floor* is the objective of an endless set of real images. It differs from the reference only by the reference's own
noise. For a kernel of variance V and M real images it is V / M. (A random real set of t images would reach V (1/t +
1/M): it has noise of its own, which selection can avoid.) For covariances it follows from the variance of a sample
covariance. A set below the floor follows the noise of the reference. With `stop_at_floor` the next image is then a
random one.

Not covered: weights (importance.py), joint selection over classes, tests of single images (gates.py).
Shapes: N pool images, M real images, D features, d projected features.
"""

from __future__ import annotations

import functools
import math
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from synthforge.arrays import Ints
from synthforge.curation.selection import spaces
from synthforge.curation.selection.rules import RULES, Picked, Problem, SelectionRule
from synthforge.curation.selection.spaces import Gaussian, Kernel, Moments, Rows, Space, View, blocks, means_over, variance_of

DRIFT = 2.0
"""`covariance`: largest distance of the set's mean from the real mean, in floors; larger if the pool's own mean is
farther."""
DRIFT_COST = 1e3
"""`covariance`: cost of each further such distance, in units of the objective."""
SMOOTHING = 0.5
"""`smoothed`: standard deviation of the Gaussian in each feature, relative to that of the real images."""
CLUSTERS, CLUSTER_SIZE = 200, 10
"""`clusters`: largest number of clusters, and fewest pool images per cluster on average."""


# Objectives of the greedy rules


class Objective(Protocol):
    """A function of the images picked so far, in one view."""

    def candidates(self) -> Tensor:
        """The value after adding each of the N images, up to a constant, float64 (N,); inf for images already
        picked."""

    def add(self, index: int) -> float:
        """Pick an image, and return the value with it."""

    def floor(self, size: int) -> float:
        """The mean value of an endless real set, for comparison with a set of this size; nan if unknown."""


class Herding:
    """MMD² between a set and a target, in units of the kernel's variance.

    Args:
        target_N: mean kernel of each pool image with the target, float64.
        target_squared: mean kernel of the target with itself.
        fixed: images that belong to the set from the start.
        fixed_target: mean kernel of these images with the target.
    """

    def __init__(
        self, kernel: Kernel, space: Space, target_N: Tensor, target_squared: float, *, fixed: Rows | None = None, fixed_target: float = 0.0
    ) -> None:
        self._kernel, self._pool, self._num_real = kernel, space.pool, len(space.real)
        self._variance = variance_of(kernel, space.typical)
        self._knows_floor = space.knows_floor and fixed is None
        self._target_N, self._target_squared = target_N, target_squared
        self._size = 0 if fixed is None else len(fixed)
        # What a candidate adds apart from its target: its kernel sums with the set, and half of k(x, x).
        self._adds_N = kernel.itself(space.pool) / 2
        if fixed is not None:
            self._adds_N += means_over(kernel, space.pool, fixed) * len(fixed)
        self._sum_of_sums = 0.0 if fixed is None else float(means_over(kernel, fixed, fixed).sum()) * len(fixed)
        self._sum_of_targets = fixed_target * self._size

    def candidates(self) -> Tensor:
        size = self._size + 1
        return torch.add(self._adds_N, self._target_N, alpha=-size).mul_(2 / (size**2 * self._variance))

    def add(self, index: int) -> float:
        self._size += 1
        self._sum_of_sums += 2 * float(self._adds_N[index])
        self._sum_of_targets += float(self._target_N[index])
        self._adds_N += self._kernel(self._pool, self._pool.part(slice(index, index + 1)))[:, 0]
        self._adds_N[index] = torch.inf
        mmd2 = self._sum_of_sums / self._size**2 - 2 * self._sum_of_targets / self._size + self._target_squared
        return mmd2 / self._variance

    def floor(self, size: int) -> float:  # noqa: ARG002 - the same for every size
        return 1 / self._num_real if self._knows_floor else math.nan


def matching(kernel: Kernel, space: Space) -> Herding:
    """The objective of matching the real images."""
    return Herding(kernel, space, means_over(kernel, space.pool, space.real), float(means_over(kernel, space.real, space.real).mean()))


def matching_smoothed(space: Space) -> Herding:
    """The objective of matching real and picked images together to the real images convolved with a Gaussian.

    The mean of the kernel over that Gaussian is again a Gaussian: each feature shrinks by σ / √(σ² + s²), and the
    kernel by the product of these factors. In cross-fitted views, the real images are those of the view.
    """
    kernel = Gaussian.for_space(space)

    def smoothed_mean(one: Rows, noises: int) -> Tensor:
        shrink_D = (1 + space.variances * (noises * SMOOTHING**2 / kernel.sigma**2)).rsqrt()
        narrow, real = (Rows.of(rows.features_ND * shrink_D.float()) for rows in (one, space.real))
        return means_over(kernel, narrow, real) * float(shrink_D.prod())

    real_target, squared = float(smoothed_mean(space.real, 1).mean()), float(smoothed_mean(space.real, 2).mean())
    return Herding(kernel, space, smoothed_mean(space.pool, 1), squared, fixed=space.real, fixed_target=real_target)


class Covariance:
    """|cov(S) - C|² to the real covariance C (squared Frobenius norm), in units of the variance of the kernel (x·y)².

    cov(S) is about the set's own mean, over n - 1. One image has none, so the first pick is the image nearest to the
    real mean. With n images of mean m and scatter W, u = x - m, A = W/n - C:

    |cov(S + x) - C|² = |A|² + 2 uᵀAu / (n+1) + |u|⁴ / (n+1)².

    xᵀWx is updated for every candidate by (x·u)² per pick. This objective does not fix the mean. So a candidate costs
    more if it takes the mean farther than `DRIFT` floors, or than the pool's own mean if that is farther.
    """

    def __init__(self, space: Space) -> None:
        self._pool, self._num_real = space.pool.features_ND, len(space.real)
        self._squares_N = space.pool.squares_N.double()
        typical = space.typical.features_ND.double()
        self._real_DD = torch.cov(typical.T).reshape(typical.shape[1], -1) if space.knows_floor else self._zeros(2)
        self._variance, self._spread = variance_of(Moments(0, 1), space.typical), space.spread
        self._pool_drift = float(self._pool.mean(dim=0, dtype=torch.float64).square().sum())
        self._knows_floor = space.knows_floor
        # tr(C)² + |C|²: variance of a Gaussian's sample covariance. |C|² is unbiased, from pairs of different images.
        size = len(space.typical)
        squared = float(means_over(Moments(0, 1), space.typical, space.typical).mean())
        squared = (squared - float(space.typical.squares_N.double().square().mean()) / size) * size / max(size - 1, 1)
        self._gaussian = float(self._real_DD.trace()) ** 2 + squared
        self._size = 0
        self._mean_D, self._scatter_DD = self._zeros(1), self._zeros(2)
        self._in_real_N = self._quadratic(self._real_DD)
        self._in_scatter_N = torch.zeros_like(self._squares_N)
        self._on_mean_N = torch.zeros_like(self._squares_N)

    def _zeros(self, axes: int) -> Tensor:
        return torch.zeros([self._pool.shape[1]] * axes, dtype=torch.float64, device=self._pool.device)

    def _quadratic(self, matrix_DD: Tensor) -> Tensor:
        """xᵀ matrix x for every image, float64 (N,); in blocks."""
        parts = (self._pool[block].double() for block in blocks(*self._pool.shape))
        return torch.cat([((part @ matrix_DD) * part).sum(dim=1) for part in parts])

    def _on(self, vector_D: Tensor) -> Tensor:
        """x·vector for every image, float32 (N,)."""
        return self._pool @ vector_D.float()

    def candidates(self) -> Tensor:
        share = 1 / (self._size + 1)
        mean_squared = float(self._mean_D.square().sum())
        drift_N = torch.add(self._squares_N, self._on_mean_N, alpha=2 * self._size)
        drift_N.add_(mean_squared * self._size**2).mul_(share**2)
        if self._size == 0:
            return drift_N.div_(self._spread).add_(self._in_scatter_N)
        off_mean_D = (self._scatter_DD / self._size - self._real_DD) @ self._mean_D
        values_N = torch.div(self._in_scatter_N, self._size).sub_(self._in_real_N).sub_(self._on(off_mean_D), alpha=2)
        values_N.add_(float(off_mean_D @ self._mean_D)).mul_(2 * share)
        norms_N = torch.add(self._squares_N, self._on_mean_N, alpha=-2).add_(mean_squared)
        values_N.addcmul_(norms_N, norms_N, value=share**2).div_(self._variance)
        bound = max(DRIFT * self._spread * (share + 1 / self._num_real), self._pool_drift)
        return values_N.add_(drift_N.div_(bound).sub_(1).clamp_(min=0), alpha=DRIFT_COST)

    def add(self, index: int) -> float:
        away_D = self._pool[index].double() - self._mean_D
        self._size += 1
        kept = (self._size - 1) / self._size
        self._mean_D = self._mean_D + away_D / self._size
        self._scatter_DD += kept * torch.outer(away_D, away_D)
        on_away_N = self._on(away_D)
        self._on_mean_N.add_(on_away_N, alpha=1 / self._size)
        self._in_scatter_N.addcmul_(on_away_N, on_away_N, value=kept)
        self._in_scatter_N[index] = torch.inf
        if self._size == 1:
            return math.nan
        off_DD = self._scatter_DD / (self._size - 1) - self._real_DD
        return float(off_DD.square().sum()) / self._variance

    def floor(self, size: int) -> float:
        if not self._knows_floor or size < 2:
            return math.nan
        more = self._variance - self._gaussian
        return (more / self._num_real + self._gaussian / (self._num_real - 1)) / self._variance


# Rules


class Remaining:
    """The images of the pool that are not picked yet. Of images with equal features, the one with the lowest row is
    picked first."""

    def __init__(self, duplicate_of_N: Ints) -> None:
        self._duplicate_of_N = duplicate_of_N
        self.is_left_N = np.ones(len(duplicate_of_N), np.bool_)
        self._groups: dict[int, deque[int]] = {}
        for index in np.flatnonzero(np.bincount(duplicate_of_N)[duplicate_of_N] > 1).tolist():
            self._groups.setdefault(int(duplicate_of_N[index]), deque()).append(index)

    def take(self, index: int) -> int:
        """Pick an image, or the one with the lowest row among those left with equal features; returns its row."""
        group = self._groups.get(int(self._duplicate_of_N[index]))
        while group and not self.is_left_N[group[0]]:
            group.popleft()
        return self.take_exactly(group[0] if group else index)

    def take_exactly(self, index: int) -> int:
        """Pick this image."""
        assert self.is_left_N[index], f"image {index} was picked twice"
        self.is_left_N[index] = False
        return index


def greedily(problem: Problem, objectives: Sequence[Objective]) -> Picked:
    """Repeatedly add the image that gives the lowest sum of the objectives, or a random image to a set at the floor."""
    remaining = Remaining(problem.duplicate_of_N)
    random = (int(index) for index in problem.permutation(problem.num_pool) if remaining.is_left_N[index])
    indices = np.empty(problem.num_keep, np.int64)
    reached, floor = np.empty(problem.num_keep), np.empty(problem.num_keep)
    is_at_floor, num_at_floor = False, 0
    for turn in range(problem.num_keep):
        if is_at_floor:
            index = remaining.take_exactly(next(random))
            num_at_floor += 1
        else:
            index = remaining.take(int(functools.reduce(Tensor.add_, (objective.candidates() for objective in objectives)).argmin()))
        indices[turn] = index
        reached[turn] = sum(objective.add(index) for objective in objectives)
        floor[turn] = sum(objective.floor(turn + 1) for objective in objectives)
        is_at_floor = problem.stop_at_floor and bool(reached[turn] <= floor[turn])
    return Picked(indices, reached, floor, num_at_floor)


def at_random(problem: Problem) -> Picked:
    """`random`: a random permutation of the pool."""
    return problem.picked(problem.permutation(problem.num_pool)[: problem.num_keep])


def nearest_to_center(problem: Problem) -> Picked:
    """`center`: by distance to the real mean."""
    distance_N = functools.reduce(torch.add, [space.pool.squares_N.double() / space.spread for space in problem.spaces])
    by_duplicate_N = distance_N.cpu().numpy()[problem.duplicate_of_N]
    return problem.picked(np.argsort(by_duplicate_N, kind="stable")[: problem.num_keep])


def nearest_to_each(problem: Problem) -> Picked:
    """`nearest`: each real image of each view in turn takes the nearest image left, in rounds over a random
    permutation."""
    owners = [(space, row) for space in problem.spaces for row in range(len(space.real))]
    order = [owners[place] for place in problem.permutation(len(owners))]
    remaining = Remaining(problem.duplicate_of_N)
    depth = 4 + 2 * (problem.num_keep // len(order))
    queues: list[Iterator[int]] = [iter(()) for _ in order]
    indices: list[int] = []
    for turn in range(problem.num_keep):
        place = turn % len(order)
        index = next((index for index in queues[place] if remaining.is_left_N[index]), None)
        if index is None:
            space, row = order[place]
            queues[place] = _nearest_left(space, row, remaining, depth)
            index = next(queues[place])
        indices.append(remaining.take(index))
    return problem.picked(indices)


def _nearest_left(space: Space, row: int, remaining: Remaining, depth: int) -> Iterator[int]:
    """Images that are left, nearest to a real image first; at least `depth` of them, if so many are left."""
    distance_N = space.pool.squares_N - 2 * (space.pool.features_ND @ space.real.features_ND[row])
    distance_N[~torch.from_numpy(remaining.is_left_N).to(distance_N.device)] = torch.inf
    depth = min(depth, int(remaining.is_left_N.sum()))
    near = (distance_N <= torch.topk(distance_N, depth, largest=False).values.max()).nonzero()[:, 0]
    return iter(near[distance_N[near].argsort(stable=True)].tolist())


def by_clusters(problem: Problem) -> Picked:
    """`clusters` (DS3): cluster the pool, keep clusters that are nearest to a real image, and take random members from
    each in turn.

    Clusters with more real images come first. When these clusters are used up, the others follow in the same way.
    """
    num_clusters = max(1, min(CLUSTERS, problem.num_pool // CLUSTER_SIZE))
    scales = [space.spread**-0.5 for space in problem.spaces]
    joint_ND = torch.cat([space.pool.features_ND * scale for space, scale in zip(problem.spaces, scales, strict=True)], dim=1)
    shuffled = problem.permutation(problem.num_pool)
    centres_KD, cluster_N = _k_means(joint_ND, torch.from_numpy(shuffled[:num_clusters].copy()))
    num_real_K = np.zeros(num_clusters, np.int64)
    widths = [space.pool.features_ND.shape[1] for space in problem.spaces]
    for space, scale, part_KD in zip(problem.spaces, scales, centres_KD.split(widths, dim=1), strict=True):
        num_real_K += np.bincount(_nearest_centre(space.real.features_ND * scale, part_KD).cpu().numpy(), minlength=num_clusters)
    by_cluster_N = cluster_N.cpu().numpy()
    together_N = shuffled[np.argsort(by_cluster_N[shuffled], kind="stable")]
    starts_K = np.searchsorted(by_cluster_N[together_N], np.arange(num_clusters))
    turn_N = np.empty(problem.num_pool, np.int64)  # how many members of its cluster come before it
    turn_N[together_N] = np.arange(problem.num_pool) - starts_K[by_cluster_N[together_N]]
    order = np.lexsort((by_cluster_N, -num_real_K[by_cluster_N], turn_N, num_real_K[by_cluster_N] == 0))
    return problem.picked(order[: problem.num_keep])


def _nearest_centre(rows_ND: Tensor, centres_KD: Tensor) -> Tensor:
    half_K = centres_KD.square().sum(dim=1) / 2
    parts = (rows_ND[block] for block in blocks(len(rows_ND), len(centres_KD)))
    return torch.cat([(half_K - part_ND @ centres_KD.T).argmin(dim=1) for part_ND in parts])


def _k_means(rows_ND: Tensor, start_K: Tensor, rounds: int = 25) -> tuple[Tensor, Tensor]:
    """Lloyd's algorithm, started from these rows: centres, and the cluster of each row. An empty cluster keeps its
    centre."""
    centres_KD = rows_ND[start_K.to(rows_ND.device)]
    cluster_N = _nearest_centre(rows_ND, centres_KD)
    for _ in range(rounds):
        sums_KD, counts_K = torch.zeros_like(centres_KD), torch.zeros_like(centres_KD[:, 0])
        for block in blocks(len(rows_ND), len(centres_KD)):
            # A product with ones and zeros, since scattered sums have no fixed order on GPUs.
            members = (cluster_N[block, None] == torch.arange(len(centres_KD), device=rows_ND.device)).to(rows_ND.dtype)
            sums_KD += members.T @ rows_ND[block]
            counts_K += members.sum(dim=0)
        centres_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp(min=1)[:, None], centres_KD)
        before_N, cluster_N = cluster_N, _nearest_centre(rows_ND, centres_KD)
        if torch.equal(before_N, cluster_N):
            break
    return centres_KD, cluster_N


def farthest_first(problem: Problem) -> Picked:
    """`novel`: repeatedly the image farthest from all real and picked images (Gonzalez 1985).

    The objective is the distance of the farthest image left.
    """
    scales = [1 / space.spread for space in problem.spaces]
    away = [_nearest_squared(space) for space in problem.spaces]
    remaining = Remaining(problem.duplicate_of_N)
    indices, radius = [], np.empty(problem.num_keep)
    left_N = torch.zeros(problem.num_pool, dtype=torch.float64, device=away[0].device)

    def score() -> Tensor:
        return sum((away_N * scale for away_N, scale in zip(away, scales, strict=True)), left_N)

    for turn in range(problem.num_keep):
        index = remaining.take(int(score().argmax()))
        indices.append(index)
        left_N[index] = -torch.inf
        for space, away_N in zip(problem.spaces, away, strict=True):
            torch.minimum(away_N, _squared(space.pool, space.pool.part(slice(index, index + 1)))[:, 0], out=away_N)
            away_N[index] = 0
        radius[turn] = max(0.0, float(score().max()))
    return problem.picked(indices, radius)


def _squared(one: Rows, other: Rows) -> Tensor:
    squared_NM = (one.features_ND @ other.features_ND.T).mul_(-2)
    return squared_NM.add_(one.squares_N[:, None]).add_(other.squares_N).clamp_(min=0)


def _nearest_squared(space: Space) -> Tensor:
    """Squared distance from each pool image to the nearest real image, float32 (N,); in blocks."""
    return torch.cat([_squared(space.pool.part(block), space.real).amin(dim=1) for block in blocks(len(space.pool), len(space.real))])


def by_covariance(problem: Problem) -> Picked:
    """`covariance`: match the covariance of the real images, while the mean stays in bounds."""
    return greedily(problem, [Covariance(space) for space in problem.spaces])


def by_moments(problem: Problem) -> Picked:
    """`mean+covariance`: match mean and covariance of the real images."""
    return greedily(problem, [matching(Moments.for_space(space), space) for space in problem.spaces])


def by_mmd(problem: Problem) -> Picked:
    """`mmd`: match the whole distribution of the real images."""
    return greedily(problem, [matching(Gaussian.for_space(space), space) for space in problem.spaces])


def by_smoothed_mmd(problem: Problem) -> Picked:
    """`smoothed`: match real and picked images together to a smoothed real distribution."""
    return greedily(problem, [matching_smoothed(space) for space in problem.spaces])


def select(
    method: str, views: Sequence[View], num_keep: int, *, seed: int, dim: int | None = 32, stop_at_floor: bool = True, device: str = "cpu"
) -> Picked:
    """Pick `num_keep` of the pool's N images by one of `RULES`.

    Args:
        method: name of the rule.
        views: the same pool images in each view; the real images may differ.
        num_keep: at most N.
        seed: seed of everything random.
        dim: principal components of the real features to keep, at most one less than there are real images. None: all
            features.
        stop_at_floor: pick at random while the set is as near to the real images as an endless set of real images would
            be.
        device: torch device.
    """
    rule: SelectionRule = RULES[method]
    num_pool = len(views[0].pool_ND)
    assert 0 < num_keep <= num_pool, f"{num_keep} of {num_pool}"
    assert all(len(view.pool_ND) == num_pool and len(view.real_MD) for view in views)
    with torch.inference_mode():
        projected = [spaces.project(view, dim, device) for view in views]
        return rule.run(Problem(projected, spaces.first_duplicates(views), num_keep, seed, stop_at_floor))
