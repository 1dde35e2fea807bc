"""Underrepresented regions: clusters of real images that hold fewer synthetic images than their share.

The real images of each class are clustered (k-means) in each view of the metric encoder. Images of both sides are
counted at the nearest centroid. A real image pulls its own centroid towards itself, and a synthetic one does not, so
small clusters would always look underrepresented. Therefore each real image is counted as if its centroid had been
formed without it.

The number of images that a region lacks is its share of the class's synthetic images minus those that it has. Fisher's
exact test (one-sided) says whether this may be due to chance. The false discovery rate is controlled over all regions
of all views and classes (Benjamini and Hochberg 1995).

Not covered: regions across classes; wrong class shares, which the gap shows; classes without synthetic images.
Shapes: N pool images, M real images, D features, R regions.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence

import numpy as np
import scipy
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2

from synthforge.arrays import Doubles, Floats, Ints
from synthforge.curation.gap.gap import MetricView
from synthforge.curation.gap.metrics import squared_distances
from synthforge.curation.result import Region

FALSE_DISCOVERIES = 0.05
"""Largest expected share of chance findings among the regions called significant."""
REAL_PER_REGION = 10
"""Real images of a region, on average."""
MOST_REGIONS = 25
"""Most regions of a class in a view."""
_STARTS = 5
"""Starts of k-means; the best one counts."""
_ROUNDS = 50
"""Rounds of k-means from each start."""
_BLOCK = 8192
"""Synthetic images assigned at a time."""


def underrepresented(
    views: Sequence[MetricView],
    *,
    classes: list[str],
    rows: Ints,
    pool_key_N: Sequence[str] | NDArray[np.object_],
    num_shown: int = 5,
    per_region: int = REAL_PER_REGION,
    seed: int = 0,
) -> list[Region]:
    """The regions that lack images, those that lack most first.

    Args:
        classes: class names, by class index.
        rows: pool rows that count, such as those of the curated set.
        pool_key_N: keys of all pool images.
        num_shown: examples of each side.
        per_region: real images of a region, on average. With smaller regions, fewer differences are significant.
    """
    regions: list[Region] = []
    for (view_number, view), (index, name) in itertools.product(enumerate(views), enumerate(classes)):
        pool_rows = rows[view.pool_class_N[rows] == index].astype(np.int64)
        real_rows = np.flatnonzero(view.real_class_M == index)
        num_regions = min(MOST_REGIONS, len(real_rows) // per_region)
        if num_regions < 2 or len(pool_rows) == 0:
            continue
        centres_RD, real_to_centres, counted_M = _clustered(view.real_MD[real_rows], num_regions, seed)
        pool_to_centres = _to_centres(view, pool_rows, centres_RD)
        real_R = np.bincount(counted_M, minlength=len(centres_RD)).tolist()
        pool_R = np.bincount(pool_to_centres.argmin(axis=1), minlength=len(centres_RD)).tolist()
        for number, (num_real, num_pool) in enumerate(zip(real_R, pool_R, strict=True)):
            lacking = max(0, round(num_real / len(real_rows) * len(pool_rows) - num_pool))
            members = np.flatnonzero(counted_M == number)
            shown = members[np.argsort(real_to_centres[members, number], kind="stable")[:num_shown]]
            nearest = np.argsort(pool_to_centres[:, number], kind="stable")[:num_shown]
            regions.append(
                Region(
                    class_name=name,
                    view=view_number,
                    number=number,
                    num_real=num_real,
                    num_pool=num_pool,
                    real_share=num_real / len(real_rows),
                    pool_share=num_pool / len(pool_rows),
                    num_lacking=lacking,
                    num_wanted=round(lacking / len(views)),
                    p_value=too_few_by_chance(num_pool, num_real, len(pool_rows), len(real_rows)),
                    p_adjusted=1.0,
                    is_significant=False,
                    real_keys=[view.real_key_M[row] for row in real_rows[shown]],
                    pool_keys=[pool_key_N[row] for row in pool_rows[nearest]],
                )
            )
    adjusted = adjusted_p_values(np.array([region.p_value for region in regions])).tolist()
    lacking_ones = [
        region.model_copy(update={"p_adjusted": value, "is_significant": value <= FALSE_DISCOVERIES})
        for region, value in zip(regions, adjusted, strict=True)
        if region.num_lacking > 0
    ]
    return sorted(lacking_ones, key=lambda region: (-region.num_lacking, region.p_value, region.class_name, region.view, region.number))


def _clustered(real_MD: Floats, num_regions: int, seed: int) -> tuple[Doubles, Doubles, Ints]:
    """Centres, squared distances of real images to them, and the region at which each real image is counted."""
    rows_MD = np.asarray(real_MD, np.float64)
    num_different = len(np.unique(rows_MD, axis=0))
    num = min(num_regions, num_different)
    seeds = (np.random.default_rng([seed, start]) for start in range(_STARTS))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # of empty clusters, which lack nothing
        starts = [kmeans2(rows_MD, num, iter=_ROUNDS, minit="++", rng=rng) for rng in seeds]
    centres_RD, own_M = min(starts, key=lambda start: ((rows_MD - start[0][start[1]]) ** 2).sum())
    to_centres = squared_distances(rows_MD, centres_RD)
    # Formed without one of its n images, a centre lies n / (n - 1) times as far from it; without its only one nowhere.
    everyone, size_M = np.arange(len(rows_MD)), np.bincount(own_M)[own_M]
    without_itself = to_centres.copy()
    without_itself[everyone, own_M] *= (size_M / np.maximum(size_M - 1, 1)) ** 2
    without_itself[everyone[size_M == 1], own_M[size_M == 1]] = np.inf
    return centres_RD, to_centres, without_itself.argmin(axis=1).astype(np.int64)


def _to_centres(view: MetricView, pool_rows: Ints, centres_RD: Doubles) -> Doubles:
    blocks = [pool_rows[start : start + _BLOCK] for start in range(0, len(pool_rows), _BLOCK)]
    return np.concatenate([squared_distances(view.pool_ND[rows], centres_RD) for rows in blocks])


def too_few_by_chance(num_pool: int, num_real: int, all_pool: int, all_real: int) -> float:
    """Fisher's exact test: the probability of at most `num_pool` of `all_pool` in a region with `num_real` of
    `all_real`."""
    return float(scipy.stats.hypergeom.cdf(num_pool, all_pool + all_real, all_pool, num_pool + num_real))


def adjusted_p_values(p_R: Doubles) -> Doubles:
    """P-values adjusted for the false discovery rate (Benjamini and Hochberg 1995)."""
    return np.asarray(scipy.stats.false_discovery_control(p_R)) if len(p_R) else p_R
