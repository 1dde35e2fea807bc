"""Plan all trainings: every arm of every setting with the same steps, seeds and number of images, paired across arms.

Shapes: C classes, G draws of one setting.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from synthforge.evaluation.reference import RealDraw
from synthforge.evaluation.sets import Images, write_set
from synthforge.evaluation.settings import Setting
from synthforge.evaluation.trainer.jobs import Training
from synthforge.evaluation.tuning import Tuned, key_of
from synthforge.recipe.evaluation import ALONE, REAL, ArmConfig, EvaluationConfig, MixingConfig

_MOST_DRAWS = 1000
"""Largest number of draws of an evaluation."""


@dataclass(frozen=True)
class ArmTrainings:
    """One arm in one setting."""

    by_seed: list[Training]
    twice: list[Training]
    """The first of these with twice the steps; empty without `steps_check`."""
    images: float
    """Training images, mean over seeds."""


@dataclass(frozen=True)
class TrainingPlan:
    """Everything that is to be trained."""

    settings: list[Setting]
    """Without sources that lack a class."""
    groups: list[list[int]]
    """Settings that differ only in their draw, by index."""
    by_arm: dict[tuple[int, str], ArmTrainings]
    """Index of the setting and name of the arm to the arm's trainings."""
    real_only: dict[tuple[str, int], list[Training]]
    """`key_of` a draw to one training for each seed."""
    missing: dict[tuple[int, str], str]
    """Index of the setting and name of the arm to the reason why there is no such arm."""
    notes: list[str]

    @property
    def trainings(self) -> list[Training]:
        """All trainings; those with twice the steps come last."""
        main = [training for arm in self.by_arm.values() for training in arm.by_seed]
        main += [training for ours in self.real_only.values() for training in ours]
        return [*main, *(training for arm in self.by_arm.values() for training in arm.twice)]


@dataclass(frozen=True)
class Planner:
    """Plans trainings; its fields are what all of them share."""

    config: EvaluationConfig
    classes: list[str]
    tuned: Mapping[tuple[str, int], Tuned]
    """The trainer's settings for each draw, by `key_of` the draw."""
    platform: str
    decoder: int | str
    """See `Reading.decoder`."""
    holdout_set: str
    """Digest of the held-out test set."""
    is_copy: Mapping[str, bool]
    folder: Path
    """Where the training sets are written."""

    def plan(self, settings: Sequence[Setting], draws: Sequence[RealDraw]) -> TrainingPlan:
        """Trainings of each arm in each setting, and of real images alone in each draw; writes their sets."""
        settings, missing, notes = list(settings), dict[tuple[int, str], str](), list[str]()
        by_arm: dict[tuple[int, str], ArmTrainings] = {}
        by_kind: dict[tuple[object, ...], list[int]] = {}
        for index, setting in enumerate(settings):
            by_kind.setdefault((setting.origin, setting.draw.amount, setting.ratio), []).append(index)
        groups = list(by_kind.values())
        for group in groups:
            # A source that lacks a class in one draw has no arm in any draw, and does not limit other arms' size.
            lacking = {key: name for index in group for key, name in settings[index].lacking(self.classes, self.is_copy).items()}
            for arm in self.config.arms:
                for source in (source for source in arm.of if arm.key_of(source) in lacking):
                    reason = f"{source} has no image of class {lacking[arm.key_of(source)]}" + (" in some draw" if len(group) > 1 else "")
                    missing |= {(index, arm.name): reason for index in group}
            for index in group:
                sources = {key: images for key, images in settings[index].sources.items() if key not in lacking}
                settings[index] = replace(settings[index], sources=sources)
            notes += self._notes_of_size([settings[index] for index in group])
        for index, setting in enumerate(settings):
            for arm in (arm for arm in self.config.arms if (index, arm.name) not in missing):
                trainings = self._arm(setting, arm)
                if isinstance(trainings, str):
                    missing[index, arm.name] = trainings
                else:
                    by_arm[index, arm.name] = trainings
        # An arm that is missing in one draw is left out in all draws of the setting.
        for group in groups:
            for name in {name for index, name in missing if index in group}:
                for index in group:
                    by_arm.pop((index, name), None)
        real_only = {key_of(draw): self._trainings([[draw.fit]] * self.config.seeds, draw, ALONE) for draw in draws}
        return TrainingPlan(settings, groups, by_arm, real_only, missing=missing, notes=notes)

    def _notes_of_size(self, of_group: Sequence[Setting]) -> list[str]:
        """A note if a source has fewer images than the arms ask for."""
        num = len(self.classes)
        short_GC = np.stack([setting.asked(num) - setting.wanted(num, self.is_copy) for setting in of_group])
        if not (short_GC > 0).any():
            return []
        worst, label = (int(place) for place in np.unravel_index(int(np.argmax(short_GC)), short_GC.shape))
        asked = int(of_group[worst].asked(num)[label])
        whole = "" if REAL in of_group[0].sources else "; arms with the real images use all of these"
        note = (
            f"{of_group[0].where}: {asked:,} images of class {self.classes[label]!r} were wanted from each source, but one source has only "
            f"{asked - int(short_GC[worst, label]):,}; every arm takes no more from any source, so that arms are of one size{whole}"
        )
        return [note]

    def _arm(self, setting: Setting, arm: ArmConfig) -> ArmTrainings | str:
        """One arm's trainings, or the reason why there is no such arm."""
        by_seed: list[list[Images]] = []
        for seed in range(self.config.seeds):
            parts = setting.parts(arm, seed, len(self.classes), self.is_copy)
            if isinstance(parts, str):
                return parts
            by_seed.append(parts)
        if emptied := [source for source, part in zip(arm.of, by_seed[0], strict=True) if not len(part)]:
            return f"no images of {emptied[0]} are left"
        counts_C = np.sum([part.per_class(len(self.classes)) for part in by_seed[0]], axis=0)
        if (counts_C == 0).any():
            return f"no images of class {self.classes[int(np.flatnonzero(counts_C == 0)[0])]}"
        first, *_ = trainings = self._trainings(by_seed, setting.draw, arm.mixing or self.config.mixing)
        longer = replace(first, config=first.config.model_copy(update={"steps": 2 * first.config.steps}))
        twice = [longer] if self.config.steps_check else []
        return ArmTrainings(trainings, twice, images=float(np.mean([sum(map(len, parts)) for parts in by_seed])))

    def _trainings(self, by_seed: Sequence[list[Images]], draw: RealDraw, mixing: MixingConfig) -> list[Training]:
        """One training for each seed, without copies of holdout images.

        Each draw has its own seeds, so trainings differ even if draws hold the same images. More draws or seeds leave
        the other trainings as they are.
        """
        trainings = []
        for seed, parts in enumerate(by_seed):
            kept = [part.take(part.not_copied(self.is_copy)) for part in parts]
            trainings.append(
                Training(
                    train_set=write_set(self.folder, kept),
                    test_set=self.holdout_set,
                    config=self.tuned[key_of(draw)].config,
                    mixing=mixing if len({part.is_real for part in kept}) == 2 else ALONE,
                    seed=seed * _MOST_DRAWS + draw.number,
                    num_classes=len(self.classes),
                    decoder=self.decoder,
                    platform=self.platform,
                )
            )
        return trainings
