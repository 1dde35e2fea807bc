"""Figures of results in words, and as numbers for plots."""

from __future__ import annotations

from synthforge.curation.result import Distance
from synthforge.evaluation.results.types import LossPart
from synthforge.evaluation.results.words import points
from synthforge.statistics import Measured


def part_of_loss(part: LossPart) -> str:
    """Of a diagnosis; empty if it was not measured."""
    return points(part.loss) if part.loss is not None else "not shown to differ" if part.verdict == "not shown" else ""


def distance(one: Distance) -> str:
    """A figure of the gap, with its interval as far as it is known."""
    if one.value is None:
        return "unknown"
    return f"{one.value:.3g}" + (f" [{one.low:.3g}, {one.high:.3g}]" if one.low is not None else "")


def in_points(one: Measured) -> tuple[float, float, float]:
    """A share or a difference of shares, and its interval, times 100."""
    return 100 * one.value, 100 * one.low, 100 * one.high
