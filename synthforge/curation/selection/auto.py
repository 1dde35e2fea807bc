"""What a small classifier learns from selections: how `auto` chooses a rule, and whether training agrees with the measured gap.

Every arm is trained from scratch with the same network, steps, augmentation and seeds, and scored on the reference's validation part,
which nothing was fitted on; the holdout stays closed. Arms are compared by the mean probability of the true class, which is less noisy
than accuracy on few images, paired by image and seed. Intervals cover validation images and trainings, of which each has its own random
set (see statistics); they are about this very set, not about what the same rule would pick of another pool. Where `auto` chose the rule,
it chose on these same images, so the closing comparison flatters it a little, and the summary says so. For `da` every arm trains on the
real fit part as well. Not covered: what the curated set is worth to a user's own network (see `evaluate`).

Shapes: V validation images, S seeds, C classes.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthforge.curation.choice import pick
from synthforge.curation.result import Score, ScoreChange, Trial
from synthforge.curation.sides import Sides
from synthforge.data.images import decode, resize
from synthforge.errors import RequestError
from synthforge.progress import Reporter
from synthforge.statistics import Measured, estimate
from synthforge.training.augmentation import augment
from synthforge.training.config import AugmentConfig, LoopConfig
from synthforge.training.data import DeviceImages, to_float
from synthforge.training.loop import Batch, TrainingLoop
from synthforge.training.networks import Classifier

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

PREFERENCE = {
    "s2r": ("mmd", "mean+covariance", "covariance", "clusters", "nearest", "random"),
    "da": ("random", "smoothed", "mmd", "novel", "clusters"),
}
"""The rules that `auto` tries. Of equals the first is taken: matching where that is known to help, nothing where it is not."""


@dataclass(frozen=True)
class Arm:
    """What trainings of one kind gave, a row for each seed."""

    correct_SV: Floats
    probability_SV: Floats
    """Of the true class."""

    @classmethod
    def of(cls, trainings: Sequence[tuple[Floats, Floats]]) -> Arm:
        """From what `Trainer.learn` returns."""
        return cls(np.stack([correct for correct, _ in trainings]), np.stack([probability for _, probability in trainings]))


class Trainer:
    """Trains arms on the images of both sides, held as small uint8 arrays."""

    def __init__(self, sides: Sides, rows: Ints) -> None:
        self.sides, self.config = sides, sides.config.trials
        self.device = torch.device(sides.device)
        validation = np.flatnonzero(~sides.fit)
        if not len(validation):
            raise RequestError(
                f"{sides.reference_address}: has no validation part, which trials are scored on; name a method instead of auto"
            )
        real = _arrays(sides.real, np.arange(len(sides.real)), self.resolution)
        self.real, self.real_class = real[sides.fit], sides.real_class[sides.fit]
        self.validation_V, self.truth_V = to_float(real[validation]), torch.from_numpy(sides.real_class[validation])
        self._place = np.full(len(sides.pool), -1)
        self._place[rows] = np.arange(len(rows))
        self._pool = _arrays(sides.pool, rows, self.resolution)

    @functools.cached_property
    def resolution(self) -> int:
        """That of the real images, at most what the trials allow."""
        first = next(members.image for _, members in self.sides.real.samples(np.zeros(1, np.int64)))
        return max(8, int(min(self.config.resolution, *decode(first).shape[:2])) // 4 * 4)

    def train(self, rows: Ints, seed: int) -> tuple[Floats, Floats]:
        """Whether each validation image is right, and the probability of its class, after training on pool rows."""
        images, labels = self._pool[self._place[rows]], torch.from_numpy(self.sides.pool_class[rows])
        if self.sides.config.regime == "da":
            images, labels = torch.cat([self.real, images]), torch.cat([torch.from_numpy(self.real_class), labels])
        return self.learn(images, labels, seed)

    def learn(self, images: Tensor, labels: Tensor, seed: int) -> tuple[Floats, Floats]:
        """The same after training on uint8 images (n, 3, H, W) and int64 labels (n,)."""
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
        """Train once for each seed, on that seed's rows."""
        return Arm.of([self.train(rows, seed) for seed, rows in enumerate(by_seed)])

    def score(self, arm: Arm, images: int) -> Score:
        """Means of an arm."""
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


