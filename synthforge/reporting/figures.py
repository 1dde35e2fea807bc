"""Figures of result files in words; what `evaluation.verdict` does for results in memory."""

from __future__ import annotations

from typing import Any


def points(one: dict[str, float]) -> str:
    """A difference in points of accuracy, with its interval."""
    return f"{100 * one['value']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"


def part_of_loss(part: dict[str, Any]) -> str:
    """Of a diagnosis; empty if it was not measured."""
    return points(part["loss"]) if part["loss"] is not None else "not shown to differ" if part["verdict"] == "not shown" else ""


def percent(one: dict[str, float]) -> str:
    """An accuracy, with its interval."""
    return f"{100 * one['value']:.1f} % [{100 * one['low']:.1f}, {100 * one['high']:.1f}]"


def distance(one: dict[str, Any]) -> str:
    """A figure of the gap, with its interval as far as it is known."""
    if one["value"] is None:
        return "unknown"
    return f"{one['value']:.3g}" + (f" [{one['low']:.3g}, {one['high']:.3g}]" if one["low"] is not None else "")


def in_points(one: dict[str, float]) -> tuple[float, float, float]:
    """A share or a difference of shares, and its interval, times 100."""
    return 100 * one["value"], 100 * one["low"], 100 * one["high"]
