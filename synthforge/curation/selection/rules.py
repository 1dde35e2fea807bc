"""The table of selection rules, with their input and output.

A new rule is one function from a `Problem` to `Picked`, and a row in `RULES`. The functions of the rows here are in
methods.py. This module imports nothing heavy, since recipes need the names.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from synthforge.arrays import Doubles, Ints
from synthforge.recipe.curation import RULES as RULES

if TYPE_CHECKING:
    from synthforge.curation.selection.spaces import Space


@dataclass(frozen=True)
class Problem:
    """Input of a rule: the images of one class in pool and reference."""

    spaces: list[Space]
    """Pool and real images in each view."""
    duplicate_of_N: Ints
    """For each pool row the first row with equal features."""
    num_keep: int
    """Images to pick."""
    seed: int
    stop_at_floor: bool
    """Pick at random while the set is at the floor."""

    @property
    def num_pool(self) -> int:
        """Images in the pool."""
        return len(self.duplicate_of_N)

    def permutation(self, num: int) -> Ints:
        """A random permutation of the numbers below `num`, the same for the same seed."""
        return np.random.Generator(np.random.Philox(key=self.seed)).permutation(num)

    def picked(self, indices: Sequence[int] | Ints, objective: Doubles | None = None) -> Picked:
        """The output of a rule without a floor."""
        unknown = np.full(self.num_keep, np.nan)
        return Picked(np.asarray(indices, np.int64), unknown if objective is None else objective, unknown.copy(), 0)


@dataclass(frozen=True)
class Picked:
    """Output of a rule."""

    indices: Ints
    """Rows of the pool in the order of picking. A prefix is a smaller selection."""
    objective: Doubles
    """Objective after each pick: summed over views, in units of each view's kernel variance. nan: the rule has none."""
    floor: Doubles
    """Mean objective of an endless set of real images, which is the reference's own noise. nan: unknown."""
    num_at_floor: int
    """Picks made at random because the set was at the floor."""


@dataclass(frozen=True)
class SelectionRule:
    """A rule of selection."""

    function: Callable[[Problem], Picked] | str
    """The function, or the name of one in methods.py, which is imported when it is first needed."""
    sentence: str
    """What it picks, for help and reports."""
    regime: Literal["s2r", "da", "both"]
    """What the images are for: training on synthetic images alone, beside real ones, or either."""

    def run(self, problem: Problem) -> Picked:
        """Pick images."""
        function = self.function
        if isinstance(function, str):
            function = pkgutil.resolve_name(f"synthforge.curation.selection.methods:{function}")
        picked: Picked = function(problem)
        return picked


_TABLE: list[tuple[str, str, str, Literal["s2r", "da", "both"]]] = [
    ("random", "at_random", "Random images: the baseline of all other rules.", "both"),
    ("nearest", "nearest_to_each", "Each real image in turn takes the nearest image that is left.", "s2r"),
    ("center", "nearest_to_center", "The images nearest to the mean of the real images.", "s2r"),
    ("clusters", "by_clusters", "Images from each cluster of the pool that is nearest to some real image (DS3).", "both"),
    ("covariance", "by_covariance", "Match the covariance of the real images, while the mean stays in bounds (greedy).", "both"),
    ("mean+covariance", "by_moments", "Match mean and covariance of the real images (kernel herding).", "s2r"),
    ("mmd", "by_mmd", "Match the whole distribution of the real images (kernel herding, Gaussian kernel).", "s2r"),
    ("smoothed", "by_smoothed_mmd", "Fill in around the real images: with them, match their smoothed distribution.", "da"),
    ("novel", "farthest_first", "Repeatedly the image farthest from all real and picked images.", "da"),
]
RULES.update({name: SelectionRule(function, sentence, regime) for name, function, sentence, regime in _TABLE})
