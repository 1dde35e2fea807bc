"""Tune the real-only arm on validation data, before the held-out test set is opened. Every arm then takes its settings.

The search is a small grid: every augmentation with every learning rate (`TuningConfig`). The score is the mean
log-probability of the true class, which says more than accuracy if images are few. With the whole reference it is
measured on the validation part. A smaller draw must see no other images, so it is cross-validated.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthforge.evaluation.reference import RealDraw
from synthforge.evaluation.results.types import TunedResult
from synthforge.evaluation.sets import Images, write_set
from synthforge.evaluation.trainer.jobs import Training, TrainingRunner
from synthforge.evaluation.trainer.models import platform_of
from synthforge.evaluation.trainer.train import Predictions
from synthforge.recipe.evaluation import ALONE, EvaluationConfig, TrainerAugmentConfig, TrainerConfig, TuningConfig

STRENGTHS: dict[str, dict[str, Any]] = {
    "none": {"share": 0.0, "erase": 0.0, "mixup": 0.0},
    "shift": {"scale": 0.0, "rotate": 0.0, "shear": 0.0, "erase": 0.0, "mixup": 0.0},
    "affine": {"erase": 0.0, "mixup": 0.0},
    "strong": {"erase": 0.5, "mixup": 0.2},
}
"""Settings for each word of `TuningConfig.augmentations`."""


@dataclass(frozen=True)
class Tuned:
    """The settings chosen for one draw of real images."""

    result: TunedResult
    config: TrainerConfig


def candidates(tuning: TuningConfig, base: TrainerConfig) -> dict[str, TrainerConfig]:
    """The trainers to try, by their names."""
    trainers = {}
    for strength, flip, rate in itertools.product(tuning.augmentations, tuning.flip, tuning.learning_rates):
        augment = TrainerAugmentConfig(**{**base.augment.model_dump(), **STRENGTHS[strength], "flip": flip and strength != "none"})
        name = f"{strength}{', flip' if flip else ''}, learning rate {rate:g}"
        trainers[name] = base.model_copy(update={"augment": augment, "learning_rate": rate})
    return trainers


@dataclass(frozen=True)
class Tuning:
    """Trainings of every candidate on some draws."""

    draws: Sequence[RealDraw]
    base: TrainerConfig
    tried: dict[str, TrainerConfig]
    trainings: list[Training]
    plan: list[tuple[RealDraw, str, str, slice]]
    """Draw, candidate, what it is scored on, and which of the trainings belong to it."""

    @classmethod
    def of(
        cls, draws: Sequence[RealDraw], base: TrainerConfig, config: EvaluationConfig, folder: Path, num_classes: int, decoder: int | str
    ) -> Tuning:
        """Every candidate on every split of every draw; writes their sets. A single candidate is not trained."""
        tried = candidates(config.tuning, base) if config.tuning.on else {"": base}
        trainings: list[Training] = []
        platform = platform_of(base)
        plan: list[tuple[RealDraw, str, str, slice]] = []
        for draw in draws if len(tried) > 1 else ():
            splits, on = _splits(draw, config.tuning.folds, num_classes)
            sets = [(write_set(folder, [fit]), write_set(folder, [test])) for fit, test in splits]
            for name, settings in tried.items() if sets else ():
                start = len(trainings)
                trainings += [
                    Training(fit, test, settings, ALONE, seed=seed, num_classes=num_classes, decoder=decoder, platform=platform)
                    for seed, (fit, test) in enumerate(sets)
                ]
                plan.append((draw, name, on, slice(start, len(trainings))))
        return cls(draws, base, tried, trainings, plan)


def tune(tuning: Tuning, trainings: TrainingRunner) -> dict[tuple[str, int], Tuned]:
    """The settings of each draw, by amount and number."""
    tried = tuning.tried
    results = trainings.run(tuning.trainings, "tuning real only") if tuning.trainings else []
    scores: dict[tuple[str, int], dict[str, float]] = {}
    for draw, name, _, where in tuning.plan:
        scores.setdefault(key_of(draw), {})[name] = _score(results[where])
    scored_on = {key_of(draw): on for draw, _, on, _ in tuning.plan}
    tuned = {}
    for draw in tuning.draws:
        key, of_draw = key_of(draw), scores.get(key_of(draw), {})
        if of_draw:
            config, on = tried[max(of_draw, key=lambda name: of_draw[name])], scored_on[key]
        elif len(tried) == 1:
            config, on = next(iter(tried.values())), "nothing, there is no choice"
        else:
            config, on = tuning.base, "nothing, one image a class can't be split"
        chosen = {"augment": config.augment.model_dump(), "learning_rate": config.learning_rate}
        rounded = {name: round(score, 4) for name, score in of_draw.items()}
        tuned[key] = Tuned(TunedResult(amount=str(draw.amount), draw=draw.number, chosen=chosen, on=on, scores=rounded), config)
    return tuned


def key_of(draw: RealDraw) -> tuple[str, int]:
    """Key of a draw in mappings: amount and number."""
    return str(draw.amount), draw.number


def _score(results: Sequence[Predictions]) -> float:
    probability_V = np.concatenate([result.probability_V for result in results]).astype(np.float64)
    return float(np.log(np.maximum(probability_V, 1e-6)).mean())


def _splits(draw: RealDraw, folds: int, num_classes: int) -> tuple[list[tuple[Images, Images]], str]:
    """Pairs of images to train on and to score on, and the latter in words."""
    if draw.validation is not None:
        return [(draw.fit, draw.validation)] * 2, f"{len(draw.validation)} validation images"
    rank = np.empty(len(draw.fit), np.int64)  # of each image in its class
    for label in range(num_classes):
        rows = np.flatnonzero(draw.fit.label_N == label)
        rank[rows] = np.arange(len(rows))
    num = min(folds, int(draw.fit.per_class(num_classes).min()))
    if num < 2:
        return [], ""
    pairs = [(draw.fit.take(rank % num != fold), draw.fit.take(rank % num == fold)) for fold in range(num)]
    return pairs, f"{num} folds of the real images"
