"""Compare the content of a pool with the real images, class by class: which kinds of images, and how often each.

This is content in the sense of a diagnosis. The gate `content` of a curation drops images that match unwanted texts.

Shapes: N real images, M pool images, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from synthforge.arrays import Doubles, Ints
from synthforge.curation.gap.metrics import squared_distances
from synthforge.features.config import IndexConfig
from synthforge.features.neighbours import Neighbours

NEAREST = 16
"""Nearest real images that a pool image counts for; at most a third of the class's images."""
ABSENT = 0.7
"""Weight below which a real image counts as absent from the pool."""
SIGNIFICANT = 0.05
"""Largest p-value at which a class of the pool counts as distributed unlike the real one."""
_STEPS = 20
_PERMUTATIONS = 99
_MOST_TESTED = (200, 600)
"""Largest number of real and of pool images of a class in the test."""


def content_weights(
    real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints
) -> tuple[Doubles, dict[int, float]]:
    """How often the pool has images like each real image of its class, relative to the real images.

    Returns weights (N,), mean 1 in each class, and the p-value of each class with enough images for the test
    (`_p_value`). All weights of a class are 1 if its p-value is above `SIGNIFICANT`.

    On pools with planted content, these weights lay closer to the truth than those of k-means with 5 images to a
    cluster, kernel mean matching, or a classifier of real and pool images.
    """
    weight_N, p_values = np.ones(len(real_ND)), {}
    for number in np.unique(real_class_N).tolist():
        of_real, of_pool = real_class_N == number, pool_class_M == number
        nearest = min(NEAREST, int(of_real.sum()) // 3)
        if of_pool.sum() < 2 or nearest < 1:
            continue
        p_values[number] = _p_value(real_ND[of_real], pool_MD[of_pool], nearest, seed=number)
        if p_values[number] <= SIGNIFICANT:
            weight_N[of_real] = _weights(real_ND[of_real], pool_MD[of_pool], nearest)
    return weight_N, p_values


def _weights(real_ND: NDArray[Any], pool_MD: NDArray[Any], nearest: int) -> Doubles:
    """Weights of one class's real images, (N,).

    Every pool image counts for its `nearest` real images. Real images with these weights would give the same counts.
    Some steps of Richardson-Lucy deconvolution find the weights (Richardson 1972; Lucy 1974).
    Weights below `ABSENT` become 0: even a few images of a kind that the pool lacks would restore much accuracy.
    """
    num, index = len(real_ND), Neighbours(np.asarray(real_ND, np.float32), IndexConfig())
    counted_Mk = index.search(np.asarray(pool_MD, np.float32), nearest)[1]
    share_N = np.bincount(counted_Mk.ravel(), minlength=num) / counted_Mk.size
    own_N = np.arange(num)[:, None]  # a real image counts for itself and for its nearest others
    for_Nk = np.concatenate([own_N, index.exclude_self(nearest - 1)[1]], axis=1) if nearest > 1 else own_N
    places = np.repeat(np.arange(num), nearest), for_Nk.ravel()
    counts_NN = scipy.sparse.csr_array((np.full(for_Nk.size, 1 / nearest), places), shape=(num, num))
    weight_N: Doubles = np.full(num, 1 / num)
    for _ in range(_STEPS):
        weight_N *= counts_NN @ (share_N / np.maximum(counts_NN.T @ weight_N, 1e-12))
    weight_N /= weight_N.mean()
    weight_N[weight_N < ABSENT] = 0
    weight_N /= weight_N.mean()
    return weight_N


def _p_value(real_ND: NDArray[Any], pool_MD: NDArray[Any], nearest: int, seed: int) -> float:
    """P-value of the difference between pool and real images of a class, by counts over their nearest real images.

    A permutation test: the two sets are mixed and split again at random.
    """
    chooser = np.random.default_rng(seed)
    real, pool = (
        np.asarray(images[chooser.permutation(len(images))[:most]], np.float64)
        for images, most in zip((real_ND, pool_MD), _MOST_TESTED, strict=True)
    )
    both = np.concatenate([real, pool])
    apart = squared_distances(both, both)
    np.fill_diagonal(apart, -1)  # a real image counts for itself first

    def difference(of_real: Ints, of_pool: Ints) -> float:
        of_real, of_pool = of_real.astype(np.int64), of_pool.astype(np.int64)
        counts = [
            np.bincount(np.argpartition(apart[np.ix_(rows, of_real)], nearest - 1, axis=1)[:, :nearest].ravel(), minlength=len(of_real))
            / len(rows)
            for rows in (of_real, of_pool)
        ]
        return float(((counts[0] - counts[1]) ** 2).sum())

    sides = np.arange(len(real)), np.arange(len(real), len(both))
    return float(
        scipy.stats.permutation_test(
            sides, difference, n_resamples=_PERMUTATIONS, alternative="greater", vectorized=False, rng=chooser
        ).pvalue
    )


def variety(real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints, tries: int = 5) -> float:
    """Mean distance to the nearest other pool image, divided by the same distance among equally many real images.

    Mean over classes. Below 1 the pool has less variety than the real images. It is 1 if no class has two images on
    both sides.
    """
    ratios = []
    for number in np.unique(real_class_N):
        of_real, of_pool = np.flatnonzero(real_class_N == number), np.flatnonzero(pool_class_M == number)
        num = min(len(of_real), len(of_pool))
        if num < 2:
            continue
        chooser = np.random.default_rng(int(number))
        distances = [
            [
                float(np.sqrt(Neighbours(np.asarray(side, np.float32), IndexConfig()).exclude_self(1)[0]).mean())
                for side in (real_ND[chooser.permutation(of_real)[:num]], pool_MD[chooser.permutation(of_pool)[:num]])
            ]
            for _ in range(tries)
        ]
        apart_real, apart_pool = np.mean(distances, axis=0)
        if apart_real > 0:
            ratios.append(apart_pool / apart_real)
    return float(np.mean(ratios)) if ratios else 1.0
