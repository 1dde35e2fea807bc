"""From predictions to tables: accuracy of each arm, comparisons, exchange rates, and a check of the training steps.

Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthforge.arrays import Doubles
from synthforge.evaluation.reference import RealDraw
from synthforge.evaluation.results import types
from synthforge.evaluation.results.kinds import kind_of
from synthforge.evaluation.results.requirements import Requirement, title_of
from synthforge.evaluation.results.scores import Outcomes, arm_score, claimed, compared, pairs, worth
from synthforge.evaluation.results.words import sentence_of
from synthforge.evaluation.sets import Images
from synthforge.evaluation.trainer.jobs import Training
from synthforge.evaluation.trainer.train import Predictions
from synthforge.evaluation.training_plan import TrainingPlan
from synthforge.evaluation.tuning import key_of
from synthforge.recipe.evaluation import MORE, REAL, ArmConfig, EvaluationConfig
from synthforge.statistics import Measured, estimate, of_two_trainings, verdicts


@dataclass(frozen=True)
class Findings:
    """All trainings with their predictions, and the figures that follow."""

    plan: TrainingPlan
    draws: Sequence[RealDraw]
    """All draws, also those of the real learning curve alone."""
    config: EvaluationConfig
    classes: list[str]
    holdout: Images
    """The held-out test set."""
    predictions: Mapping[str, Predictions]
    """By the training's digest."""
    is_copy: Mapping[str, bool]
    """SHA-256 of an image file to whether it copies a holdout image."""
    required: Sequence[Requirement] = ()
    """Comparisons that --require asks for."""

    @property
    def arms(self) -> dict[str, ArmConfig]:
        """By their names."""
        return {arm.name: arm for arm in self.config.arms}

    @functools.cached_property
    def tables(self) -> list[types.TableResult]:
        """Those that have settings, `own` first."""
        by_origin = {
            origin: [group for group in self.plan.groups if self.plan.settings[group[0]].origin == origin] for origin in types.ORIGINS
        }
        return [self._table(origin, groups) for origin, groups in by_origin.items() if groups]

    def _table(self, origin: types.Origin, groups: Sequence[list[int]]) -> types.TableResult:
        by_group = [self.arms_of(group) for group in groups]
        pairs_by_group = [pairs({name: self.arms[name] for name in outcomes}, self.config.mixing) for outcomes in by_group]
        differences = [
            (arm, against, outcomes[arm].correct_DSV - outcomes[against].correct_DSV)
            for outcomes, arm_pairs in zip(by_group, pairs_by_group, strict=True)
            for arm, against in arm_pairs
        ]
        kinds: dict[tuple[types.Kind, str], list[Doubles]] = {}
        for arm, against, values_DSV in differences:
            kinds.setdefault(kind_of(self.arms[arm], self.arms[against]), []).append(values_DSV)
        comparisons = iter(compared(differences, self.holdout.label_N, self.classes, self.config.margin))
        settings = [
            self._setting(group, outcomes, list(itertools.islice(comparisons, len(arm_pairs))))
            for group, outcomes, arm_pairs in zip(groups, by_group, pairs_by_group, strict=True)
        ]
        return types.TableResult(
            origin=origin,
            generator=self.generators(groups),
            settings=settings,
            claims=claimed(kinds, self.config.margin),
            required=self._required(groups, by_group),
        )

    def generators(self, groups: Sequence[list[int]]) -> str:
        """Names of the generators of some settings."""
        return "; ".join(filter(None, dict.fromkeys(self.plan.settings[group[0]].generator for group in groups)))

    def arms_of(self, group: Sequence[int]) -> dict[str, Outcomes]:
        """Outcomes of each arm in all draws of a setting."""
        names = [name for name in self.arms if (group[0], name) in self.plan.by_arm]
        return {name: self._outcomes([self.plan.by_arm[index, name].by_seed for index in group]) for name in names}

    def _outcomes(self, trainings: Sequence[Sequence[Training]]) -> Outcomes:
        predictions = [[self.predictions[training.digest] for training in by_seed] for by_seed in trainings]
        return Outcomes.of(predictions, self.holdout.label_N)

    def _required(self, groups: Sequence[list[int]], by_group: Sequence[Mapping[str, Outcomes]]) -> list[types.RequiredClaim]:
        """Claims for requirements that compare two arms; each comparison once, whatever is required of it."""
        amounts = [str(self.plan.settings[group[0]].draw.amount) for group in groups]
        differences: dict[tuple[str, str, str | None], list[tuple[str, Doubles]]] = {}
        for arm, against, wanted in (required.pair for required in self.required if required.level is None):
            values = [
                (amount, outcomes[arm].correct_DSV - outcomes[against].correct_DSV)
                for amount, outcomes in zip(amounts, by_group, strict=True)
                if wanted in {None, amount} and outcomes.keys() >= {arm, against}
            ]
            if values:
                differences[arm, against, wanted] = values
        margin, required = self.config.margin, []
        kinds: dict[tuple[types.Kind, str], list[Doubles]] = {
            ("pair", title_of(*pair)): [values_DSV for _, values_DSV in values] for pair, values in differences.items()
        }
        for claim, ((arm, against, wanted), values) in zip(claimed(kinds, margin), differences.items(), strict=True):
            singles = verdicts([values_DSV for _, values_DSV in values], margin)
            hurts_at = dict.fromkeys(amount for (amount, _), single in zip(values, singles, strict=True) if single.word == "hurt")
            required.append(types.RequiredClaim(arm=arm, against=against, amount=wanted, claim=claim, hurts_at=[*hurts_at]))
        return required

    def _setting(self, group: Sequence[int], outcomes: Mapping[str, Outcomes], comparisons: list[types.Comparison]) -> types.SettingResult:
        first, margin = self.plan.settings[group[0]], self.config.margin
        images = {name: float(np.mean([self.plan.by_arm[index, name].images for index in group])) for name in outcomes}
        arms = {name: arm_score(name, one, images[name], self.holdout.label_N, self.classes) for name, one in outcomes.items()}
        moved = self._moved(group, outcomes)
        checks, checks_mean = _steps_checks(outcomes, moved)
        if len(group) > 1 and moved:
            changes = [Measured.difference(estimate(moved[one.arm] - moved[one.against])) for one in comparisons]
            comparisons = [one.model_copy(update={"steps_change": change}) for one, change in zip(comparisons, changes, strict=True)]
        missing = {
            name: next(self.plan.missing[index, name] for index in group if (index, name) in self.plan.missing)
            for name in self.arms
            if name not in outcomes
        }
        per_class = float(np.mean([self.plan.settings[index].draw.per_class for index in group]))
        result = types.SettingResult(
            amount=str(first.draw.amount),
            real_per_class=round(per_class, 2),
            synthetic_per_real=first.ratio,
            budget=first.draw.budget,
            arms=arms,
            comparisons=comparisons,
            worth=self._worth(group, outcomes),
            steps_check=checks,
            steps_check_mean=checks_mean,
            has_enough_steps=not any(one.is_beyond(margin) for one in (*checks.values(), checks_mean) if one is not None),
            sentence="",
            missing=missing,
        )
        return result.model_copy(update={"sentence": sentence_of(result)})

    def _moved(self, group: Sequence[int], outcomes: Mapping[str, Outcomes]) -> dict[str, Doubles]:
        """Change of the first seed's outcomes with twice the steps, (D, 1, V) by arm; empty without `steps_check`."""
        return {
            name: self._outcomes([self.plan.by_arm[index, name].twice for index in group]).correct_DSV - one.correct_DSV[:, :1]
            for name, one in outcomes.items()
            if self.plan.by_arm[group[0], name].twice
        }

    def _worth(self, group: Sequence[int], by_arm: Mapping[str, Outcomes]) -> dict[str, types.Worth]:
        """Exchange rate of each arm that has other images than real ones."""
        if len(self._curve) < 2:
            return {}
        settings = [self.plan.settings[index] for index in group]
        num_real = float(np.mean([setting.draw.per_class for setting in settings]))
        num_others = float(np.mean([setting.wanted(len(self.classes), self.is_copy) for setting in settings]))
        by_parts = {tuple(self.arms[name].of): outcomes for name, outcomes in by_arm.items()}
        worths = {}
        for name, outcomes in by_arm.items():
            parts = tuple(self.arms[name].of)
            if parts == (REAL,):
                continue
            without = more_real = None
            if REAL in parts:
                without, more_real = by_parts.get((REAL,)), by_parts.get((REAL, MORE))
            elif parts == ("curated",):  # how much curation recovers of what random synthetic images cost against as many real ones
                without, more_real = by_parts.get(("random",)), by_parts.get((REAL,) if settings[0].ratio == 1 else (MORE,))
            worths[name] = worth(
                name,
                outcomes,
                [(size, one) for _, size, one in self._curve],
                num_real=num_real if REAL in parts else 0.0,
                num_others=num_others * sum(part != REAL for part in parts),
                without=without,
                more_real=more_real if more_real is not outcomes else None,
            )
        return worths

    @property
    def curve(self) -> list[types.CurvePoint]:
        """The real learning curve."""
        return [
            types.CurvePoint(amount=amount, real_per_class=round(size, 2), accuracy=Measured.share(estimate(outcomes.correct_DSV)))
            for amount, size, outcomes in self._curve
        ]

    @functools.cached_property
    def _curve(self) -> list[tuple[str, float, Outcomes]]:
        """Amount, real images per class, and outcomes of the real-only arm; from few images to many."""
        points = []
        for amount in dict.fromkeys(str(draw.amount) for draw in self.draws):
            draws = [draw for draw in self.draws if str(draw.amount) == amount]
            outcomes = self._outcomes([self.plan.real_only[key_of(draw)] for draw in draws])
            points.append((amount, float(np.mean([draw.per_class for draw in draws])), outcomes))
        return sorted(points, key=lambda point: point[1])


def _steps_checks(outcomes: Mapping[str, Outcomes], moved: Mapping[str, Doubles]) -> tuple[dict[str, Measured], Measured | None]:
    """What twice the steps add to accuracy, by arm and over all arms."""
    if not moved:
        return {}, None
    arms_ADSV = np.stack(list(moved.values()))
    if arms_ADSV.shape[1] > 1:
        return {name: Measured.of(estimate(one)) for name, one in moved.items()}, Measured.of(estimate(arms_ADSV.mean(axis=0)))
    # With one draw each difference is between two trainings, which other seeds would change. Arms stand in for draws.
    by_arm = {name: Measured.of(of_two_trainings(one[0, 0], outcomes[name].correct_DSV[0])) for name, one in moved.items()}
    return by_arm, Measured.of(estimate(arms_ADSV[:, 0])) if len(moved) > 1 else next(iter(by_arm.values()))