def _measured(differences_SV: Floats, *, of_counts: bool = False) -> Measured:
    return Measured.of(estimate(differences_SV[None], of_counts=of_counts), digits=4)


def choose_method(sides: Sides, alive: Bools, asked: Mapping[str, int], reporter: Reporter) -> tuple[str, dict[str, Score]]:
    """The rule to select by, and what was tried: the one asked for, or the one whose picks train best.

    Of the rules that are within one standard error of the best, paired, the first in `PREFERENCE` is taken.
    """
    method = sides.config.selection.method or {"s2r": "mmd", "da": "random"}[sides.config.regime]
    if method != "auto" or sides.config.selection.weights:
        return method, {}
    rules = PREFERENCE[sides.config.regime]
    random = random_rows(sides, alive, asked, sides.config.trials.seeds)
    picks = {rule: [np.concatenate(pick(sides, alive, asked, rule)[0])] * sides.config.trials.seeds for rule in rules if rule != "random"}
    picks = {rule: random if rule == "random" else picks[rule] for rule in rules}
    if all(len(rows[0]) == alive.sum() for rows in picks.values()):
        return "random", {}  # everything is kept
    trainer = Trainer(sides, np.unique(np.concatenate([rows for by_seed in picks.values() for rows in by_seed])))
    reporter.begin("auto: trying rules", len(picks), unit="rules")
    arms = {}
    for rule, by_seed in picks.items():
        arms[rule] = trainer.arm(by_seed)
        reporter.advance(1)
    reporter.end()
    best = max(rules, key=lambda rule: arms[rule].probability_SV.mean())
    chosen = next(rule for rule in rules if _is_as_good(arms[rule], arms[best]))
    return chosen, {rule: trainer.score(arm, len(picks[rule][0])) for rule, arm in arms.items()}


def _is_as_good(one: Arm, best: Arm) -> bool:
    lost = estimate((best.probability_SV - one.probability_SV)[None], of_counts=False)
    return lost.value <= lost.error


def random_rows(sides: Sides, alive: Bools, asked: Mapping[str, int], draws: int) -> list[Ints]:
    """Random selections of the size asked for, class by class; each draw another one."""
    found = []
    for draw in range(draws):
        chooser = np.random.Generator(np.random.Philox(key=[sides.config.selection.seed, draw]))
        parts = []
        for number, name in enumerate(sides.classes):
            rows = np.flatnonzero(alive & (sides.pool_class == number))
            parts.append(chooser.choice(rows, size=min(asked[name], len(rows)), replace=False))
        found.append(np.concatenate(parts))
    return found


def compare_training(sides: Sides, kept: Ints, draws: Sequence[Ints], reporter: Reporter) -> Trial:
    """Train on the kept images and on random ones of the same size, another draw for each seed."""
    seeds = sides.config.trials.seeds
    by_seed = [draws[seed % len(draws)] for seed in range(seeds)]
    trainer = Trainer(sides, np.unique(np.concatenate([kept, *by_seed])))
    reporter.begin("training on kept and random images", 2, unit="arms")
    own = trainer.arm([kept] * seeds)
    reporter.advance(1)
    random = trainer.arm(by_seed)
    reporter.advance(1)
    reporter.end()
    return Trial(
        kept=trainer.score(own, len(kept)),
        random=trainer.score(random, len(by_seed[0])),
        difference=trainer.difference(own, random),
        validation_images=len(trainer.truth_V),
    )


def _arrays(table: Any, rows: Ints, resolution: int) -> Tensor:
    """uint8 (n, 3, H, W) in the order of rows."""
    found = np.zeros((len(rows), 3, resolution, resolution), np.uint8)
    place = {int(row): number for number, row in enumerate(rows)}
    for row, members in table.samples(rows):
        found[place[row]] = resize(decode(members.image, 3), resolution).transpose(2, 0, 1)
    return torch.from_numpy(found)
