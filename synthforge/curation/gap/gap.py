"""The gap between synthetic and real images by the metric encoder: of the whole pool, the curated set, random sets, and the floor.

Two kinds of figures. *MMD² and KID* have no bias by size and use all images. They are stratified U-statistics (`metrics.within`): pairs of
an image with itself never count, and pairs inside classes have the share that two independent draws would give them, since sets have fixed
numbers of each class. Their intervals come from a weighted bootstrap (Rubin 1981): each image, real or synthetic, gets a weight from the
exponential distribution, the same in every set that it is in, so differences between sets are paired; weights are scaled class by class, so
the share of each class is held as it is. Near distance 0 such intervals are wider than they need to be (the statistic is degenerate there).
With n images of a class the variance is (n - 1) / (n + 1) of what it should be, for which intervals are widened.
Where more than a tenth of a side's images are alone in their class nothing can be said of chance, and there is no figure of all classes.
Their floor is what another draw of real images of the same size, with real images' share of each class, would give: 0 on average, with the
spread of the null distribution (Gretton et al. 2009, NIPS 22), in which only deviations from the mean of the own class count. Real images
that stand in several views deviate alike in all; how the other draw lies in views without common images can't be known, so its own part of
the distance is taken to agree in all of them, which makes the floor rather too wide than too narrow.
*The others* depend on the number of images. The real images are split in two halves by class; the second half (the floor) and equally
large random parts of each set, in the set's own class shares, are compared with the first, again and again: intervals are over splits.
Figures are averaged over views. Intervals hold one at a time; nothing corrects for their number.
Not covered: what varies outside the images at hand, such as a second pool or another fit of the generator.
Shapes: N pool images, M real images, B bootstrap replicates, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from synthforge.curation.gap.metrics import (
    BALL_NEIGHBOURS,
    FEWEST_FOR_MMD,
    METRICS,
    Doubles,
    Features,
    Pair,
    RealSide,
    Weighted,
    between,
    figures,
    median_sigma,
    null_draws,
    spread_within,
    within,
)
from synthforge.curation.result import Distance, DistanceChange, DistanceOver, Distances, Gap, Nearer
from synthforge.errors import WorkError

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Rows(Protocol):
    """Features that are read by row numbers: an array, or what lies on disk."""

    def __getitem__(self, rows: Ints, /) -> Floats:
        """(n, D)."""


PRIMARY = "mmd"
"""The metric that verdicts are about."""
FEWEST_IN_SPLIT = 2 * BALL_NEIGHBOURS
"""With fewer on either side nothing is said of neighbourhoods and spread."""
MOST_IMAGES = 2000
"""Of a larger set so many are compared: memory and time are bounded, and noise is small beside that of the sets in question."""
_TAILS = [0.025, 0.975]


@dataclass(frozen=True)
class MetricView:
    """Features of pool and real images by one metric encoder.

    Of a metric encoder that was fitted on real images only those stand here that it has not seen; the pool is the same in all views.
    """

    pool_ND: Rows
    pool_class_N: Ints
    """-1 for none of the reference's."""
    real_MD: Floats
    real_class_M: Ints
    real_key_M: list[str]


def measure_gap(
    views: Sequence[MetricView],
    *,
    classes: list[str],
    before: Ints,
    after: Ints,
    random: Sequence[Ints],
    seed: int,
    num_bootstrap: int = 1000,
    num_splits: int = 20,
    most_images: int = MOST_IMAGES,
) -> Gap:
    """Measure how far three kinds of sets are from the real images.

    Args:
        views: the metric encoder's features; at least one.
        classes: names; per-class figures come in their order.
        before, after: pool rows of the whole pool and of the curated set.
        random: pool rows of several random sets of the same size per class as `after`.
        most_images: a larger set is represented by so many of its images, drawn with each class in its share.
    """
    sides = _Sides.of(views, before=before, after=after, random=random, num_classes=len(classes), seed=seed, limit=most_images)
    tables = _by_bootstrap(sides, num_bootstrap, seed) | _by_splits(sides, num_splits, seed)
    return Gap(
        primary=PRIMARY,
        metrics={metric: tables[metric][-1] for metric in METRICS},
        per_class={
            name: {metric: tables[metric][index] for metric in METRICS if METRICS[metric].of_classes} for index, name in enumerate(classes)
        },
        num_views=len(views),
        num_real=len({key for view in views for key in view.real_key_M}),
        num_before=len(before),
        num_after=len(after),
        num_random=len(random),
        nothing_chosen=bool(random) and all(np.array_equal(np.sort(rows), np.sort(after)) for rows in random),
        num_bootstrap=num_bootstrap,
        num_splits=num_splits,
        sigma=sides.sigmas,
        most_images=most_images,
    )


