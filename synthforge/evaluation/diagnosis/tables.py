"""From predictions to a diagnosis: the loss and its parts in every setting, and figures of the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from synthforge.evaluation.diagnosis.arms import RANDOM
from synthforge.evaluation.diagnosis.contrasts import ArmOutcomes, losses
from synthforge.evaluation.diagnosis.words import sentence_of
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.scores import Outcomes
from synthforge.evaluation.results.types import ORIGINS, ImageFacts, Loss, Origin, SettingDiagnosis, TableDiagnosis
from synthforge.evaluation.settings import Setting
from synthforge.recipe.evaluation import REAL
from synthforge.statistics import Measured, estimate


def tables_of(findings: Findings) -> list[TableDiagnosis]:
    """One table for each origin of pools, `own` first; origins without real or random arms have none."""
    return [table for origin in ORIGINS if (table := _table(findings, origin)) is not None]


def _table(findings: Findings, origin: Origin) -> TableDiagnosis | None:
    groups = [group for group in findings.plan.groups if findings.plan.settings[group[0]].origin == origin]
    by_group = [(group, outcomes) for group in groups if {REAL, RANDOM} <= (outcomes := findings.arms_of(group)).keys()]
    if not by_group:
        return None
    settings_by_group = [[findings.plan.settings[index] for index in group] for group, _ in by_group]
    correct = [{name: one.correct_DSV for name, one in outcomes.items()} for _, outcomes in by_group]
    taken = [float(np.mean([_taken(findings, setting) for setting in settings])) for settings in settings_by_group]
    arms = [ArmOutcomes(*one) for one in zip(correct, map(_untested, settings_by_group), taken, strict=True)]
    *each, mean = losses(arms, findings.config.margin)
    have_other_real_images = all(len({tuple(setting.draw.fit.sha256_N) for setting in settings}) > 1 for settings in settings_by_group)
    return TableDiagnosis(
        origin=origin,
        generator=findings.generators([group for group, _ in by_group]),
        settings=[_setting(findings, group, outcomes, loss) for (group, outcomes), loss in zip(by_group, each, strict=True)],
        mean=mean,
        covers_real_images=have_other_real_images or all(one.pool_tells_of_other_draws for one in arms),
    )


def _taken(findings: Findings, setting: Setting) -> float:
    """Share of its pool that an arm takes.

    1 for a generator that was fitted on just these real images: its pool depends on the same images, so the two do not
    vary independently.
    """
    if setting.origin == "own":
        return 1.0
    num_classes = len(findings.classes)
    wanted_C = setting.wanted(num_classes, findings.is_copy)
    there_C = setting.sources[RANDOM].usable(findings.is_copy).per_class(num_classes)
    return float(np.average(wanted_C / np.maximum(there_C, 1), weights=wanted_C)) if wanted_C.any() else 1.0


def _untested(settings: Sequence[Setting]) -> set[str]:
    """Parts in which no draw's images can be shown to differ. The arms that would measure them hold the same images."""
    facts = [setting.facts for setting in settings]
    untested = set()
    if all(one is not None and not one.differing for one in facts):  # no class differs, or none has images enough for the test
        untested |= {"content", "interaction"}
    if all(one is not None and one.doubted == 0 for one in facts):
        untested.add("labels")
    return untested


def _setting(findings: Findings, group: Sequence[int], outcomes: Mapping[str, Outcomes], loss: Loss) -> SettingDiagnosis:
    settings = [findings.plan.settings[index] for index in group]
    per_class = round(float(np.mean([setting.draw.per_class for setting in settings])), 2)
    facts = _facts(settings)
    return SettingDiagnosis(
        amount=str(settings[0].draw.amount),
        real_per_class=per_class,
        loss=loss,
        facts=facts,
        accuracy={name: Measured.share(estimate(one.correct_DSV)) for name, one in outcomes.items()},
        missing={name: reason for (index, name), reason in findings.plan.missing.items() if index in group},
        sentence=sentence_of(per_class, loss, facts),
    )


def _facts(settings: Sequence[Setting]) -> ImageFacts | None:
    """Means over draws. None: nothing is known of the images."""
    facts = [setting.facts for setting in settings if setting.facts is not None]
    if not facts:
        return None
    by_name = {name: [getattr(one, name) for one in facts] for name in ImageFacts.model_fields}
    mean: dict[str, Any] = {name: None if None in values else round(sum(values) / len(values), 4) for name, values in by_name.items()}
    return ImageFacts(**mean | {"p_value": max(by_name["p_value"])})
