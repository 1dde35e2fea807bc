"""Tune the real-only arm on validation data, before the holdout is opened; its settings are then those of every arm.

The search is small and stated: every augmentation with every learning rate (`TuningConfig`), scored by the mean log-probability of the true
class, which tells more of few images than accuracy does. With the whole reference it is that of the validation part. With less, no other
image may be looked at, and it is that of folds of the n images themselves.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthforge.evaluation.conditions import RealDraw
from synthforge.evaluation.results.types import TunedResult
from synthforge.evaluation.sets import Images, write_set
from synthforge.evaluation.trainer.jobs import Training, Trainings
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
    """The settings that were chosen for one draw of real images."""

    result: TunedResult
    config: TrainerConfig


def candidates(tuning: TuningConfig, base: TrainerConfig) -> dict[str, TrainerConfig]:
    """The trainers that are tried, by what is special about them."""
    found = {}
    for strength, flip, rate in itertools.product(tuning.augmentations, tuning.flip, tuning.learning_rates):
        augment = TrainerAugmentConfig(**{**base.augment.model_dump(), **STRENGTHS[strength], "flip": flip and strength != "none"})
        name = f"{strength}{', flip' if flip else ''}, learning rate {rate:g}"
        found[name] = base.model_copy(update={"augment": augment, "learning_rate": rate})
    return found


@dataclass(frozen=True)
class Tuning:
    """The trainings that try candidates on some draws."""

    draws: Sequence[RealDraw]
    base: TrainerConfig
    tried: dict[str, TrainerConfig]
    trainings: list[Training]
    plan: list[tuple[RealDraw, str, str, slice]]
    """Draw, candidate, what it is scored on, and which of the trainings are its own."""

    @classmethod
    def of(cls, draws: Sequence[RealDraw], base: TrainerConfig, config: EvaluationConfig, folder: Path, num_classes: int) -> Tuning:
        """Every candidate on every split of every draw; writes the sets that these train and test on. Without a choice there are none."""
        tried = candidates(config.tuning, base) if config.tuning.on else {"": base}
        trainings: list[Training] = []
        plan: list[tuple[RealDraw, str, str, slice]] = []
        platform = platform_of(base)
        for draw in draws if len(tried) > 1 else ():
            splits, on = _splits(draw, config.tuning.folds, num_classes)
            sets = [(write_set(folder, [fit]), write_set(folder, [test])) for fit, test in splits]
            for name, settings in tried.items() if sets else ():
                start = len(trainings)
                trainings += [
                    Training(fit, test, settings, ALONE, seed=seed, num_classes=num_classes, platform=platform)
                    for seed, (fit, test) in enumerate(sets)
                ]
                plan.append((draw, name, on, slice(start, len(trainings))))
        return cls(draws, base, tried, trainings, plan)


def tune(tuning: Tuning, trainer: Trainings) -> dict[tuple[str, int], Tuned]:
    """The settings of each draw, by amount and number."""
    tried = tuning.tried
    results = trainer.run(tuning.trainings, "tuning real only") if tuning.trainings else []
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
        tuned[key] = _tuned(draw, config, on, of_draw)
    return tuned


def key_of(draw: RealDraw) -> tuple[str, int]:
    """The key under which a draw's settings are kept."""
    return str(draw.amount), draw.number


def _score(results: Sequence[Predictions]) -> float:
    probability_V = np.concatenate([result.probability_V for result in results]).astype(np.float64)
    return float(np.log(np.maximum(probability_V, 1e-6)).mean())


def _splits(draw: RealDraw, folds: int, num_classes: int) -> tuple[list[tuple[Images, Images]], str]:
    """Pairs of what is fitted and what is tested."""
    if draw.validation is not None:
        return [(draw.fit, draw.validation)] * 2, f"{len(draw.validation)} validation images"
    rank = np.empty(len(draw.fit), np.int64)
    for label in range(num_classes):
        rows = np.flatnonzero(draw.fit.label_N == label)
        rank[rows] = np.arange(len(rows))
    smallest = int(draw.fit.per_class(num_classes).min())
    num = min(folds, smallest)
    if num < 2:
        return [], ""
    return [
        (draw.fit.take(rank % num != fold), draw.fit.take(rank % num == fold)) for fold in range(num)
    ], f"{num} folds of the real images"


def _tuned(draw: RealDraw, config: TrainerConfig, on: str, scores: Mapping[str, float] | None = None) -> Tuned:
    chosen = {"augment": config.augment.model_dump(), "learning_rate": config.learning_rate}
    rounded = {name: round(score, 4) for name, score in (scores or {}).items()}
    return Tuned(TunedResult(amount=str(draw.amount), draw=draw.number, chosen=chosen, on=on, scores=rounded), config)