def sentence(gap: Gap) -> str:
    """Whether curation helped, against random sets and against the whole pool, and how far it is from the floor."""
    found = gap.main
    if gap.num_after == 0:
        return "Nothing was kept, so there is nothing to compare."
    if found.after.value is None:
        return f"Whether curation helped can't be said: {found.after.reason}."
    words: dict[Nearer, str] = {
        "smaller": "nearer than",
        "larger": "farther than",
        "no different": "not measurably nearer or farther than",
    }
    parts = []
    for difference, other, name in (
        (None if gap.nothing_chosen else found.after_minus_random, found.random, "random sets of its size"),
        (found.after_minus_before, found.before, "the whole pool"),
    ):
        if difference is not None and difference.verdict is not None:
            interval = f"difference {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            parts.append(f"{words[difference.verdict]} {name} ({found.after.value:.4f} against {other.value:.4f}, {interval})")
    compared = " and ".join(parts) or f"at {found.after.value:.4f}"
    first = "All that passed the gates was kept, so nothing was chosen. " if gap.nothing_chosen else ""
    metric = METRICS[gap.primary].name
    return f"{first}To the real images the curated set is, by the metric encoder's {metric}, {compared}; {_beside_floor(found)}."


def _beside_floor(found: Distances) -> str:
    """How the curated set lies to the spread of real images."""
    if found.floor.low is None or found.floor.high is None or found.after.value is None:
        return "there is no floor to set it beside"
    if found.after.value < found.floor.low:
        return f"it is nearer than other real images would be (from {found.floor.low:.4f}), so it is fitted to these very images"
    if found.after.value <= found.floor.high:
        return f"it can't be told from other real images (up to {found.floor.high:.4f})"
    times = found.after.value / found.floor.high if found.floor.high > 0 else np.inf
    return f"other real images would come within {found.floor.high:.4f}, it is {times:.1f} times as far"


# What is compared


@dataclass(frozen=True)
class _Sides:
    """Rows of every set and of each view's real images, bounded in number, sorted by class.

    Of the pool only images that are in a set are here, read once; rows count among them.
    """

    views: list[MetricView]
    pools: list[Floats]
    """In each view the features of the pool images."""
    class_N: Ints
    """Class of each of them."""
    before: Ints
    after: Ints
    random: list[Ints]
    reals: list[Ints]
    sigmas: list[float]
    num_classes: int

    @classmethod
    def of(
        cls, views: Sequence[MetricView], *, before: Ints, after: Ints, random: Sequence[Ints], num_classes: int, seed: int, limit: int
    ) -> _Sides:
        assert views, "no view"
        class_N = views[0].pool_class_N
        rows = [
            part[_spread(class_N[part], limit, _rng(seed, 0))]  # of equal sets the same images, so that they are no different
            for part in (np.sort(np.asarray(part, np.int64)) for part in (before, after, *random))
        ]
        used = np.unique(np.concatenate(rows))
        before, after, *others = (np.searchsorted(used, part) for part in rows)
        return cls(
            views=list(views),
            pools=[view.pool_ND[used] for view in views],
            class_N=class_N[used],
            before=before,
            after=after,
            random=others,
            reals=[_spread(view.real_class_M, limit, _rng(seed, 1, number)) for number, view in enumerate(views)],
            sigmas=[median_sigma(view.real_MD) for view in views],
            num_classes=num_classes,
        )

    def counts(self, rows: Ints) -> Ints:
        """Images of each class, and last of all."""
        return _counts(self.class_N[rows], self.num_classes)

    def num_real(self) -> Ints:
        """Fewest real images in a view, of each class and last of all."""
        fewest: Ints = np.min([_counts(class_N, self.num_classes) for class_N in self.real_classes()], axis=0)
        return fewest

    def real_classes(self) -> list[Ints]:
        """In each view the classes of its real images."""
        return [view.real_class_M[rows] for view, rows in zip(self.views, self.reals, strict=True)]


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose])


