"""Label doubts: the label of a pool image is doubted if few of the real images most like it are of its class.

The gate `labels` of a curation asks the same with thresholds of its own.

Shapes: N real images, M pool images, D features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from synthforge.arrays import Bools, Ints
from synthforge.features.config import IndexConfig
from synthforge.features.neighbours import Neighbours

DOUBTED_BY_CHANCE = 0.01
"""Largest p-value at which a pool has more doubtful labels than the real images."""


@dataclass(frozen=True)
class Doubts:
    """Images whose label is doubted, because they don't look like their class."""

    doubted_M: Bools
    share: float
    """Of the pool."""
    share_of_real: float
    """Of the real images, each judged by the others."""
    p_value: float
    """Probability of so many in the pool by chance, at the rate of the real images (`_more_by_chance`). It is not
    exact if classes overlap, since the same images decide which classes are doubted at all."""


def doubts(real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints, *, neighbours: int, loss: float) -> Doubts:
    """Doubt a pool image if fewer of its nearest real images are of its class than usual for real images of that class.

    Usual is what all real images of the class reach except a share `loss`.

    In classes that overlap with others, more than this share has no neighbour of its own class. There a pool image
    without such a neighbour is doubted only if most of these must be wrong: they are more than twice as frequent as
    among the real images, and more than chance explains.

    Args:
        real_ND: features of the real images, or of their renderings if there are some.
        neighbours: number of real images that vote; at most all other real images. Smaller classes can't have all
            votes, and need fewer.
    """
    votes = max(1, min(neighbours, len(real_class_N) - 1))
    index = Neighbours(np.asarray(real_ND, np.float32), IndexConfig())
    agree_N = (real_class_N[index.exclude_self(votes)[1]] == real_class_N[:, None]).mean(axis=1)
    agree_M = (real_class_N[index.search(np.asarray(pool_MD, np.float32), votes)[1]] == pool_class_M[:, None]).mean(axis=1)
    classes = np.unique(real_class_N)
    fewest_C = np.zeros(int(max(real_class_N.max(), pool_class_M.max(initial=0))) + 1)
    for number in classes:
        own = agree_N[real_class_N == number]
        most = min(len(own) - 1, votes) / votes
        fewest_C[number] = min(0.5 * most, float(np.quantile(own, loss, method="lower")))
        is_rare = (own == 0).sum() <= max(1, loss * len(own))
        if is_rare or _are_mostly_wrong(agree_M[pool_class_M == number] == 0, own == 0, len(classes)):
            fewest_C[number] = max(fewest_C[number], 0.5 / votes)
    doubted_M, doubted_N = agree_M < fewest_C[pool_class_M], agree_N < fewest_C[real_class_N]
    share = float(doubted_M.mean()) if len(doubted_M) else 0.0
    return Doubts(doubted_M, share, share_of_real=float(doubted_N.mean()), p_value=_more_by_chance(doubted_M, doubted_N))


def label_filter(doubted_M: Bools, class_M: Ints) -> tuple[Bools, list[int]]:
    """Which pool images pass, bool (M,), and the classes in which every image is doubted; these pass as a whole."""
    passes_M = ~doubted_M
    wholly_doubted = [number for number in np.unique(class_M).tolist() if not passes_M[class_M == number].any()]
    return passes_M | np.isin(class_M, wholly_doubted), wholly_doubted


def _are_mostly_wrong(pool_M: Bools, real_N: Bools, num_classes: int) -> bool:
    """Whether a class has more than twice the share of marked images in the pool, and not by chance."""
    is_more = len(pool_M) > 0 and pool_M.mean() > 2 * real_N.mean()
    return bool(is_more) and _more_by_chance(pool_M, real_N) <= DOUBTED_BY_CHANCE / num_classes


def _more_by_chance(pool_M: Bools, real_N: Bools) -> float:
    """P-value of the pool's larger share of marked images (Fisher's exact test, one-sided)."""
    counts = [[int(pool_M.sum()), int((~pool_M).sum())], [int(real_N.sum()), int((~real_N).sum())]]
    return float(scipy.stats.fisher_exact(counts, alternative="greater").pvalue)
