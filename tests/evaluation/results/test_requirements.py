"""Whether requirements hold."""

from __future__ import annotations

import pytest

from synthforge.errors import RequestError
from synthforge.evaluation.results.requirements import Requirement, holds, parsed
from synthforge.evaluation.results.types import Comparison, RequiredClaim, TableResult
from synthforge.statistics import Word
from tests.evaluation.results import made
from tests.evaluation.results.made import comparison, measured
from tests.evaluation.results.test_words import ARMS, claim


def require(text: str) -> Requirement:
    return parsed(text, list(ARMS), ["20", "50"])


def of_two_amounts(*required: RequiredClaim) -> list[TableResult]:
    """A table with accuracies of 0.9 and more with 50 real per class, and from 0.88 to 0.9 with 20."""
    settings = [
        made.setting(arms=dict.fromkeys(("heap", "real"), measured(0.9, *interval)), per_class=amount)
        for amount, interval in ((20, (0.88, 0.9)), (50, (0.9, 0.95)))
    ]
    return [made.table(settings, required=required)]


def test_an_accuracy_is_required_in_every_setting_and_of_an_arm_that_is_there() -> None:
    result = of_two_amounts()
    assert holds(require("real > 0.87"), result)
    assert not holds(require("real > 89%"), result)
    assert holds(require("real > 89% @ 50"), result)
    assert not holds(require("real >= 0.91"), result)
    assert holds(require("real >= 0.91 @ 50"), result)
    assert not holds(require("curated > 0.1"), result)
    assert not holds(require("curated >= real"), result)


@pytest.mark.parametrize(
    ("on_average", "hurts_at", "better", "not_worse"),
    [
        ("helped", [], True, True),
        ("helped", ["50"], False, False),
        ("cannot tell", [], False, True),
        ("did not help", [], False, True),
        ("hurt", [], False, False),
    ],
)
def test_a_comparison_is_required_on_average_and_may_hurt_nowhere(
    on_average: Word, hurts_at: list[str], *, better: bool, not_worse: bool
) -> None:
    found = [comparison("heap", "real", on_average)] * 2

    def of(found: list[Comparison]) -> list[TableResult]:
        asked = claim(("pair", "heap minus real"), found)
        return of_two_amounts(RequiredClaim(arm="heap", against="real", amount=None, claim=asked, hurts_at=hurts_at))

    result = of(found)
    assert holds(require("heap > real"), result) is better
    assert holds(require("heap >= real"), result) is not_worse
    assert not holds(require("heap >= real @ 20"), result)  # which was not asked
    assert not holds(require("heap >= real"), of(found[:1]))  # of one amount alone


@pytest.mark.parametrize("text", ["", "a", "real = random", "real > nothing", "nothing > real", "real > 1.5", "real > random @ 7"])
def test_what_is_no_requirement_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="--require"):
        parsed(text, list(ARMS), ["20"])