def _spread(class_N: Ints, limit: int, rng: np.random.Generator) -> Ints:
    """At most `limit` positions drawn at random, each class in its share, sorted by class and in random order within."""
    order = np.lexsort((rng.random(len(class_N)), class_N))
    if len(order) > limit:
        order = order[((np.arange(limit) + rng.random()) * len(order) / limit).astype(np.int64)]
    return order


def _counts(class_N: Ints, num_classes: int) -> Ints:
    return np.append(np.bincount(class_N[class_N >= 0], minlength=num_classes), len(class_N)).astype(np.int64)


# MMD² and KID, by bootstrap

Kernel = Callable[[Features, Features], Doubles]


def _finite(metric: str, kernel: Callable[[Features, Features, float], Doubles], sigma: float) -> Kernel:
    """A metric's kernel of one width; raises WorkError where it gives anything but finite numbers."""

    def checked(one_ND: Features, other_MD: Features) -> Doubles:
        kernel_NM = kernel(one_ND, other_MD, sigma)
        if not np.isfinite(kernel_NM).all():
            raise WorkError(f"metric {metric}: its kernel gave what is no finite number; mend it where it is added to METRICS")
        return kernel_NM

    return checked


class _Reference:
    """The real images of one view under one kernel."""

    def __init__(self, real_MD: Features, images: Weighted, kernel: Kernel, num_classes: int) -> None:
        self._real_MD, self._images, self._kernel, self._num_classes = real_MD, images, kernel, num_classes
        self._kernel_MM = kernel(real_MD, real_MD)
        # A constant in the kernel changes no MMD²; without it sums in float32 stay exact enough.
        self._level = float(self._kernel_MM.mean()) if len(real_MD) else 0.0
        self._kernel_MM -= self._level
        self._within = within(self._kernel_MM.copy(), images, num_classes)

    def kernel(self, features_ND: Features) -> Doubles:
        """Of a set with itself, (N, N)."""
        return self._kernel(features_ND, features_ND) - self._level

    def real_terms(self, features_ND: Features, images: Weighted) -> Doubles:
        """The two terms of MMD² that real images are in, (1 + B, C + 1)."""
        if min(len(images), len(self._images)) < FEWEST_FOR_MMD:
            return np.full_like(self._within, np.nan)
        kernel_NM = self._kernel(features_ND, self._real_MD) - self._level
        return self._within - 2 * between(kernel_NM, images, self._images, self._num_classes)

    def null(self, counts: Ints, normal_BM: Floats, rng: np.random.Generator) -> Doubles:
        """Draws of MMD² between as many real images as here, which deviate as `normal_BM` says, and `counts` further ones, (B, C + 1)."""
        draws = np.full((len(normal_BM), self._num_classes + 1), np.nan)
        spread_MM = spread_within(self._kernel_MM, self._images)
        for index, rows in [*self._images.blocks, (self._num_classes, slice(0, len(self._images)))]:
            if index >= 0 and counts[index] >= FEWEST_FOR_MMD and not np.isnan(self._within[0, index]):  # so not where images are alone
                draws[:, index] = null_draws(spread_MM[rows, rows], normal_BM[:, rows], int(counts[index]), rng)
        return draws


