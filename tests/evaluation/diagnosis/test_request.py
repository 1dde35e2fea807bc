"""A diagnosis asks for the arms that differ in one thing, with the evaluation's classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.errors import RequestError
from synthforge.evaluation.diagnosis.request import diagnosis_of
from synthforge.evaluation.request import evaluation_of
from synthforge.recipe.evaluation import DIAGNOSIS_ARMS
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS


def test_it_shares_the_evaluation_of_a_recipe_except_for_arms_and_the_result(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, [f"output.path={tmp_path}", "diagnosis.real_per_class=[5]", "evaluation.seeds=3"])
    request, evaluation = diagnosis_of(recipe), evaluation_of(recipe)
    assert [arm.name for arm in request.config.arms] == [*DIAGNOSIS_ARMS]
    assert (request.config.real_per_class, request.config.curve, request.config.synthetic_per_real) == ([5], [5], [1.0])
    assert (request.config.seeds, request.config.trainer) == (3, evaluation.config.trainer)
    assert (request.reference, request.holdout, request.folder) == (evaluation.reference, evaluation.holdout, evaluation.folder)
    assert (Path(request.out).name, Path(evaluation.out).name) == ("diagnosis.json", "evaluation.json")


def test_overrides_without_a_recipe_are_of_the_diagnosis_or_of_the_evaluation(tmp_path: Path) -> None:
    places = {"synthetic": "pool", "real": str(tmp_path / "real"), "holdout": str(tmp_path)}
    request = diagnosis_of(None, **places, sets=["diagnosis.strength=0.3", "seeds=7"])
    assert (request.diagnosis.strength, request.config.seeds) == (0.3, 7)
    with pytest.raises(RequestError, match="apply overrides when the recipe is read"):
        diagnosis_of(load_recipe(DIGITS, []), sets=["diagnosis.strength=0.3"])
