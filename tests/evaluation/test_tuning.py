"""Tuning of the real-only arm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.run import evaluate
from synthforge.evaluation.sets import SetReader
from synthforge.evaluation.trainer.loader import decoded
from synthforge.evaluation.tuning import Tuning, candidates
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import EvaluationConfig, TrainerConfig, TuningConfig
from tests.evaluation.sets import digits, per_class, write


def test_every_augmentation_is_tried_with_every_learning_rate_and_none_is_never_flipped() -> None:
    tuning = TuningConfig(augmentations=["none", "affine"], flip=[False, True], learning_rates=[0.01, 0.001])
    trainers = candidates(tuning, TrainerConfig(resolution=8))
    assert len(trainers) == 8
    assert {(trainer.learning_rate, trainer.augment.flip) for trainer in trainers.values()} == {
        (0.01, True), (0.01, False), (0.001, True), (0.001, False)
    }  # fmt: skip
    assert not any(trainer.augment.flip for name, trainer in trainers.items() if name.startswith("none"))


def test_few_images_are_split_into_folds_that_hold_each_image_once(tmp_path: Path) -> None:
    """Three folds of 5 images per class; the reference as a whole has a validation part instead."""
    reference = Reference.open("builtin:digits/reference", cache_folder(CurationConfig()), Reporter())
    config = EvaluationConfig.model_validate({"tuning": {"folds": 3, "augmentations": ["affine"], "flip": [False]}})
    base = TrainerConfig(resolution=8)
    (draw,), (whole,) = (reference.draws(amount, config) for amount in (5, "all"))
    tuning, on_validation = (Tuning.of([one], base, config, tmp_path, len(reference.classes), 2) for one in (draw, whole))
    reader = SetReader(tmp_path, cache_folder(CurationConfig()))
    (_, _, on, where), *_ = tuning.plan
    assert on == "3 folds of the real images"
    scored = [sha256 for training in tuning.trainings[where] for sha256 in reader.images(training.test_set).sha256_N]
    assert sorted(scored) == sorted(draw.fit.sha256_N)
    for training in tuning.trainings:
        assert not {*reader.images(training.train_set).sha256_N} & {*reader.images(training.test_set).sha256_N}
    assert whole.validation is not None
    assert {*reader.images(on_validation.trainings[0].test_set).sha256_N} == {*whole.validation.sha256_N}


@pytest.mark.trains
@pytest.mark.slow
def test_on_few_real_digits_the_tuned_baseline_is_not_below_a_tuned_support_vector_classifier(tmp_path: Path) -> None:
    """50 of each class, by `evaluate --arms real` as anybody would ask it."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    real, test = per_class(digits(), 0, 50), digits("holdout")
    labels, truth = (np.array([int(example.class_name) for example in part]) for part in (real, test))
    pixels, unseen = (decoded([example.data for example in part], 8)[:, 0].reshape(len(part), -1) / 255 for part in (real, test))
    of_svc = GridSearchCV(SVC(), {"C": [1, 10, 100], "gamma": ["scale", 0.02, 0.1, 0.3]}, cv=5).fit(pixels, labels).score(unseen, truth)
    write(tmp_path / "real" / "fit", real)
    write(tmp_path / "real" / "validation", digits("validation")[:50])
    request = evaluation_of(
        None,
        real=str(tmp_path / "real"),
        holdout=str(write(tmp_path / "holdout", test)),
        arms="real",
        out=str(tmp_path / "evaluation.json"),
        sets=[
            *("real_per_class=[50]", "curve=[50]", "seeds=2", "steps_check=false", "workers=1"),
            *("trainer.steps=300", "trainer.batch=32", "trainer.width=16"),
            *("tuning.augmentations=[affine]", "tuning.flip=[false]", "tuning.folds=2"),
        ],
    )
    result = evaluate(replace(request, folder=tmp_path / "work"))
    assert result.curve[0].accuracy.value >= of_svc
