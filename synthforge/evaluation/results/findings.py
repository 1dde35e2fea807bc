"""What became of an evaluation's trainings: accuracy of each arm, comparisons, exchange rates, whether the steps were enough, and notes.

Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.results.requirements import Requirement, in_words
from synthforge.evaluation.results.scores import Floats, Outcomes, arm_score, claimed, compared, pairs, worth
from synthforge.evaluation.results.types import (
    ORIGINS,
    Comparison,
    CurvePoint,
    Kind,
    Origin,
    RequiredClaim,
    SettingResult,
    TableResult,
    Worth,
)
from synthforge.evaluation.results.words import kind_of, number, sentence_of
from synthforge.evaluation.sets import Images
from synthforge.evaluation.trainer.jobs import Training
from synthforge.evaluation.trainer.train import Predictions
from synthforge.evaluation.tuning import key_of
from synthforge.recipe.evaluation import REAL, ArmConfig, EvaluationConfig
from synthforge.statistics import Measured, estimate, of_two_trainings, verdicts


@dataclass(frozen=True)
class ArmTrainings:
    """One arm in one setting."""

    by_seed: list[Training]
    twice: list[Training]
    """The first of these with twice the steps; nothing if that is not wanted."""
    images: float
    """Training images, mean over seeds."""


@dataclass(frozen=True)
class Findings:
    """Everything that was trained, and what follows from it.

    Args:
        draws: all draws of real images, also those of the curve alone.
        by_arm: index of the setting, and name of the arm.
        real_only: by `key_of` the draw.
        predictions: by the training's digest.
        missing: index of the setting and name of the arm to why there is none.
        required: what --require asks for.
    """

    settings: Sequence[Setting]
    draws: Sequence[RealDraw]
    arms: Mapping[str, ArmConfig]
    config: EvaluationConfig
    classes: list[str]
    holdout: Images
    by_arm: Mapping[tuple[int, str], ArmTrainings]
    real_only: Mapping[tuple[str, int], list[Training]]
    predictions: Mapping[str, Predictions]
    is_copy: Mapping[str, bool]
    missing: Mapping[tuple[int, str], str]
    required: Sequence[Requirement] = ()

    @functools.cached_property
    def tables(self) -> list[TableResult]:
        """Those that have settings, `own` first."""
        by_origin = {origin: [group for group in self.groups if self.settings[group[0]].origin == origin] for origin in ORIGINS}
        return [self._table(origin, groups) for origin, groups in by_origin.items() if groups]

    @property
    def curve(self) -> list[CurvePoint]:
        """The real learning curve."""
        return [
            CurvePoint(amount=amount, real_per_class=round(size, 2), accuracy=Measured.share(estimate(outcomes.correct_DSV)))
            for amount, size, outcomes in self._curve
        ]

    @functools.cached_property
    def groups(self) -> list[list[int]]:
        """Indices of all draws of each setting."""
        return groups_of(self.settings)

    def _outcomes(self, trainings: Sequence[Sequence[Training]]) -> Outcomes:
        return Outcomes.of([[self.predictions[one.digest] for one in by_seed] for by_seed in trainings], self.holdout.label_N)

    @property
    def of_intervals(self) -> list[str]:
        """What they do not cover, and what verdicts allow for, as notes."""
        return [*self._uncovered(), *self.of_many]

    @property
    def of_many(self) -> list[str]:
        """That verdicts allow for many comparisons, as a note."""
        num = sum(len(setting.comparisons) for setting in self.tables[0].settings) if self.tables else 0
        return [f"intervals are of each figure by itself; verdicts of single comparisons allow for all {num} at once"] if num > 1 else []

    def _uncovered(self) -> list[str]:
        if self.config.draws == 1 and self.config.seeds == 1:
            return ["one draw and one seed: intervals cover holdout images only, so differences may be chance of a single training"]
        if self.config.draws == 1:
            return ["one draw: intervals cover seeds and holdout images, not other real images, fits or pools; raise draws for these"]
        notes = []
        for amount in dict.fromkeys(draw.amount for draw in self.draws):
            held = [set(draw.fit.sha256_N) for draw in self.draws if draw.amount == amount]
            num, where = len(set.union(*held)), f"{len(held[0]) / len(self.classes):g} real per class"
            if num == len(held[0]):
                notes.append(f"{where}: every draw has the same real images, so intervals do not cover other ones")
            elif sum(map(len, held)) > num:
                notes.append(
                    f"{where}: draws share real images, {num:,} in all; the interval is about these, and would be wider about others"
                )
        for group in self.groups:
            of_draw = [self.settings[index] for index in group]
            where = of_draw[0].where
            pools = [[setting.sources[name].sha256_N for setting in of_draw] for name in of_draw[0].sources if " by " not in name]
            if any(np.array_equal(pool, others[0]) for others in pools for pool in others[1:]):
                notes.append(f"{where}: all draws share one pool, so intervals do not cover other fits or pools")
            elif pools and self.config.fit is None:
                notes.append(f"{where}: one generator made the pools of all draws, so intervals do not cover other fits")
        return notes

    @property
    def of_curve(self) -> list[str]:
        """Where more real images are no better, so that no number of them can be named, as notes."""
        falls = [
            f"{number(one.real_per_class)} to {number(other.real_per_class)}"
            for one, other in itertools.pairwise(self.curve)
            if other.real_per_class > one.real_per_class and other.accuracy.value <= one.accuracy.value
        ]
        told = (
            f"accuracy does not rise from {' and '.join(falls)} real per class, so what images are worth in real ones is hardly told there"
        )
        return [told] if falls else []

    @property
    def of_steps(self) -> list[str]:
        """Whether they were enough, as notes."""
        margin, notes = self.config.margin, []
        for table in self.tables:
            for setting in table.settings:
                moved = [name for name, one in setting.steps_check.items() if _is_beyond(one, margin)]
                mean, where = setting.steps_check_mean, f"{setting.real_per_class:g} real per class"
                if mean is None:
                    continue
                told = f"twice the steps change accuracy by {100 * mean.value:+.1f} [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}] points"
                changed = [
                    f"{one.arm} less {one.against} by {100 * one.steps_change.value:+.1f}"
                    for one in setting.comparisons
                    if one.steps_change is not None and _is_beyond(one.steps_change, 0.0)
                ]
                differences = f", and {', '.join(changed)}" if changed else ""
                if not setting.has_enough_steps:
                    most = f", most of all {', '.join(moved)}" if moved else ""
                    notes.append(f"{where}: {told} over all arms{most}{differences}; raise trainer.steps before believing differences")
                elif max(mean.high, -mean.low) > margin:
                    notes.append(f"{where}: {told} over all arms, so whether they were enough can't be told to {100 * margin:g}")
        return notes

    @functools.cached_property
    def _curve(self) -> list[tuple[str, float, Outcomes]]:
        """Real only for each amount, in order."""
        found = []
        for amount in dict.fromkeys(str(draw.amount) for draw in self.draws):
            draws = [draw for draw in self.draws if str(draw.amount) == amount]
            outcomes = self._outcomes([self.real_only[key_of(draw)] for draw in draws])
            found.append((amount, float(np.mean([draw.per_class for draw in draws])), outcomes))
        return sorted(found, key=lambda point: point[1])

    def _table(self, origin: Origin, groups: Sequence[list[int]]) -> TableResult:
        outcomes = [self.arms_of(group) for group in groups]
        differences = [
            (arm, against, found[arm].correct_DSV - found[against].correct_DSV) for found in outcomes for arm, against in self._pairs(found)
        ]
        comparisons = compared(differences, self.holdout.label_N, self.classes, self.config.margin)
        kinds: dict[tuple[Kind, str], list[Floats]] = {}
        for arm, against, values_DSV in differences:
            kinds.setdefault(kind_of(self.arms[arm], self.arms[against]), []).append(values_DSV)
        settings = []
        for group, found in zip(groups, outcomes, strict=True):
            num = len(self._pairs(found))
            own, comparisons = comparisons[:num], comparisons[num:]
            settings.append(self._setting(group, found, own))
        generators = list(dict.fromkeys(self.settings[group[0]].generator for group in groups))
        return TableResult(
            origin=origin,
            generator="; ".join(filter(None, generators)),
            settings=settings,
            claims=claimed(kinds, self.config.margin),
            required=self._required(groups, outcomes),
        )

    def _required(self, groups: Sequence[list[int]], outcomes: Sequence[Mapping[str, Outcomes]]) -> list[RequiredClaim]:
        """Of requirements that compare arms which are there; each comparison once, whatever is asked of it."""
        amounts = [str(self.settings[group[0]].draw.amount) for group in groups]
        asked = {
            (one.arm, one.other, one.amount): [
                (amount, found[one.arm].correct_DSV - found[one.other].correct_DSV)
                for amount, found in zip(amounts, outcomes, strict=True)
                if one.amount in {None, amount} and found.keys() >= {one.arm, one.other}
            ]
            for one in self.required
            if one.level is None
        }
        asked = {pair: found for pair, found in asked.items() if found}
        kinds: dict[tuple[Kind, str], list[Floats]] = {
            ("pair", in_words(*pair)): [values_DSV for _, values_DSV in found] for pair, found in asked.items()
        }
        required = []
        for claim, (pair, found) in zip(claimed(kinds, self.config.margin), asked.items(), strict=True):
            singles = verdicts([values_DSV for _, values_DSV in found], self.config.margin)
            hurts_at = [amount for (amount, _), single in zip(found, singles, strict=True) if single.word == "hurt"]
            arm, against, amount = pair
            required.append(RequiredClaim(arm=arm, against=against, amount=amount, claim=claim, hurts_at=list(dict.fromkeys(hurts_at))))
        return required

    def _pairs(self, found: Mapping[str, Outcomes]) -> list[tuple[str, str]]:
        return pairs({name: self.arms[name] for name in found}, self.config.mixing)

    def arms_of(self, group: Sequence[int]) -> dict[str, Outcomes]:
        """What became of each arm in all draws of a setting."""
        names = [name for name in self.arms if (group[0], name) in self.by_arm]
        return {name: self._outcomes([self.by_arm[index, name].by_seed for index in group]) for name in names}

    def _setting(self, group: Sequence[int], found: dict[str, Outcomes], comparisons: list[Comparison]) -> SettingResult:
        first, worths, moved = self.settings[group[0]], self._worth(group, found), self._moved(group, found)
        images = {name: float(np.mean([self.by_arm[index, name].images for index in group])) for name in found}
        arms = {name: arm_score(name, one, images[name], self.holdout.label_N, self.classes) for name, one in found.items()}
        checks, checked = self._steps_checks(group, found, moved)
        if len(group) > 1:
            comparisons = [
                one.model_copy(update={"steps_change": Measured.difference(estimate(moved[one.arm] - moved[one.against]))})
                if one.arm in moved and one.against in moved
                else one
                for one in comparisons
            ]
        missing = {
            name: next(self.missing[index, name] for index in group if (index, name) in self.missing)
            for name in self.arms
            if name not in found
        }
        per_class = float(np.mean([self.settings[index].draw.per_class for index in group]))
        return SettingResult(
            amount=str(first.draw.amount),
            real_per_class=round(per_class, 2),
            synthetic_per_real=first.ratio,
            budget=first.draw.budget,
            arms=arms,
            comparisons=comparisons,
            worth=worths,
            steps_check=checks,
            steps_check_mean=checked,
            has_enough_steps=not any(_is_beyond(one, self.config.margin) for one in [*checks.values(), *([checked] if checked else [])]),
            sentence=sentence_of(
                per_class, first.draw.budget, first.ratio, arms=arms, comparisons=comparisons, worths=worths, missing=missing
            ),
            missing=missing,
        )

    def _moved(self, group: Sequence[int], found: Mapping[str, Outcomes]) -> dict[str, Floats]:
        """What twice the steps change on each holdout image, (D, 1, V) by arm."""
        return {
            name: self._outcomes([self.by_arm[index, name].twice for index in group]).correct_DSV - one.correct_DSV[:, :1]
            for name, one in found.items()
            if self.by_arm[group[0], name].twice
        }

    def _steps_checks(
        self, group: Sequence[int], found: Mapping[str, Outcomes], moved: Mapping[str, Floats]
    ) -> tuple[dict[str, Measured], Measured | None]:
        """The same by arm and over all arms."""
        if not moved:
            return {}, None
        if len(group) > 1:
            return {name: Measured.of(estimate(one)) for name, one in moved.items()}, Measured.of(
                estimate(np.mean(list(moved.values()), axis=0))
            )
        # Of one draw each difference is of two trainings, which would be others with other seeds; arms then stand for draws.
        by_arm = {name: Measured.of(of_two_trainings(one[0, 0], found[name].correct_DSV[0])) for name, one in moved.items()}
        if len(moved) == 1:
            return by_arm, next(iter(by_arm.values()))
        return by_arm, Measured.of(estimate(np.concatenate(list(moved.values()))))

    def _worth(self, group: Sequence[int], found: dict[str, Outcomes]) -> dict[str, Worth]:
        if len(self._curve) < 2:
            return {}
        of_group = [self.settings[index] for index in group]
        num_real = float(np.mean([setting.draw.per_class for setting in of_group]))
        num_others = float(np.mean([setting.wanted(len(self.classes), self.is_copy) for setting in of_group]))
        by_parts = {tuple(self.arms[name].of): name for name in found}
        worths = {}
        for name, outcomes in found.items():
            parts = tuple(self.arms[name].of)
            if parts == (REAL,):
                continue
            has_real = REAL in parts
            if has_real:
                without, more_real = by_parts.get((REAL,)), by_parts.get((REAL, "more"))
            else:  # what curation wins back of what random synthetic images lose to as many real ones
                without, more_real = by_parts.get(("random",)), by_parts.get((REAL,)) if of_group[0].ratio == 1 else by_parts.get(("more",))
                if parts != ("curated",):
                    without = more_real = None
            if name in {without, more_real}:
                without = more_real = None
            worths[name] = worth(
                name,
                outcomes,
                [(size, one) for _, size, one in self._curve],
                num_real=num_real if has_real else 0.0,
                num_others=num_others * (len(parts) - has_real),
                without=found[without] if without is not None else None,
                more_real=found[more_real] if more_real is not None else None,
            )
        return worths


def _is_beyond(one: Measured, margin: float) -> bool:
    return one.low > margin or one.high < -margin


def groups_of(settings: Sequence[Setting]) -> list[list[int]]:
    """Settings that differ in their draw alone, by index."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, setting in enumerate(settings):
        groups.setdefault((setting.origin, setting.draw.amount, setting.ratio), []).append(index)
    return list(groups.values())