def _by_bootstrap(sides: _Sides, num: int, seed: int) -> dict[str, list[Distances]]:
    """Figures of the unbiased metrics, of each class and last of all."""
    keys = {key: number for number, key in enumerate(sorted({key for view in sides.views for key in view.real_key_M}))}
    real_BK = _rng(seed, 2).standard_exponential((num, len(keys)), np.float32)
    pool_BU = _rng(seed, 3).standard_exponential((num, len(sides.class_N)), np.float32)
    columns_of = [[keys[view.real_key_M[row]] for row in rows] for view, rows in zip(sides.views, sides.reals, strict=True)]
    reals = [
        (view.real_MD[rows], Weighted.of(view.real_class_M[rows], real_BK[:, columns]))
        for view, rows, columns in zip(sides.views, sides.reals, columns_of, strict=True)
    ]
    normal_BK = _rng(seed, 6).standard_normal((num, len(keys)), np.float32)
    tables = {}
    for metric, row in METRICS.items():
        if row.kernel is None:
            continue
        kernels = [_finite(metric, row.kernel, sigma) for sigma in sides.sigmas]
        references = [_Reference(*real, kernel, sides.num_classes) for real, kernel in zip(reals, kernels, strict=True)]
        distances = [
            _widened(_to_references(sides, references, rows, pool_BU[:, rows]), sides, rows)
            for rows in (sides.before, sides.after, *sides.random)
        ]
        random = np.mean(distances[2:], axis=0) if sides.random else np.full_like(distances[0], np.nan)
        counts = sides.counts(sides.after)
        nulls = [
            one.null(counts, normal_BK[:, columns], _rng(seed, 4, number))
            for number, (one, columns) in enumerate(zip(references, columns_of, strict=True))
        ]
        null = np.mean(nulls, axis=0)
        tables[metric] = [
            _of_column(sides, column, (distances[0], distances[1], random), null, metric == PRIMARY)
            for column in range(sides.num_classes + 1)
        ]
    return tables


def _to_references(sides: _Sides, references: Sequence[_Reference], rows: Ints, weights_BN: Floats) -> Doubles:
    """MMD² of pool rows to the real images, mean over views, (1 + B, C + 1); nan where a view has too few.

    The images and their weights are the same in all views, so the mean over views inside the set is that of the mean kernel.
    """
    images = Weighted.of(sides.class_N[rows], weights_BN)
    kernel_NN, real_terms = np.zeros((len(rows), len(rows))), np.zeros((1 + len(weights_BN), sides.num_classes + 1))
    for pool_ND, reference in zip(sides.pools, references, strict=True):
        features_ND = pool_ND[rows]
        kernel_NN += reference.kernel(features_ND) / len(references)
        real_terms += reference.real_terms(features_ND, images) / len(references)
    return within(kernel_NN, images, sides.num_classes) + real_terms


def _widened(distances: Doubles, sides: _Sides, rows: Ints) -> Doubles:
    """Replicates spread by what weights within a class of n images lack, with the smaller side's n; for all classes their mean."""
    sizes = np.minimum(sides.counts(rows), sides.num_real()).astype(np.float64)
    sizes[-1] = min(len(class_N) / max(len(np.unique(class_N)), 1) for class_N in [sides.class_N[rows], *sides.real_classes()])
    sizes = np.maximum(sizes, 2)  # smaller classes have no figure
    distances[1:] += (distances[1:] - distances[0]) * (((sizes + 1) / (sizes - 1)) ** 0.5 - 1)
    return distances


def _of_column(sides: _Sides, column: int, distances: tuple[Doubles, Doubles, Doubles], null: Doubles, is_primary: bool) -> Distances:
    """One class, or all, from the replicates of before, after and random, and those of the floor."""
    sizes = [int(sides.counts(rows)[column]) for rows in (sides.before, sides.after)]
    num_real = int(sides.num_real()[column])
    before, after, random = (
        _measured(table[0, column], table[1:, column], size, "images", _too_few(size, num_real, FEWEST_FOR_MMD))
        for table, size in zip(distances, (sizes[0], sizes[1], sizes[1]), strict=True)
    )
    floor = _measured(0.0, null[:, column], sizes[1], "real draws", _too_few(sizes[1], num_real, FEWEST_FOR_MMD))
    return Distances(
        before=before,
        after=after,
        random=random,
        floor=floor,
        after_minus_random=_difference(distances[1], distances[2], column) if is_primary else None,
        after_minus_before=_difference(distances[1], distances[0], column) if is_primary else None,
    )


def _difference(one: Doubles, other: Doubles, column: int) -> DistanceChange:
    replicates = one[:, column] - other[:, column]
    if np.isnan(replicates[0]):
        return DistanceChange(value=None, low=None, high=None, verdict=None, reason="one of the two has no value")
    low, high = np.quantile(replicates[1:], _TAILS)
    verdict: Nearer = "smaller" if high < 0 else "larger" if low > 0 else "no different"
    return DistanceChange(value=float(replicates[0]), low=float(low), high=float(high), verdict=verdict)


