"""The rules by which a subset is selected, by name. No heavy import: recipes ask for the names; methods.py has the functions.

A new rule is one function from a `methods.Problem` to `methods.Picked`, and its row in `RULES`.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from synthforge.recipe.curation import RULES as RULES

if TYPE_CHECKING:
    from synthforge.curation.selection.methods import Picked, Problem


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
