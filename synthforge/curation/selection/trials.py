"""Classifiers trained on selections: how `auto` chooses a rule, and whether training agrees with the measured gap.

Every arm is trained from scratch with the same network, steps, augmentation and seeds. It is tested on the validation
part of the reference, on which nothing was fitted. The held-out test set stays untouched. For `da` every arm also
trains on the real fit part.

Arms are compared by the mean probability of the true class, paired by image and seed. On few images it is less noisy
than accuracy. Intervals cover validation images and training runs, each with its own random set (see
`synthforge.statistics`). They are about this set, not about what the same rule would pick from another pool. If `auto`
chose the rule, it chose on the same images. That flatters the final comparison a little, and the summary says so.

Not covered: the value of the curated set to a user's own network (see `evaluate`).
Shapes: V validation images, S seeds, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from synthforge.arrays import Bools, Doubles, Ints
from synthforge.curation.choice import pick
from synthforge.curation.result import Score, ScoreChange, Trial
from synthforge.curation.sides import Sides
from synthforge.data.images import resize
from synthforge.errors import RequestError
from synthforge.progress import Reporter
from synthforge.statistics import Measured, estimate
from synthforge.training.augmentation import augment
from synthforge.training.config import AugmentConfig, LoopConfig
from synthforge.training.data import DeviceImages, to_float
from synthforge.training.loop import Batch, TrainingLoop
from synthforge.training.networks import Classifier, resolution_for

PREFERENCE = {
    "s2r": ("mmd", "mean+covariance", "covariance", "clusters", "nearest", "random"),
    "da": ("random", "smoothed", "mmd", "novel", "clusters"),
}
"""The rules that `auto` tries. Of equally good rules the first is taken: for `s2r` one that matches the real images,
for `da` `random`."""


@dataclass(frozen=True)
class Arm:
    """Results of the training runs of one arm, with a row for each seed."""

    correct_SV: Doubles
    """Whether each validation image was classified correctly."""
    probability_SV: Doubles
    """Probability of the true class."""

    @classmethod
    def of(cls, trainings: Sequence[tuple[Doubles, Doubles]]) -> Arm:
        """From the results of `Trainer.learn`."""
        return cls(*map(np.stack, zip(*trainings, strict=True)))


class Trainer:
    """Trains arms on small copies of the images, which are held in memory as uint8 arrays.

    Args:
        rows: pool images that arms may train on.
    """

    def __init__(self, sides: Sides, rows: Ints) -> None:
        self.sides, self.config = sides, sides.config.trials
        self.device = torch.device(sides.device)
        validation = np.flatnonzero(~sides.fit)
        if not len(validation):
            raise RequestError(
                f"{sides.reference_address}: has no validation part, on which trials are tested; name a method instead of auto"
            )
        real = _arrays(sides.real, np.arange(len(sides.real)), self.resolution)
        self.real, self.real_class = real[sides.fit], sides.real_class[sides.fit]
        self.validation_V, self.truth_V = to_float(real[validation]), torch.from_numpy(sides.real_class[validation])
        self._place = np.full(len(sides.pool), -1)
        self._place[rows] = np.arange(len(rows))
        self._pool = _arrays(sides.pool, rows, self.resolution)

    @functools.cached_property
    def resolution(self) -> int:
        """Height and width of the training images in pixels: those of the real images, at most `trials.resolution`."""
        first = next(members for _, members in self.sides.real.samples(np.zeros(1, np.int64)))
        return resolution_for(min(first.pixels().shape[:2]), self.config.resolution)

    def train(self, rows: Ints, seed: int) -> tuple[Doubles, Doubles]:
        """Train on pool rows, for `da` beside the real fit part; returns the same as `learn`."""
        images, labels = self._pool[self._place[rows]], torch.from_numpy(self.sides.pool_class[rows])
        if self.sides.config.regime == "da":
            images, labels = torch.cat([self.real, images]), torch.cat([torch.from_numpy(self.real_class), labels])
        return self.learn(images, labels, seed)

    def learn(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Doubles, Doubles]:
        """Train on uint8 images (n, 3, H, W) with int64 labels (n,).

        Returns: whether each validation image is classified correctly, and the probability of its true class, (V,)
        each.
        """
        data = DeviceImages(images, labels, self.device)
        config = LoopConfig(images=self.config.images, batch=64, learning_rate=2e-3, weight_decay=0.05, checks=1, seed=seed, compile=False)
        torch.manual_seed(seed)
        network = Classifier(self.resolution, self.config.width, len(self.sides.classes)).to(self.device)

        def batch_of(step: int) -> Batch:
            return data.batch(step, config.batch, seed)

        def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
            batch_BCHW, labels_B = batch
            moved_BCHW, _ = augment(batch_BCHW, AugmentConfig(), generator)
            return functional.cross_entropy(network(moved_BCHW).float(), labels_B)

        loop = TrainingLoop(network, batch_of, loss, config)
        for _ in loop.run():
            pass
        with torch.no_grad():
            parts = [loop.ema(chunk.to(self.device)).softmax(dim=1).cpu() for chunk in self.validation_V.split(512)]
        probability_VC = torch.cat(parts)
        correct_V = (probability_VC.argmax(dim=1) == self.truth_V).double().numpy()
        return correct_V, probability_VC.gather(1, self.truth_V[:, None])[:, 0].double().numpy()

    def arm(self, by_seed: Sequence[Ints]) -> Arm:
        """Train once per seed, on the rows of that seed."""
        return Arm.of([self.train(rows, seed) for seed, rows in enumerate(by_seed)])

    def arms(self, rows: Mapping[str, Sequence[Ints]], task: str, unit: str, reporter: Reporter) -> dict[str, Arm]:
        """Train each arm once per seed, on the rows of that seed."""
        reporter.begin(task, len(rows), unit=unit)
        arms = {}
        for name, by_seed in rows.items():
            arms[name] = self.arm(by_seed)
            reporter.advance(1)
        reporter.end()
        return arms

    def score(self, arm: Arm, images: int) -> Score:
        """Means of an arm that trained on this number of images."""
        correct_V, truth_V = arm.correct_SV.mean(axis=0), self.truth_V.numpy()
        by_class = {
            name: round(float(correct_V[truth_V == number].mean()), 4)
            for number, name in enumerate(self.sides.classes)
            if (truth_V == number).any()
        }
        return Score(
            images=images,
            accuracy=round(float(correct_V.mean()), 4),
            probability=round(float(arm.probability_SV.mean()), 4),
            accuracy_by_class=by_class,
            seeds=len(arm.correct_SV),
        )

    def difference(self, one: Arm, other: Arm) -> ScoreChange:
        """One arm less another, with intervals."""
        return ScoreChange(
            probability=_measured(one.probability_SV - other.probability_SV),
            accuracy=_measured(one.correct_SV - other.correct_SV, of_counts=True),
        )


def _measured(differences_SV: Doubles, *, of_counts: bool = False) -> Measured:
    return Measured.of(estimate(differences_SV[None], of_counts=of_counts), digits=4)


def choose_method(sides: Sides, alive: Bools, asked: Mapping[str, int], reporter: Reporter) -> tuple[str, dict[str, Score]]:
    """The rule to select by, and for `auto` the result of each rule that was tried.

    `auto` takes the rule whose picks train best. Of the rules within one standard error of the best (paired), it takes
    the first in `PREFERENCE`.
    """
    method = sides.config.selection.method or {"s2r": "mmd", "da": "random"}[sides.config.regime]
    if method != "auto" or sides.config.selection.weights:
        return method, {}
    rules, seeds = PREFERENCE[sides.config.regime], sides.config.trials.seeds
    random = random_rows(sides, alive, asked, seeds)
    picks = {rule: random if rule == "random" else [np.concatenate(pick(sides, alive, asked, rule)[0])] * seeds for rule in rules}
    if all(len(by_seed[0]) == alive.sum() for by_seed in picks.values()):
        return "random", {}  # every image is kept, whatever the rule
    trainer = Trainer(sides, np.unique(np.concatenate([rows for by_seed in picks.values() for rows in by_seed])))
    arms = trainer.arms(picks, "auto: trying rules", "rules", reporter)
    best = max(rules, key=lambda rule: arms[rule].probability_SV.mean())
    chosen = next(rule for rule in rules if _is_as_good(arms[rule], arms[best]))
    return chosen, {rule: trainer.score(arm, len(picks[rule][0])) for rule, arm in arms.items()}


def _is_as_good(one: Arm, best: Arm) -> bool:
    lost = estimate((best.probability_SV - one.probability_SV)[None], of_counts=False)
    return lost.value <= lost.error


def random_rows(sides: Sides, alive: Bools, asked: Mapping[str, int], draws: int) -> list[Ints]:
    """Random selections of the sizes asked for, class by class; rows of each draw."""
    selections = []
    for draw in range(draws):
        rng = np.random.Generator(np.random.Philox(key=[sides.config.selection.seed, draw]))
        by_class = [np.flatnonzero(alive & (sides.pool_class == number)) for number in range(len(sides.classes))]
        sizes = [min(asked[name], len(rows)) for name, rows in zip(sides.classes, by_class, strict=True)]
        selections.append(np.concatenate([rng.choice(rows, size=size, replace=False) for rows, size in zip(by_class, sizes, strict=True)]))
    return selections


def compare_training(sides: Sides, kept: Ints, draws: Sequence[Ints], reporter: Reporter) -> Trial:
    """Train on the kept images and on as many random images, with another random draw for each seed."""
    seeds = sides.config.trials.seeds
    by_seed = [draws[seed % len(draws)] for seed in range(seeds)]
    trainer = Trainer(sides, np.unique(np.concatenate([kept, *by_seed])))
    arms = trainer.arms({"kept": [kept] * seeds, "random": by_seed}, "training on kept and random images", "arms", reporter)
    return Trial(
        kept=trainer.score(arms["kept"], len(kept)),
        random=trainer.score(arms["random"], len(by_seed[0])),
        difference=trainer.difference(arms["kept"], arms["random"]),
        validation_images=len(trainer.truth_V),
    )


def _arrays(table: Any, rows: Ints, resolution: int) -> Tensor:
    """The images of these rows, uint8 (n, 3, H, W)."""
    images = np.zeros((len(rows), 3, resolution, resolution), np.uint8)
    place = {int(row): number for number, row in enumerate(rows)}
    for row, members in table.samples(rows):
        images[place[row]] = resize(members.pixels(3), resolution).transpose(2, 0, 1)
    return torch.from_numpy(images)