def _measured(value: float, replicates: Doubles, num: int, over: DistanceOver, reason: str) -> Distance:
    if np.isnan(replicates).any():
        return Distance(value=None, low=None, high=None, n=num, over=over, reason=reason)
    low, high = np.quantile(replicates, _TAILS)
    return Distance(value=float(value), low=float(low), high=float(high), n=num, over=over)


def _too_few(num: int, num_real: int, fewest: int) -> str:
    if min(num, num_real) < fewest:
        return f"{num} images beside {num_real} real ones in a view; each side needs {fewest}"
    return "too many images are the only ones of their class, so nothing can be said of chance"


# Metrics that depend on size, by splits


def _by_splits(sides: _Sides, num: int, seed: int) -> dict[str, list[Distances]]:
    """Figures of the other metrics, of each class and last of all."""
    names = [name for name, metric in METRICS.items() if metric.equal_sizes]
    found = np.full((len(sides.views), num, sides.num_classes + 1, 4, len(names)), np.nan)
    sizes = np.full((sides.num_classes + 1, 5), np.iinfo(np.int64).max)
    for number, split in itertools.product(range(len(sides.views)), range(num)):
        view, rows, rng = sides.views[number], sides.reals[number], _rng(seed, 5, number, split)
        order = rows[_spread(view.real_class_M[rows], len(rows), rng)]
        random = sides.random[split % len(sides.random)] if sides.random else sides.after[:0]
        sets = [(sides.pools[number], sides.class_N, rows) for rows in (sides.before, sides.after, random)]
        sets.append((view.real_MD, view.real_class_M, order[1::2]))
        for column in range(sides.num_classes + 1):
            is_whole = column == sides.num_classes
            half, *others = (
                (features, classes, rows if is_whole else rows[classes[rows] == column])
                for features, classes, rows in [(view.real_MD, view.real_class_M, order[::2]), *sets]
            )
            found[number, split, column], size = _one_split(half, others, is_whole, rng)
            taken = [*(min(len(rows), size or len(rows)) for _, _, rows in others), len(half[2])]
            sizes[column] = np.minimum(sizes[column], taken)
    means = found.mean(axis=0)
    return {
        metric: [_of_splits(means[:, column, :, index], sizes[column]) for column in range(sides.num_classes + 1)]
        for index, metric in enumerate(names)
    }


Part = tuple[Features, Ints, Ints]
"""Features of a side, its classes, and the rows in question."""


def _one_split(half: Part, others: Sequence[Part], is_whole: bool, rng: np.random.Generator) -> tuple[Doubles, int]:
    """Each metric by set, (4, metrics), and how many images of each set were taken; sets that are too small are left out."""
    found = np.full((len(others), sum(metric.equal_sizes for metric in METRICS.values())), np.nan)
    size = min((len(rows) for _, _, rows in others if len(rows) >= FEWEST_IN_SPLIT), default=0)
    if size == 0 or len(half[2]) < FEWEST_IN_SPLIT:
        return found, 0
    real = RealSide(half[0][half[2]])
    for number, (features, classes, rows) in enumerate(others):
        if len(rows) >= FEWEST_IN_SPLIT:
            taken = features[rows[_spread(classes[rows], size, rng)]]
            found[number] = [*figures(Pair(real, taken), of_class=not is_whole).values()]
    return found, size


def _of_splits(values_S4: Doubles, sizes: Ints) -> Distances:
    """Before, after, random and floor of one metric, from its values in each split.

    Args:
        sizes: images of each of the four sets, and of the half of the real images that they are compared with.
    """
    num_real = int(min(sizes[3:]))

    def of_set(values_S: Doubles, size: int) -> Distance:
        reason = f"it is no finite number in {np.isnan(values_S).sum()} of {len(values_S)} splits"
        if min(size, num_real) < FEWEST_IN_SPLIT:
            reason = _too_few(size, num_real, FEWEST_IN_SPLIT)
        return _measured(values_S.mean(), values_S, size, "splits", reason)

    before, after, random, floor = (of_set(values_S, int(size)) for values_S, size in zip(values_S4.T, sizes[:4], strict=True))
    return Distances(before=before, after=after, random=random, floor=floor)
