"""The arms of a diagnosis: training sets of one size, each of which differs from another in one thing.

- `real`: the real images.
- `random`: images of the pool.
- `rendered`: each real image as the generator renders it, by real guidance at low strength. Real content, generated look.
- `resampled`: real images, each as often as the pool has images like it within its class. Real look, generated content.
- `rendered-resampled`: the same of rendered images.
- `label-filtered`: images of the pool; those that don't look like their class are replaced by others that do.
- `repeated`: some of the label-filtered images, as often as `resampled` has its images, but whichever they are.

Shapes: N real images, M pool images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from synthforge.evaluation.sets import Bools, Floats, Images, Ints
from synthforge.recipe.evaluation import REAL

RANDOM, LABEL_FILTERED, RENDERED = "random", "label-filtered", "rendered"
REPEATED, RESAMPLED, RENDERED_RESAMPLED = "repeated", "resampled", "rendered-resampled"
_FIRST_NAMES = {"believed": LABEL_FILTERED}
"""Arms by their names in results of earlier versions."""
_ANY_NUMBER = 2**40


@dataclass(frozen=True)
class _TakenAgain(Images):
    """Images that an arm may take more than once, so that they reach for any size."""

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images."""
        return self.take(self.not_copied(is_copy))

    def reach(self, num_classes: int) -> Ints:
        """Any number of a class of which an image has weight; int64 (C,)."""
        return np.where(np.bincount(self.label_N[self.weight_N > 0], minlength=num_classes) > 0, _ANY_NUMBER, 0)

    def draw(self, wanted_C: Ints, seed: tuple[int, ...]) -> Images:
        """So many of each class, each with weight 1, in the order they lie in."""
        chooser, parts = np.random.default_rng(seed), []
        for number, wanted in enumerate(wanted_C.tolist()):
            order = chooser.permutation(np.flatnonzero(self.label_N == number))
            parts.append(self._taken(order, wanted, (*seed, number)))
        taken = self.take(np.sort(np.concatenate(parts)))
        return Images(taken.address, taken.row_N, taken.label_N, taken.sha256_N, is_real=taken.is_real, weight_N=np.ones(len(taken)))

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:
        """Rows of one class.

        Args:
            order: all rows of the class in the order in which `Images.draw` takes them.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Repeated(_TakenAgain):
    """Images that an arm takes as often as their weights say, up to rounding.

    If the weights of a class are equal, it takes those that `Images.draw` does.
    """

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:
        return np.repeat(order, _copies(self.weight_N[order], wanted, seed))


@dataclass(frozen=True)
class LabelFiltered(_TakenAgain):
    """A pool of which an arm takes images of weight 1: those that `Images.draw` takes of the whole pool, the others replaced.

    If there are too few, the first are taken again.
    """

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:  # noqa: ARG002
        return np.resize(order[self.weight_N[order] > 0], wanted)


@dataclass(frozen=True)
class RepeatedAtRandom(_TakenAgain):
    """Some of the images that `LabelFiltered` takes, as often as the weights say, whichever image they stand at.

    Images of weight -1 fail the label filter.
    """

    @classmethod
    def like(cls, pool: Images, passes_M: Bools, pattern: Images) -> RepeatedAtRandom:
        """A pool with the weights that another set's images have, class by class."""
        return cls(**{**pool.__dict__, "weight_N": _spread(pool.label_N, passes_M, _by_class(pattern))})

    def usable(self, is_copy: Mapping[str, bool]) -> Self:
        """Without copies of holdout images; their weights go to others."""
        kept = super().usable(is_copy)
        return replace(kept, weight_N=_spread(kept.label_N, kept.weight_N >= 0, _by_class(self)))

    def _taken(self, order: Ints, wanted: int, seed: tuple[int, ...]) -> Ints:
        weights = np.sort(self.weight_N[order][self.weight_N[order] > 0])[::-1]
        passing = order[self.weight_N[order] >= 0][: len(weights)]
        return np.repeat(passing, _copies(weights, wanted, seed))


_KINDS: dict[str, type[Images]] = {
    LABEL_FILTERED: LabelFiltered,
    REPEATED: RepeatedAtRandom,
    RENDERED: Repeated,
    RESAMPLED: Repeated,
    RENDERED_RESAMPLED: Repeated,
}
"""How an arm takes its images; others do without repetition."""


def as_source(key: str, images: Images) -> Images:
    """The images of the arm `key`, as it takes them."""
    return _KINDS.get(key, Images)(**images.__dict__)


def in_new_names(by_arm: Mapping[str, str]) -> dict[str, str]:
    """Values by the name of their arm, where an earlier version may have written the names."""
    return {_FIRST_NAMES.get(name, name): value for name, value in by_arm.items()}


def arm_images(
    real: Images, pool: Images, *, passes_M: Bools, weight_N: Floats, renderings: Images | None, is_rendered_N: Bools
) -> dict[str, Images]:
    """The images that each arm takes from, by its name.

    Args:
        passes_M: which pool images pass the label filter.
        weight_N: how often the pool has images like each real image, mean 1 in each class.
        renderings: the real images as the generator renders them, in their order; None if there are none.
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
    return {name: as_source(name, found) for name, found in images.items()}


def _copies(weight_N: Floats, wanted: int, seed: tuple[int, ...]) -> Ints:
    """How often to take each image, so that they are as many as are wanted; int64 (N,).

    By systematic sampling: a weight w becomes floor(w) or ceil(w) copies, w on average, once weights are scaled to the number wanted.
    Of equal weights the first have a copy each.
    """
    if not wanted:
        return np.zeros(len(weight_N), np.int64)
    if (weight_N == weight_N[0]).all():
        return np.bincount(np.arange(wanted) % len(weight_N), minlength=len(weight_N)).astype(np.int64)
    ends = np.cumsum(weight_N)
    copies_N: Ints = np.diff(np.floor(ends / ends[-1] * wanted + np.random.default_rng(seed).random()), prepend=0).astype(np.int64)
    return copies_N


def _by_class(images: Images) -> dict[int, Floats]:
    return {int(number): images.weight_N[images.label_N == number] for number in np.unique(images.label_N)}


def _spread(label_M: Ints, passes_M: Bools, weights: Mapping[int, Floats]) -> Floats:
    """Give each class's largest weights to images that pass the label filter, 0 to the rest of these, -1 to those that fail it; (M,)."""
    weight_M = np.where(passes_M, 0.0, -1.0)
    for number, of_class in weights.items():
        rows = np.flatnonzero(passes_M & (label_M == number))
        largest = np.sort(of_class[of_class > 0])[::-1][: len(rows)]
        weight_M[rows[: len(largest)]] = largest
    return weight_M
