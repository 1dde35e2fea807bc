"""Which pool images have doubtful labels: few of the real images most like them are of their class.

Shapes: N real images, M pool images, D features, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from synthforge.evaluation.sets import Bools, Ints
from synthforge.features.config import IndexConfig
from synthforge.features.neighbours import Neighbours

DOUBTED_BY_CHANCE = 0.01
"""A pool has more doubtful labels than the real images if so many would come by chance this seldom."""


@dataclass(frozen=True)
class Doubts:
    """Images whose label is doubted, since they don't look like their class."""

    doubted_M: Bools
    share: float
    """Share of the pool that is doubted."""
    share_of_real: float
    """Share of the real images that is doubted, each judged by the others."""
    p_value: float
    """Probability of so many in the pool by chance, if it had the rate of the real images (`_more_by_chance`). Where classes overlap it is
    not exact, since the same images decide which classes are doubted at all."""


def doubts(real_ND: NDArray[Any], real_class_N: Ints, pool_MD: NDArray[Any], pool_class_M: Ints, *, neighbours: int, loss: float) -> Doubts:
    """Doubt a pool image if fewer of its nearest real images are of its class than is usual for a real image of that class.

    Usual is what all real images of the class reach but a share `loss`. Some classes have more such images, which have no neighbour of
    their class at all. There, a pool image without such a neighbour is doubted only if most of them must be wrong: they are more than
    twice as many as among the real images, and more than chance would make them.

    Args:
        real_ND: features of the real images, or of their renderings where there are some, so that looks are alike.
        neighbours: number of real images that vote. A smaller class can't have all votes, and needs fewer.
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
    """Which pool images pass, bool (M,): those that are not doubted, but all of a class of which every image is; and such classes."""
    passes_M = ~doubted_M
    wholly_doubted = [number for number in np.unique(class_M).tolist() if not passes_M[class_M == number].any()]
    return passes_M | np.isin(class_M, wholly_doubted), wholly_doubted


def _are_mostly_wrong(pool_M: Bools, real_N: Bools, num_classes: int) -> bool:
    """Are more than twice as many of a class marked in the pool, and not by chance in one of so many classes?"""
    is_more = len(pool_M) > 0 and pool_M.mean() > 2 * real_N.mean()
    return bool(is_more) and _more_by_chance(pool_M, real_N) <= DOUBTED_BY_CHANCE / num_classes


def _more_by_chance(pool_M: Bools, real_N: Bools) -> float:
    """Probability that so many more of the pool's images are marked by chance (Fisher's exact test, one-sided)."""
    counts = [[int(pool_M.sum()), int((~pool_M).sum())], [int(real_N.sum()), int((~real_N).sum())]]
    return float(scipy.stats.fisher_exact(counts, alternative="greater").pvalue)
