"""Files of results: each has one model and a schema, and those of the version before are still read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from synthforge.cli.schemas import DOCUMENTS
from synthforge.curation.result import CurateResult
from synthforge.data.layout import Document, parse
from synthforge.errors import DatasetError, OutdatedError
from synthforge.evaluation.results.types import DiagnoseResult, EvaluateResult
from synthforge.recipe.load import load_recipe
from synthforge.reporting.gathered import Gathered
from synthforge.stages import RunNotes
from tests.conftest import DIGITS, ROOT

OLD = ROOT / "tests" / "old"
"""Files of a real run, as the version before wrote them; most of their settings, arms and classes are left out."""


def old(name: str) -> Any:
    """What such a file holds."""
    return json.loads((OLD / f"{name}.json").read_text())


def read(name: str, content: Any) -> Any:
    return parse(DOCUMENTS[name], json.dumps(content).encode(), f"{name}.json")


@pytest.mark.parametrize("name", ["evaluation", "diagnosis", "gap", "run"])
def test_old_files_are_read_and_come_out_in_the_new_form(name: str) -> None:
    found: Document = read(name, old(name))
    written = json.loads(found.to_bytes())
    assert written["schema_version"] == DOCUMENTS[name].model_fields["schema_version"].default
    jsonschema.validate(written, json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text()))
    assert read(name, written) == found


def test_an_old_evaluations_claims_have_codes_and_the_same_figures() -> None:
    content, found = old("evaluation"), read("evaluation", old("evaluation"))
    assert isinstance(found, EvaluateResult) and found.first is not None
    (table,) = content["tables"]
    assert [claim.kind for claim in found.first.claims] == ["instead", "curation", "curated-instead", "adding"]
    assert [claim.difference.model_dump() for claim in found.first.claims] == [claim["difference"] for claim in table["claims"]]
    for arm, was in table["settings"][0]["worth"].items():
        now = found.first.settings[0].worth[arm]
        for field in ("equivalent", "more_real", "others_per_real", "recovered"):
            one = getattr(now, field)
            figures = [one.value, one.low, one.high] if one is not None else [None] * 3
            assert figures == [was[field], was[f"{field}_low"], was[f"{field}_high"]]


def test_what_an_old_evaluation_was_required_is_found_by_its_arms() -> None:
    content = old("evaluation")
    claims = content["tables"][0]["claims"]
    words = ("curated less random", "curated less random with 5 real per class")
    content["tables"][0]["required"] = [{"claim": {**claims[1], "what": what}, "hurts_at": []} for what in words]
    required = read("evaluation", content).tables[0].required
    assert [(one.arm, one.against, one.amount) for one in required] == [("curated", "random", None), ("curated", "random", "5")]


def test_an_old_diagnosis_has_causes_and_todays_names_of_arms() -> None:
    content, found = old("diagnosis"), read("diagnosis", old("diagnosis"))
    assert isinstance(found, DiagnoseResult)
    assert [(one.cause, one.text) for one in found.advice] == [("rest", content["advice"][0])]
    (now,), (was,) = found.tables[0].settings, content["tables"][0]["settings"]
    assert now.accuracy["label-filtered"].model_dump() == was["accuracy"]["believed"] and "believed" not in now.accuracy
    part = was["loss"]["parts"]["rest"]
    assert now.loss.parts["rest"].share is not None
    assert now.loss.parts["rest"].share.model_dump() == {"value": part["share"], "low": part["share_low"], "high": part["share_high"]}
    assert list(now.loss.parts) == ["appearance", "content", "labels", "interaction", "rest"]


def test_an_old_gap_has_its_metric_encoder_and_intervals() -> None:
    content, found = old("gap"), read("gap", old("gap"))
    assert isinstance(found, CurateResult) and found.training is not None
    assert found.metric_encoder == content["judge"]
    assert found.gap.main.after.value == content["gap"]["metrics"]["mmd"]["after"]["value"]
    was, now = content["training"]["difference"], found.training.difference.probability
    assert [now.value, now.low, now.high] == [was["probability"], *was["probability_interval"]]
    assert found.training.direction == "no different"
    assert found.regions[0].pool_keys == content["regions"][0]["pool_keys"]


def test_old_notes_of_a_run_are_its_stages() -> None:
    content, found = old("run"), read("run", old("run"))
    assert isinstance(found, RunNotes)
    assert {name: note.inputs for name, note in found.stages.items()} == {name: note["inputs"] for name, note in content.items()}


def test_newer_older_and_damaged_files_are_told_apart() -> None:
    content = old("evaluation")
    with pytest.raises(DatasetError, match=r"evaluation\.json: written by a newer synthforge \(schema 9, .* up to 4\)"):
        read("evaluation", {**content, "schema_version": 9})
    with pytest.raises(OutdatedError, match=r"has schema 1, and this synthforge reads 2 and later"):
        read("evaluation", {**content, "schema": 1})
    with pytest.raises(DatasetError, match=r"damaged or not a synthforge file \(steps: Input should be a valid integer\)"):
        read("evaluation", {**content, "steps": "many"})
    del content["tables"][0]["claims"]
    with pytest.raises(DatasetError, match="damaged or not a synthforge file"):
        read("evaluation", content)


@pytest.mark.parametrize("name", ["evaluation", "diagnosis"])
def test_results_of_the_version_before_say_nothing_of_what_was_found(name: str) -> None:
    content = json.loads(read(name, old(name)).to_bytes())
    assert content.pop("inputs") == []
    again = read(name, {**content, "schema_version": content["schema_version"] - 1})
    assert again == read(name, old(name))


def test_results_that_are_too_old_count_as_not_there(tmp_path: Path) -> None:
    run = Gathered.of(load_recipe(str(DIGITS), [f"output.path={tmp_path}"]))
    (tmp_path / "evaluation.json").write_text(json.dumps({**old("evaluation"), "schema": 1}))
    (tmp_path / "diagnosis.json").write_bytes((OLD / "diagnosis.json").read_bytes())
    assert run.evaluation is None
    assert run.diagnosis is not None and run.diagnosis.seeds == 5
