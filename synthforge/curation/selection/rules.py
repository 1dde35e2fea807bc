"""The rules by which a subset is selected, by name; what a rule is given, and what it gives.

A new rule is one function from a `Problem` to `Picked`, and its row in `RULES`. The functions of these rows stand in methods.py.
No heavy import here: recipes ask for the names.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.recipe.curation import RULES as RULES

if TYPE_CHECKING:
    from synthforge.curation.selection.spaces import Space

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """What is to be picked from what."""

    spaces: list[Space]
    duplicate_of_N: Ints
    """For each row the first one equal to it."""
    num_keep: int
    seed: int
    stop_at_floor: bool

    @property
    def num_pool(self) -> int:
        return len(self.duplicate_of_N)

    def permutation(self, num: int) -> Ints:
        """Of the numbers below `num`, by the seed."""
        return np.random.Generator(np.random.Philox(key=self.seed)).permutation(num)

    def picked(self, indices: Sequence[int] | Ints, objective: Doubles | None = None) -> Picked:
        """Of a method without a floor."""
        unknown = np.full(self.num_keep, np.nan)
        return Picked(np.asarray(indices, np.int64), unknown if objective is None else objective, unknown.copy(), 0)


@dataclass(frozen=True)
class Picked:
    """What was picked, in order."""

    indices: Ints
    """Rows of the pool; a prefix is a smaller selection."""
    objective: Doubles
    """After each pick, summed over views, in units of each view's kernel variance; nan where the method has none."""
    floor: Doubles
    """What an endless set of real images would have on average: the reference's own noise; nan where unknown."""
    num_at_floor: int
    """Picks made at random because the set was at the floor."""


@dataclass(frozen=True)
class Rule:
    """A way to select."""

    function: Callable[[Problem], Picked] | str
    """A name is that of one in methods.py, which is loaded when it is first needed."""
    sentence: str
    """What it picks, for help and reports."""
    regime: Literal["s2r", "da", "both"]
    """What it is meant for: training on synthetic images alone, beside real ones, or either."""

    def run(self, problem: Problem) -> Picked:
        """Pick images."""
        function = self.function
        if isinstance(function, str):
            function = pkgutil.resolve_name(f"synthforge.curation.selection.methods:{function}")
        picked: Picked = function(problem)
        return picked


RULES.update(
    {
        "random": Rule("at_random", "Random images: what every other rule has to beat.", "both"),
        "nearest": Rule("nearest_to_each", "Each real image in turn claims the nearest image that is left.", "s2r"),
        "center": Rule("nearest_to_center", "The images nearest to the mean of the real ones.", "s2r"),
        "clusters": Rule("by_clusters", "Evenly from those clusters of the pool that are nearest to some real image (DS3).", "both"),
        "covariance": Rule(
            "by_covariance",
            "Greedily the image that brings the set's covariance nearest to the real one, while the mean stays in bounds.",
            "both",
        ),
        "mean+covariance": Rule(
            "by_moments", "Greedily the image that brings the set's mean and covariance nearest to the real ones.", "s2r"
        ),
        "mmd": Rule("by_mmd", "Greedily the image that brings the set's whole distribution nearest to the real one (Gaussian MMD).", "s2r"),
        "smoothed": Rule(
            "by_smoothed_mmd",
            "Greedily the image that brings real and picked ones together nearest to a smoothed real distribution.",
            "da",
        ),
        "novel": Rule("farthest_first", "The image farthest from all real and picked ones, again and again.", "da"),
    }
)
