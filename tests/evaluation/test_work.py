"""Draws and trainings as work of one kind."""

from __future__ import annotations

from pathlib import Path

from synthforge.data.read_config import Reading
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.trainer.jobs import read_result
from synthforge.evaluation.tuning import Tuning
from synthforge.evaluation.work import Beside, EvaluationWork
from synthforge.executors.protocol import Place
from synthforge.progress import Reporter
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS
from tests.evaluation.sets import sets_of


def test_a_training_beside_the_draws_tells_no_progress_and_leaves_its_result(tmp_path: Path) -> None:
    request = evaluation_of(load_recipe(DIGITS, sets_of(tmp_path, "evaluation.tuning.on=true", "evaluation.trainer.resolution=8")))
    reference = Reference.open(request.reference, tmp_path, Reporter())
    draws = reference.draws(5, request.config)
    training = Tuning.of(draws, request.config.trainer, request.config, request.folder, len(reference.classes), 2).trainings[0]
    work = EvaluationWork(request.folder, tmp_path, Reading(), device="cpu", threads=1, preparation=None)
    told: list[int] = []
    assert list(work.open(Place(0, 1)).run(iter([Beside(training)]), told.append)) == [(Beside(training), training.digest)]
    assert set(told) == {0}
    assert read_result(request.folder, training) is not None
