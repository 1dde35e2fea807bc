"""Figures of results as short texts, and as numbers for plots."""

from __future__ import annotations

from synthforge.curation.result import Distance
from synthforge.evaluation.results.types import LossPart
from synthforge.evaluation.results.words import lost
from synthforge.recipe.curation import Regime
from synthforge.statistics import Measured

REGIMES: dict[Regime, str] = {"s2r": "training on synthetic images alone", "da": "training on synthetic and real images together"}
"""What a curated set is for."""


def part_of_loss(part: LossPart) -> str:
    """One part of a loss decomposition, such as "1.4 points [-0.6, 3.4]"; empty if it was not measured."""
    return lost(part.loss, "points") if part.loss is not None else "no measurable difference" if part.verdict == "not shown" else ""


def distance(one: Distance) -> str:
    """A distance with its 95 % interval, as far as it is known."""
    if one.value is None:
        return "unknown"
    return f"{one.value:.3g}" + (f" [{one.low:.3g}, {one.high:.3g}]" if one.low is not None else "")


def in_points(one: Measured) -> tuple[float, float, float]:
    """Value, low and high of a share or of a difference of shares, times 100."""
    return 100 * one.value, 100 * one.low, 100 * one.high
