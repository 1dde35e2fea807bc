"""The result of a curation as gap.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthforge.curation.result import Better, CurateResult, Distance, Score, ScoreChange, Trial
from synthforge.statistics import Measured

OLD = Path(__file__).parent.parent / "old" / "gap.json"


def old() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(OLD.read_text())
    return content


def test_what_is_of_one_run_alone_is_not_in_the_file() -> None:
    result = CurateResult.model_validate(old())
    again = result.model_copy(update={"folder": "elsewhere", "seconds": 9.0, "contact_sheet": "x.png"})
    assert again.to_bytes() == result.to_bytes()
    content = json.loads(result.to_bytes())
    assert not CurateResult.of_one_run & set(content) and content["schema_version"] == 2


def test_a_written_result_is_read_as_it_was() -> None:
    result = CurateResult.model_validate(old())
    assert CurateResult.model_validate(json.loads(result.to_bytes())).to_bytes() == result.to_bytes()


def test_the_first_version_is_read_with_todays_names() -> None:
    content = old()
    score = {"images": 9, "accuracy": 0.5, "probability": 0.4, "accuracy_by_class": {}, "seeds": 2}
    change = {"probability": 0.1, "probability_interval": [0.0, 0.2], "accuracy": 0.3, "accuracy_interval": [0.1, 0.5]}
    content["training"] = {"kept": score, "random": score, "difference": change, "validation_images": 9}
    result = CurateResult.model_validate(content)
    assert result.metric_encoder == content["judge"]
    assert result.training is not None and result.training.difference.accuracy == Measured(value=0.3, low=0.1, high=0.5)


@pytest.mark.parametrize(("low", "high", "direction"), [(0.1, 0.3, "better"), (-0.3, -0.1, "worse"), (-0.1, 0.1, "no different")])
def test_training_says_what_its_interval_excludes(low: float, high: float, direction: Better) -> None:
    score = Score(images=9, accuracy=0.5, probability=0.4, accuracy_by_class={}, seeds=2)
    change = Measured(value=(low + high) / 2, low=low, high=high)
    trial = Trial(kept=score, random=score, difference=ScoreChange(probability=change, accuracy=change), validation_images=9)
    assert trial.direction == direction


def test_a_distance_without_a_value_has_no_measure() -> None:
    nothing = Distance(value=None, low=None, high=None, n=3, over="images", reason="3 images")
    assert nothing.measured is None
    assert nothing.model_copy(update={"value": 1.0, "low": 0.0, "high": 2.0}).measured == Measured(value=1.0, low=0.0, high=2.0)
