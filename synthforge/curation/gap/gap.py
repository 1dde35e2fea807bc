"""The gap: distances of the whole pool, the curated set and random sets to the real images, by the metric encoder.

The *floor* is the distance of other real images. Figures are averaged over views. Intervals are 95 % each, without a
correction for their number. There are two kinds of metrics.

*MMD² and KID* are unbiased for any size, and use all images. They are stratified U-statistics (see `metrics.within`).

- Intervals come from a weighted bootstrap (Rubin 1981). Each image, real or synthetic, gets an exponential weight, the
  same in every set that contains it, so differences between sets are paired. Weights are scaled class by class, so
  class shares stay as they are.
- With n images in a class, the variance is too small by (n - 1) / (n + 1); intervals are widened to correct this. Near
  distance 0 they are wider than necessary, since the statistic is degenerate there.
- If more than a tenth of a side's images are alone in their class, there is no figure of all classes.
- The floor is a new draw of real images of the same size and class shares: 0 on average, with the spread of the null
  distribution (Gretton et al. 2009, NIPS 22). Only deviations from the class mean count there. A real image deviates
  alike in all its views. How the new draw lies in views without common images is unknown. Its own part of the distance
  is assumed to agree in all views, which makes the floor rather too wide than too narrow.

*The other metrics* depend on the number of images. The real images are split in two halves, class by class. The second
half (the floor) and equally large random parts of each set are compared with the first half. This is repeated, and
intervals are over splits.

Not covered: variation outside the images at hand, such as a second pool or another fit of the generator.
Shapes: N pool images, M real images, B bootstrap replicates, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from synthforge.arrays import Doubles, Floats, Ints
from synthforge.curation.gap import metrics
from synthforge.curation.gap.metrics import BALL_NEIGHBOURS, FEWEST_FOR_MMD, METRICS, Features, Pair, RealSide, Weighted
from synthforge.curation.result import Distance, DistanceChange, DistanceOver, Distances, Gap, Nearer
from synthforge.errors import WorkError


class FeatureRows(Protocol):
    """Features that are read by row numbers: an array, or features on disk."""

    def __getitem__(self, rows: Ints, /) -> Floats:
        """Features of these rows, (n, D)."""


PRIMARY = "mmd"
"""The metric that verdicts are about."""
FEWEST_IN_SPLIT = 2 * BALL_NEIGHBOURS
"""Metrics that depend on size are not given with fewer images on either side."""
MOST_IMAGES = 2000
"""Most images of a set that are compared. It bounds memory and time; the noise that it adds is small."""
_TAILS = [0.025, 0.975]


@dataclass(frozen=True)
class MetricView:
    """Features of pool and real images by one model of the metric encoder. The pool is the same in all views."""

    pool_ND: FeatureRows
    pool_class_N: Ints
    """Class index of each pool image; -1 for none."""
    real_MD: Floats
    """Real images that the model has not seen."""
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
    """Measure how far the whole pool, the curated set and random sets are from the real images.

    Args:
        views: features by the metric encoder; at least one view.
        classes: class names, by class index.
        before, after: pool rows of the whole pool and of the curated set.
        random: pool rows of random sets with as many images of each class as `after`.
        num_bootstrap, num_splits: repetitions behind intervals.
        most_images: a larger set is represented by a random part of this size, with the same class shares.
    """
    sides = _Sides(views, before=before, after=after, random=random, num_classes=len(classes), seed=seed, limit=most_images)
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
    """Whether curation helped: compared with random sets, with the whole pool, and with the floor."""
    main = gap.main
    if gap.num_after == 0:
        return "Nothing was kept, so there is nothing to compare."
    if main.after.value is None:
        return f"Whether curation helped can't be said: {main.after.reason}."
    words: dict[Nearer, str] = {"smaller": "nearer", "larger": "farther", "no different": "not measurably nearer or farther"}
    parts = []
    for difference, other, name in (
        (None if gap.nothing_chosen else main.after_minus_random, main.random, "random sets of its size"),
        (main.after_minus_before, main.before, "the whole pool"),
    ):
        if difference is not None and difference.verdict is not None:
            interval = f"difference {difference.value:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
            parts.append(f"{words[difference.verdict]} than {name} ({main.after.value:.4f} against {other.value:.4f}, {interval})")
    compared = " and ".join(parts) or f"at {main.after.value:.4f}"
    first = "All images that passed the gates were kept, so nothing was chosen. " if gap.nothing_chosen else ""
    metric = METRICS[gap.primary].name
    return f"{first}To the real images the curated set is, by the metric encoder's {metric}, {compared}; {_beside_floor(main)}."


def _beside_floor(distances: Distances) -> str:
    """How the curated set compares with the floor, in words."""
    value, low, high = distances.after.value, distances.floor.low, distances.floor.high
    if low is None or high is None or value is None:
        return "there is no floor to compare it with"
    if value < low:
        return f"it is nearer than other real images would be (from {low:.4f}), so it is fitted to these very images"
    if value <= high:
        return f"it can't be told from other real images (up to {high:.4f})"
    return f"other real images would come within {high:.4f}, it is {value / high if high > 0 else np.inf:.1f} times as far"


# The sets that are compared


class _Sides:
    """Rows of every set, and of the real images in each view: bounded in number, sorted by class.

    Only pool images of some set are read. Rows of sets are numbers among these.
    """

    def __init__(
        self, views: Sequence[MetricView], *, before: Ints, after: Ints, random: Sequence[Ints], num_classes: int, seed: int, limit: int
    ) -> None:
        assert views, "no view"
        class_N = views[0].pool_class_N
        rows = [
            part[_spread(class_N[part], limit, _rng(seed, 0))]  # the same seed: equal sets keep the same images
            for part in (np.sort(np.asarray(part, np.int64)) for part in (before, after, *random))
        ]
        used = np.unique(np.concatenate(rows))
        self.views, self.num_classes = list(views), num_classes
        self.pools = [view.pool_ND[used] for view in views]
        """Features of the pool images in each view."""
        self.class_N = class_N[used]
        """Class of each of these images."""
        self.before, self.after, *self.random = (np.searchsorted(used, part) for part in rows)
        self.reals = [_spread(view.real_class_M, limit, _rng(seed, 1, number)) for number, view in enumerate(views)]
        """Rows of the real images in each view."""
        self.sigmas = [metrics.median_sigma(view.real_MD) for view in views]
        """Kernel width in each view."""

    def counts(self, rows: Ints) -> Ints:
        """Images of each class, and last of all classes, (C + 1,)."""
        return _counts(self.class_N[rows], self.num_classes)

    def num_real(self) -> Ints:
        """Real images of each class, and last of all classes, in the view with the fewest, (C + 1,)."""
        fewest: Ints = np.min([_counts(class_N, self.num_classes) for class_N in self.real_classes()], axis=0)
        return fewest

    def real_classes(self) -> list[Ints]:
        """Classes of the real images in each view."""
        return [view.real_class_M[rows] for view, rows in zip(self.views, self.reals, strict=True)]


def _rng(seed: int, *purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, *purpose])


def _spread(class_N: Ints, limit: int, rng: np.random.Generator) -> Ints:
    """At most `limit` random positions with the same class shares; sorted by class, in random order within a class."""
    order = np.lexsort((rng.random(len(class_N)), class_N))
    if len(order) > limit:
        order = order[((np.arange(limit) + rng.random()) * len(order) / limit).astype(np.int64)]
    return order


def _counts(class_N: Ints, num_classes: int) -> Ints:
    return np.append(np.bincount(class_N[class_N >= 0], minlength=num_classes), len(class_N)).astype(np.int64)


# MMD² and KID, by bootstrap


class _Reference:
    """The real images of one view under the kernel of one metric."""

    def __init__(self, real_MD: Features, images: Weighted, metric: str, sigma: float, num_classes: int) -> None:
        self._real_MD, self._images, self._metric, self._sigma, self._num_classes = real_MD, images, metric, sigma, num_classes
        self._level = 0.0
        self._kernel_MM = self.kernel(real_MD, real_MD)
        # A constant in the kernel does not change MMD². Without it, sums in float32 stay exact enough.
        self._level = float(self._kernel_MM.mean()) if len(real_MD) else 0.0
        self._kernel_MM -= self._level
        self._within = metrics.within(self._kernel_MM.copy(), images, num_classes)

    def kernel(self, one_ND: Features, other_MD: Features) -> Doubles:
        """The kernel of all pairs, (N, M), up to a constant; raises WorkError if a value is not finite."""
        kernel = METRICS[self._metric].kernel
        assert kernel is not None
        kernel_NM = kernel(one_ND, other_MD, self._sigma)
        if not np.isfinite(kernel_NM).all():
            raise WorkError(f"metric {self._metric}: its kernel gives values that are not finite; correct the kernel added to METRICS")
        return kernel_NM - self._level

    def real_terms(self, features_ND: Features, images: Weighted) -> Doubles:
        """The two terms of MMD² that contain real images, (1 + B, C + 1)."""
        if min(len(images), len(self._images)) < FEWEST_FOR_MMD:
            return np.full_like(self._within, np.nan)
        return self._within - 2 * metrics.between(self.kernel(features_ND, self._real_MD), images, self._images, self._num_classes)

    def null(self, counts: Ints, normal_BM: Floats, rng: np.random.Generator) -> Doubles:
        """Draws of MMD² between the real images and `counts` further ones of their distribution, (B, C + 1).

        Args:
            normal_BM: deviations of the real images, as normal variables.
        """
        draws = np.full((len(normal_BM), self._num_classes + 1), np.nan)
        spread_MM = metrics.spread_within(self._kernel_MM, self._images)
        for index, rows in [*self._images.blocks, (self._num_classes, slice(0, len(self._images)))]:
            if index >= 0 and counts[index] >= FEWEST_FOR_MMD and not np.isnan(self._within[0, index]):  # nan: too many images are alone
                draws[:, index] = metrics.null_draws(spread_MM[rows, rows], normal_BM[:, rows], int(counts[index]), rng)
        return draws


def _by_bootstrap(sides: _Sides, num: int, seed: int) -> dict[str, list[Distances]]:
    """The unbiased metrics: for each metric its figures of each class, and last of all classes."""
    keys = {key: number for number, key in enumerate(sorted({key for view in sides.views for key in view.real_key_M}))}
    real_BK = _rng(seed, 2).standard_exponential((num, len(keys)), np.float32)
    pool_BU = _rng(seed, 3).standard_exponential((num, len(sides.class_N)), np.float32)
    normal_BK = _rng(seed, 6).standard_normal((num, len(keys)), np.float32)
    columns = [[keys[view.real_key_M[row]] for row in rows] for view, rows in zip(sides.views, sides.reals, strict=True)]
    counts = sides.counts(sides.after)
    tables = {}
    for metric, row in METRICS.items():
        if row.kernel is None:
            continue
        references = []
        for view, rows, own, sigma in zip(sides.views, sides.reals, columns, sides.sigmas, strict=True):
            images = Weighted.of(view.real_class_M[rows], real_BK[:, own])
            references.append(_Reference(view.real_MD[rows], images, metric, sigma, sides.num_classes))
        before, after, *others = (
            _widened(_to_references(sides, references, rows, pool_BU[:, rows]), sides, rows)
            for rows in (sides.before, sides.after, *sides.random)
        )
        random = np.mean(others, axis=0) if others else np.full_like(before, np.nan)
        nulls = [reference.null(counts, normal_BK[:, columns[n]], _rng(seed, 4, n)) for n, reference in enumerate(references)]
        null = np.mean(nulls, axis=0)
        tables[metric] = [
            _distances(sides, column, (before, after, random), null, metric == PRIMARY) for column in range(sides.num_classes + 1)
        ]
    return tables


def _to_references(sides: _Sides, references: Sequence[_Reference], rows: Ints, weights_BN: Floats) -> Doubles:
    """MMD² of pool rows to the real images, mean over views, (1 + B, C + 1); nan where a view has too few images.

    The set and its weights are the same in all views, so its inner term is computed once, with the mean kernel.
    """
    images = Weighted.of(sides.class_N[rows], weights_BN)
    kernel_NN, real_terms = np.zeros((len(rows), len(rows))), np.zeros((1 + len(weights_BN), sides.num_classes + 1))
    for pool_ND, reference in zip(sides.pools, references, strict=True):
        features_ND = pool_ND[rows]
        kernel_NN += reference.kernel(features_ND, features_ND) / len(references)
        real_terms += reference.real_terms(features_ND, images) / len(references)
    return metrics.within(kernel_NN, images, sides.num_classes) + real_terms


def _widened(distances: Doubles, sides: _Sides, rows: Ints) -> Doubles:
    """Spread the replicates by ((n + 1) / (n - 1))^½, which weights in a class of n images lack; in place.

    n is that of the smaller side; for all classes together, the mean number of images per class.
    """
    sizes = np.minimum(sides.counts(rows), sides.num_real()).astype(np.float64)
    sizes[-1] = min(len(class_N) / max(len(np.unique(class_N)), 1) for class_N in [sides.class_N[rows], *sides.real_classes()])
    sizes = np.maximum(sizes, 2)  # smaller classes have no figure anyway
    distances[1:] += (distances[1:] - distances[0]) * (((sizes + 1) / (sizes - 1)) ** 0.5 - 1)
    return distances


def _distances(sides: _Sides, column: int, tables: tuple[Doubles, Doubles, Doubles], null: Doubles, is_primary: bool) -> Distances:
    """Figures of one class, or of all.

    Args:
        tables: figures and replicates of before, after and random, (1 + B, C + 1) each.
        null: replicates of the floor, (B, C + 1).
    """
    num_before, num_after = (int(sides.counts(rows)[column]) for rows in (sides.before, sides.after))
    num_real = int(sides.num_real()[column])
    before, after, random = (
        _measured(table[0, column], table[1:, column], size, "images", _too_few(size, num_real, FEWEST_FOR_MMD))
        for table, size in zip(tables, (num_before, num_after, num_after), strict=True)
    )
    floor = _measured(0.0, null[:, column], num_after, "real draws", _too_few(num_after, num_real, FEWEST_FOR_MMD))
    to_random, to_before = (_difference(tables[1], other, column) if is_primary else None for other in (tables[2], tables[0]))
    return Distances(before=before, after=after, random=random, floor=floor, after_minus_random=to_random, after_minus_before=to_before)


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
    """The other metrics: for each metric its figures of each class, and last of all classes."""
    names = [name for name, metric in METRICS.items() if metric.equal_sizes]
    values = np.full((len(sides.views), num, sides.num_classes + 1, 4, len(names)), np.nan)
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
            values[number, split, column], size = _one_split(half, others, is_whole, rng)
            taken = [*(min(len(rows), size or len(rows)) for _, _, rows in others), len(half[2])]
            sizes[column] = np.minimum(sizes[column], taken)
    means = values.mean(axis=0)
    return {
        metric: [_of_splits(means[:, column, :, index], sizes[column]) for column in range(sides.num_classes + 1)]
        for index, metric in enumerate(names)
    }


Part = tuple[Features, Ints, Ints]
"""Features of a side, its classes, and the rows of one set."""


def _one_split(half: Part, others: Sequence[Part], is_whole: bool, rng: np.random.Generator) -> tuple[Doubles, int]:
    """Each metric of each set, (4, metrics), and the number of images taken of each set. Sets that are too small are
    left out."""
    values = np.full((len(others), sum(metric.equal_sizes for metric in METRICS.values())), np.nan)
    size = min((len(rows) for _, _, rows in others if len(rows) >= FEWEST_IN_SPLIT), default=0)
    if size == 0 or len(half[2]) < FEWEST_IN_SPLIT:
        return values, 0
    real = RealSide(half[0][half[2]])
    for number, (features, classes, rows) in enumerate(others):
        if len(rows) >= FEWEST_IN_SPLIT:
            taken = features[rows[_spread(classes[rows], size, rng)]]
            values[number] = [*metrics.figures(Pair(real, taken), of_class=not is_whole).values()]
    return values, size


def _of_splits(values_S4: Doubles, sizes: Ints) -> Distances:
    """Before, after, random and floor of one metric, from its values in each split.

    Args:
        sizes: images of each of the four sets, and of the half of the real images that they are compared with.
    """
    num_real = int(min(sizes[3:]))

    def of_set(values_S: Doubles, size: int) -> Distance:
        reason = f"it is not finite in {np.isnan(values_S).sum()} of {len(values_S)} splits"
        if min(size, num_real) < FEWEST_IN_SPLIT:
            reason = _too_few(size, num_real, FEWEST_IN_SPLIT)
        return _measured(values_S.mean(), values_S, size, "splits", reason)

    before, after, random, floor = (of_set(values_S, int(size)) for values_S, size in zip(values_S4.T, sizes[:4], strict=True))
    return Distances(before=before, after=after, random=random, floor=floor)
