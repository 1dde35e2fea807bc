"""Notes on steps and on what intervals do not cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.evaluation.trainer.jobs import ClassifierTrainer, Training
from synthforge.evaluation.trainer.train import Predictions
from synthforge.recipe.evaluation import EvaluationConfig
from tests.evaluation.sets import REAL, Sets, ask, difference


@pytest.mark.parametrize(("later", "is_enough"), [(0.7, False), (0.6, True)])
def test_too_few_steps_are_told(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: float, is_enough: bool) -> None:
    """Of planted scores: 6 of 10 images are right, and so many after twice the steps."""

    def scored(trainer: ClassifierTrainer, training: Training, progress: Any) -> Predictions:
        truth_V = trainer._sets.read(training.test_set).label_N
        right_V = np.random.default_rng(training.seed).random(len(truth_V)) < (later if training.config.steps == 20 else 0.6)
        return Predictions(np.where(right_V, truth_V, -1).astype(np.int16), *np.full((2, len(truth_V)), 0.5, np.float32))

    monkeypatch.setattr(ClassifierTrainer, "_train", scored)
    check = ("steps_check=true", "trainer.steps=10", "real_per_class=[20]")
    result = ask(sets, tmp_path, sets.more, arms="real,more-set", more=check)
    (setting,) = result.tables[0].settings
    assert set(setting.steps_check) == {"real", "more-set"}
    assert setting.steps_check_mean is not None and setting.steps_check_mean.value == pytest.approx(later - 0.6, abs=0.05)
    assert setting.has_enough_steps is is_enough
    assert "twice the steps change accuracy by +" in result.notes[0]
    assert ("raise `trainer.steps`" in result.notes[0]) is not is_enough
    assert ("Training was too short: with twice the steps, accuracy still changes by up to" in result.verdict) is not is_enough


@pytest.mark.trains
def test_what_twice_the_steps_do_to_a_difference_is_told(sets: Sets, tmp_path: Path) -> None:
    check = ("steps_check=true", "trainer.steps=10", "draws=3", "seeds=1")
    result = ask(sets, tmp_path, sets.more, sets.wrong, arms="real,more-set,wrong", more=check)
    change = difference(result, "wrong", "real").steps_change
    (setting,) = result.tables[0].settings
    by_arm = setting.steps_check
    assert change is not None
    assert change.value == pytest.approx(by_arm["wrong"].value - by_arm["real"].value, abs=2e-5)
    told = f"wrong minus real changes by {100 * change.value:+.1f} points" in "\n".join(result.notes)
    must_be_told = change.is_beyond(EvaluationConfig().margin) if setting.has_enough_steps else change.leaves_out_0
    assert told == must_be_told


def test_what_intervals_do_not_cover_is_told(sets: Sets, tmp_path: Path) -> None:
    """Two draws of 20 images each from some 30 of a class, and one pool for both."""
    result = ask(sets, tmp_path, sets.more, arms="real,more-set", more=("draws=2", "seeds=1"))
    told = "\n".join(result.notes)
    assert f"{REAL} real images per class, generator trained elsewhere: all draws share one pool" in told
    assert f"{2 * REAL} real images per class: draws overlap" in told
    assert f"{REAL} real images per class: draws overlap" not in told
