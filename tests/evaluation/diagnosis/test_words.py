"""What is said of a diagnosis, and what is not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from synthforge.evaluation.diagnosis.contrasts import ArmOutcomes, losses
from synthforge.evaluation.diagnosis.words import advice_of, verdict_of
from tests.evaluation.diagnosis.test_contrasts import outcomes


def test_without_any_table_nothing_is_claimed() -> None:
    assert "Nothing could be compared" in verdict_of([])
    assert advice_of([]) == []


@pytest.mark.parametrize(
    ("lost_by", "lower", "cause"),
    [
        ("appearance", {"rendered", "rendered_resampled"}, "from appearance"),
        ("content", {"resampled", "rendered_resampled"}, "from content"),
        ("labels", set(), "from wrong labels"),
    ],
)
def test_what_accuracy_is_lost_by_is_named_and_advised_on(lost_by: str, lower: set[str], cause: str) -> None:
    real_arms = {name: 0.7 if name in lower else 0.9 for name in ("rendered", "resampled", "rendered_resampled")}
    pool_arms = dict.fromkeys(("label_filtered", "repeated"), 0.9 if lost_by == "labels" else 0.7)
    _, mean = losses([ArmOutcomes(outcomes(real=0.9, random=0.7, **real_arms, **pool_arms))], 0.005)
    tables: list[Any] = [SimpleNamespace(mean=mean, settings=[SimpleNamespace(real_per_class=20, facts=None)], covers_real_images=True)]
    assert {name for name, part in mean.parts.items() if part.verdict == "loss"} == {lost_by}
    assert f" {cause} (100% of the loss " in verdict_of(tables)
    assert [one.cause for one in advice_of(tables)] == [lost_by]
