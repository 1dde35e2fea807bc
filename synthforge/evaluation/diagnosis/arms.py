"""The arms of a diagnosis: training sets of one size that differ from each other in one thing.

- `real`: the real images.
- `random`: images of the pool.
- `rendered`: each real image as the generator renders it, image-to-image at low strength. Real content, generated look.
- `resampled`: real images, each as often as the pool has images like it in its class. Real look, generated content.
- `rendered-resampled`: rendered images, resampled in the same way.
- `label-filtered`: images of the pool that look like their class.
- `repeated`: some label-filtered images, repeated as often as `resampled` repeats its images, but chosen at random.

Sets are kept as files with one column of weights, `Images.weight_N`. What a weight means depends on the arm; see its
class below. The images that an arm takes all have weight 1.

Shapes: N real images, M pool images, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from synthforge.arrays import Bools, Doubles, Ints
from synthforge.evaluation.sets import Images
from synthforge.recipe.evaluation import REAL

RANDOM, LABEL_FILTERED, RENDERED = "random", "label-filtered", "rendered"
REPEATED, RESAMPLED, RENDERED_RESAMPLED = "repeated", "resampled", "rendered-resampled"
_ANY_NUMBER = 2**40


@dataclass(frozen=True)
class _TakenAgain(Images, ABC):
    """Images that an arm may take more than once, so there are enough for any size."""

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images. Unlike in `Images.usable`, images of weight 0 stay."""
        return self.take(self.not_copied(is_copy))

    def reach(self, num_classes: int) -> Ints:
        """A very large number for each class that has an image with weight; int64 (C,)."""
        return np.where(np.bincount(self.label_N[self.weight_N > 0], minlength=num_classes) > 0, _ANY_NUMBER, 0)

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        """So many of each class, each with weight 1, in the order of their rows."""
        chooser, parts = np.random.default_rng(seed), []
        for number, wanted in enumerate(wanted_C.tolist()):
            order = chooser.permutation(np.flatnonzero(self.label_N == number))
            parts.append(self._taken(order, wanted, (*seed, number)))
        taken = self.take(np.sort(np.concatenate(parts)))
        return Images(taken.address, taken.row_N, taken.label_N, taken.sha256_N, is_real=taken.is_real, weight_N=np.ones(len(taken)))

    @abstractmethod
    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:
        """Rows of one class.

        Args:
            order: all rows of the class, in the order in which `Images.draw` takes them.
        """


@dataclass(frozen=True)
class Repeated(_TakenAgain):
    """Images that an arm takes as often as their weights say, up to rounding.

    If the weights of a class are equal, these are the images that `Images.draw` takes.
    """

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:
        return np.repeat(order, _copies(self.weight_N[order], wanted, seed))


@dataclass(frozen=True)
class LabelFiltered(_TakenAgain):
    """A pool behind a label filter: weight 1 passes, weight 0 fails.

    An arm takes the images that `Images.draw` takes, but others in place of those that fail. If too few pass, the first
    are taken again.
    """

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:  # noqa: ARG002
        return np.resize(order[self.weight_N[order] > 0], wanted)


@dataclass(frozen=True)
class RepeatedAtRandom(_TakenAgain):
    """Some of the images that `LabelFiltered` takes, repeated with given weights in random order.

    Weight -1: the image fails the label filter. The other weights of a class are a list. Which image stores
    which weight has no meaning. `_taken` sorts the list and deals it out to images in random order.
    """

    @classmethod
    def like(cls, pool: Images, passes_M: Bools, pattern: Images) -> RepeatedAtRandom:
        """A pool that takes over another set's list of weights; which image gets which means nothing."""
        return cls(**{**pool.__dict__, "weight_N": _spread(pool.label_N, passes_M, _by_class(pattern))})

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images; the list of weights goes to the others."""
        kept = super().usable(is_copy)
        return replace(kept, weight_N=_spread(kept.label_N, kept.weight_N >= 0, _by_class(self)))

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:
        stored = self.weight_N[order]
        weights = np.sort(stored[stored > 0])[::-1]
        return np.repeat(order[stored >= 0][: len(weights)], _copies(weights, wanted, seed))


_KINDS: dict[str, type[Images]] = {
    LABEL_FILTERED: LabelFiltered,
    REPEATED: RepeatedAtRandom,
    RENDERED: Repeated,
    RESAMPLED: Repeated,
    RENDERED_RESAMPLED: Repeated,
}
"""Arms that may take an image more than once."""


def as_source(key: str, images: Images) -> Images:
    """The images as the class that takes them for this arm."""
    return _KINDS.get(key, Images)(**images.__dict__)


def arm_images(
    real: Images, pool: Images, *, passes_M: Bools, weight_N: Doubles, renderings: Images | None, is_rendered_N: Bools
) -> dict[str, Images]:
    """The images that each arm takes from, by the arm's name.

    Args:
        passes_M: which pool images pass the label filter.
        weight_N: how often the pool has images like each real image, mean 1 in each class.
        renderings: the real images as the generator renders them, in the same order; None if there are none.
        is_rendered_N: which real images have a rendering.
    """
    resampled = replace(real, weight_N=weight_N)
    images = {
        REAL: real,
        RANDOM: pool,
        LABEL_FILTERED: replace(pool, weight_N=passes_M.astype(np.float64)),
        REPEATED: RepeatedAtRandom.like(pool, passes_M, resampled),
        RESAMPLED: resampled,
    }
    if renderings is not None:
        images |= {RENDERED: renderings, RENDERED_RESAMPLED: replace(renderings, weight_N=weight_N[is_rendered_N])}
    return {name: as_source(name, of_arm) for name, of_arm in images.items()}


def _copies(weight_N: Doubles, wanted: int, seed: tuple[int, ...]) -> Ints:
    """How often to take each image to get `wanted` in all; int64 (N,).

    Systematic sampling: weights are scaled to the number wanted, and a weight w becomes floor(w) or ceil(w) copies, w
    on average. If all weights are equal, the first images get one copy each.
    """
    if not wanted:
        return np.zeros(len(weight_N), np.int64)
    if (weight_N == weight_N[0]).all():
        return np.bincount(np.arange(wanted) % len(weight_N), minlength=len(weight_N)).astype(np.int64)
    ends = np.cumsum(weight_N)
    copies_N: Ints = np.diff(np.floor(ends / ends[-1] * wanted + np.random.default_rng(seed).random()), prepend=0).astype(np.int64)
    return copies_N


def _by_class(images: Images) -> dict[int, Doubles]:
    return {int(number): images.weight_N[images.label_N == number] for number in np.unique(images.label_N)}


def _spread(label_M: Ints, passes_M: Bools, weights: Mapping[int, Doubles]) -> Doubles:
    """Weights (M,) for `RepeatedAtRandom`: images that pass store their class's list, largest first; others have -1."""
    weight_M = np.where(passes_M, 0.0, -1.0)
    for number, of_class in weights.items():
        rows = np.flatnonzero(passes_M & (label_M == number))
        largest = np.sort(of_class[of_class > 0])[::-1][: len(rows)]
        weight_M[rows[: len(largest)]] = largest
    return weight_M
