"""Sets that are given in place of a recipe become settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from synthforge.evaluation.preparation.protocol import PreparedDraw
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.settings import RealDraws
from synthforge.evaluation.sources import EvaluationSources, given_settings
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from tests.evaluation.sets import Sets, digits, per_class, write


def test_given_sets_are_from_elsewhere_for_every_draw_and_ratio_without_unknown_classes(sets: Sets, tmp_path: Path) -> None:
    given = write(tmp_path / "given", per_class(digits(), 0, 3))
    (given / "9").rename(given / "nine")
    request = evaluation_of(
        None,
        synthetic=[str(given)],
        real=str(sets.real),
        holdout=str(sets.holdout),
        sets=["real_per_class=[5, 10]", "synthetic_per_real=[1, 2]", "draws=2"],
    )
    reference = Reference.open(request.reference, cache_folder(request.curation), Reporter())
    draws = RealDraws.of(reference, request.config)
    settings, notes, found = given_settings(request, EvaluationSources(), draws, Reporter())
    assert {(setting.draw.amount, setting.ratio, setting.draw.number) for setting in settings} == {
        (amount, ratio, number) for amount in (5, 10) for ratio in (1, 2) for number in (0, 1)
    }
    assert {(setting.origin, setting.generator) for setting in settings} == {("elsewhere", "given")}
    assert all(len(setting.sources["given"]) == 27 for setting in settings)
    assert any("3 images of classes that the real images lack" in note for note in notes)
    assert [one.images for one in found] == [30]


def test_a_draw_that_an_earlier_version_prepared_is_read_or_prepared_again() -> None:
    before = {"origin": "own", "generator": "x", "sources": [{"random": "0"}], "notes": [], "rendered": None}
    assert PreparedDraw.model_validate(before | {"facts": {}}).facts is None
    with pytest.raises(ValidationError):  # which counts as a file that is not there
        PreparedDraw.model_validate(before | {"facts": {"doubted": 0.0, "doubted_p": 1.0}})
