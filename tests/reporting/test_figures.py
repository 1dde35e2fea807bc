"""Figures as short texts."""

from __future__ import annotations

import pytest

from synthforge.curation.result import Distance
from synthforge.evaluation.results.types import LossPart
from synthforge.reporting.figures import distance, in_points, part_of_loss
from synthforge.statistics import Measured

LOSS = Measured(value=0.031, low=0.012, high=0.05)


def test_a_part_of_the_loss_has_a_unit_and_an_interval_if_it_was_measured() -> None:
    assert part_of_loss(LossPart(loss=LOSS, verdict="loss")) == "3.1 points [1.2, 5.0]"
    assert part_of_loss(LossPart(loss=None, verdict="not shown")) == "no measurable difference"
    assert part_of_loss(LossPart(loss=None, verdict="not measured")) == ""


def test_a_distance_is_told_as_far_as_it_is_known() -> None:
    known = Distance(value=0.12345, low=0.1, high=0.2, n=10, over="images")
    assert distance(known) == "0.123 [0.1, 0.2]"
    assert distance(known.model_copy(update={"low": None, "high": None})) == "0.123"
    assert distance(known.model_copy(update={"value": None})) == "unknown"


def test_points_are_hundredths() -> None:
    assert in_points(LOSS) == pytest.approx((3.1, 1.2, 5.0))
