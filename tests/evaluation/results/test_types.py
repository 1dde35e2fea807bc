"""Results are read back as they were written, and codes say what decides."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from synthforge.evaluation.results.types import PARTS, EvaluateResult, Loss, LossPart
from tests.evaluation.results import made
from tests.evaluation.results.made import comparison, measured


def test_an_evaluation_is_read_back_as_it_was_written() -> None:
    table = made.table([made.setting([comparison("curated", "random", "helped", 0.02)])], [made.claim("curation", "words", 0.02)])
    result = made.evaluation(made.table([made.setting([])]), table)
    again = EvaluateResult.model_validate_json(result.to_bytes())
    assert again == result
    assert again.first == table and again.tables[0].compares is False
    claim = table.claim("curation")
    assert claim is not None and claim.verdict == "helped"
    assert table.claim("adding") is None
    with pytest.raises(ValidationError):
        EvaluateResult.model_validate_json(result.to_bytes().replace(b'"helped"', b'"helpful"'))


def test_parts_of_a_loss_are_in_one_order_and_only_proven_ones_are_shown() -> None:
    part = LossPart(loss=measured(0.1), verdict="cannot tell")
    parts = dict.fromkeys(reversed(PARTS), part) | {"labels": LossPart(loss=measured(0.2), verdict="loss")}
    loss = Loss(whole=part, parts=parts)
    assert [*loss.parts] == [*PARTS]
    assert loss.shown == {"labels": measured(0.2)}
