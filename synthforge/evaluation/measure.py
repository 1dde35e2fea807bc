"""Train a classifier on every arm, and test it on the holdout.

The real-only arm is tuned on validation data; only then the holdout is opened; images that copy one of it are removed from every arm; every
arm is trained with the same steps, settings and seeds. What follows from it is `findings`.
The settings (draws, pools, what curation chose) were prepared before, without the holdout.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from synthforge.devices import pick_device
from synthforge.evaluation.conditions import Setting
from synthforge.evaluation.holdout import find_leakage, notes_of_classes, open_holdout
from synthforge.evaluation.request import Request
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.requirements import holds
from synthforge.evaluation.results.types import EvaluateResult
from synthforge.evaluation.results.words import use_of, verdict_of
from synthforge.evaluation.sets import SetReader, write_set
from synthforge.evaluation.trainer.jobs import Trainings
from synthforge.evaluation.trainer.models import platform_of
from synthforge.evaluation.training_plan import Planner
from synthforge.evaluation.tuning import Tuned, Tuning, tune
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.evaluation import TrainerConfig


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that was run: what its result tells beside the findings."""

    settings: Sequence[Setting]
    tuned: Mapping[tuple[str, int], Tuned]
    base: TrainerConfig
    copies_removed: dict[str, int]
    notes: list[str]
    num_trainings: int
    started: float
    """Time of `time.perf_counter` once draws were prepared."""

    def all_notes(self, before: Sequence[str], after: Sequence[str]) -> list[str]:
        """Everything that is to be said beside the figures, each once."""
        of_settings = [note for setting in self.settings for note in setting.notes]
        return list(dict.fromkeys([*before, *self.notes, *after, *of_settings]))

    @property
    def device_name(self) -> str:
        """The device that classifiers were trained on."""
        device = pick_device(self.base.device)
        return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"

    @property
    def seconds(self) -> float:
        """Since draws were prepared."""
        return round(time.perf_counter() - self.started, 1)


def measure(
    request: Request,
    settings: Sequence[Setting],
    classes: list[str],
    tuning: Tuning,
    trainer: Trainings,
    *,
    notes: Sequence[str],
    reporter: Reporter,
) -> tuple[Evaluation, Findings]:
    """Tune, open the holdout, and train every arm.

    Raises RequestError for a holdout that can't be used, WorkError for trainings that fail.

    Args:
        settings: prepared without the holdout, those of `own` origin first.
        tuning: of their draws, and of those of further amounts, on which only `real` is trained.
    """
    started, base, config, cache = time.perf_counter(), tuning.base, request.config, cache_folder(request.curation)
    assert base.resolution is not None
    platform = platform_of(base)
    tuned = tune(tuning, trainer)
    holdout = open_holdout(request.holdout, classes, cache, reporter)
    leakage = find_leakage(holdout, tuning.draws, settings, SetReader(request.folder, cache), base.resolution)
    holdout_set = write_set(request.folder, [leakage.holdout])
    planner = Planner(config, classes, tuned, platform, holdout_set, is_copy=leakage.is_copy, folder=request.folder)
    plan = planner.plan(settings, tuning.draws)
    trainings = plan.trainings
    predictions = dict(zip([one.digest for one in trainings], trainer.run(trainings, "training arms"), strict=True))
    findings = Findings(
        settings=plan.settings,
        draws=tuning.draws,
        arms={arm.name: arm for arm in config.arms},
        config=config,
        classes=classes,
        holdout=leakage.holdout,
        by_arm=plan.by_arm,
        real_only=plan.real_only,
        predictions=predictions,
        is_copy=leakage.is_copy,
        missing=plan.missing,
        required=request.require,
    )
    notes = [*notes, *holdout.notes, *leakage.notes, *notes_of_classes(leakage.holdout, classes), *plan.notes]
    evaluation = Evaluation(plan.settings, tuned, base, leakage.copies_removed, notes, num_trainings=len(predictions), started=started)
    return evaluation, findings


def result_of(request: Request, evaluation: Evaluation, findings: Findings) -> EvaluateResult:
    """What follows from it, as it is written to a file."""
    arms, curve = findings.arms, findings.curve
    compared = next((table for table in findings.tables if table.compares), None)
    return EvaluateResult(
        holdout=request.holdout,
        holdout_images=len(findings.holdout),
        classes=findings.classes,
        verdict=verdict_of(findings.tables, [(point.real_per_class, point.accuracy) for point in curve], arms),
        tables=findings.tables,
        curve=curve,
        tuned=[one.result for one in evaluation.tuned.values()],
        trainer=evaluation.base.model_dump(mode="json"),
        steps=evaluation.base.steps,
        copies_removed=evaluation.copies_removed,
        notes=evaluation.all_notes([*findings.of_steps, *findings.of_curve], findings.of_intervals),
        trainings=evaluation.num_trainings,
        device=evaluation.device_name,
        seconds=evaluation.seconds,
        file=request.out,
        requirements={one.text: holds(one, findings.tables) for one in request.require},
        use=use_of(compared, arms) if compared is not None else "not measured",
    )
