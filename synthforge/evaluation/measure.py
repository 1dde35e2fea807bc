"""Measure what training sets are worth: the steps that an evaluation and a diagnosis share, in their order.

1. Open the real images and take draws of them.
2. Prepare for each draw the images that arms take from.
3. Tune the real-only arm on validation data; every arm takes its settings.
4. Open the held-out test set, and leave out training images that copy one of it.
5. Train every arm with the same steps, settings and seeds, and test it.

`Findings` turns the predictions into figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from synthforge.data.layout import Document
from synthforge.data.storage import Folder, require_writable_file
from synthforge.devices import one_worker_each, pick_device
from synthforge.errors import PlaceError
from synthforge.evaluation.holdout import find_leakage, notes_of_classes, open_holdout
from synthforge.evaluation.preparation.origins import draws_to_prepare
from synthforge.evaluation.preparation.prepare import PrepareWork, prepared_settings
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import HoldoutRequest
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.requirements import Requirement
from synthforge.evaluation.sets import SetReader, write_set
from synthforge.evaluation.settings import RealDraws
from synthforge.evaluation.sources import ArmSources, given_settings
from synthforge.evaluation.trainer.jobs import Trainings, read_result
from synthforge.evaluation.trainer.models import filled_in, platform_of
from synthforge.evaluation.training_plan import Planner
from synthforge.evaluation.tuning import Tuned, Tuning, tune
from synthforge.evaluation.work import Beside, EvaluationWork
from synthforge.executors.running import Workers
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.evaluation import TrainerConfig

TRAINING_DEADLINE = 1800.0
"""Seconds without progress after which a training counts as hung."""


@dataclass(frozen=True)
class Measurement:
    """Everything that was trained and tested."""

    findings: Findings
    tuned: Mapping[tuple[str, int], Tuned]
    trainer: TrainerConfig
    """Before tuning."""
    copies_removed: dict[str, int]
    notes: list[str]
    started: float
    """`time.perf_counter` once draws were prepared."""

    def all_notes(self, before: Sequence[str], after: Sequence[str]) -> list[str]:
        """All notes, each once."""
        settings_notes = [note for setting in self.findings.plan.settings for note in setting.notes]
        return list(dict.fromkeys([*before, *self.notes, *after, *settings_notes]))

    @property
    def device_name(self) -> str:
        """The device that classifiers were trained on."""
        device = pick_device(self.trainer.device)
        return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores"

    @property
    def seconds(self) -> float:
        """Since draws were prepared."""
        return round(time.perf_counter() - self.started, 1)


def measure(request: HoldoutRequest, sources: ArmSources, reporter: Reporter, required: Sequence[Requirement] = ()) -> Measurement:
    """Prepare, tune, train and test.

    Raises RequestError or PlaceError before anything is made; RequestError also for an unusable holdout, which is
    opened late. Raises WorkError for draws or trainings that fail.

    Args:
        sources: what arms take their images from.
    """
    config, cache, folder = request.config, cache_folder(request.curation), request.folder
    _require_places(request)

    # Real images
    reporter.note("reading the real images")
    reference = Reference.open(request.reference, cache, reporter)
    classes = reference.classes
    base = filled_in(config.trainer, reference.image_size)
    assert base.resolution is not None
    draws = RealDraws.of(reference, config)
    units = draws_to_prepare(reference, request)
    draws.require_readable()

    tuning = Tuning.of(draws.all, base, config, folder, len(classes))
    preparing = PrepareWork(request, sources) if request.recipe is not None else None
    work = EvaluationWork(folder, cache, base.device, base.threads, preparing)
    with Workers(work, config.workers or one_worker_each(base.device), reporter, deadline_seconds=TRAINING_DEADLINE) as workers:
        # Images that arms take from; workers without a draw to prepare tune meanwhile
        if preparing is not None:
            beside = _not_done(tuning, folder)
            settings, notes = prepared_settings(units, preparing, draws, workers, beside=beside), list[str]()
        else:
            settings, notes = given_settings(request, sources, draws, reporter)
        if base.start != "scratch":
            notes.append(f"classifiers start from weights of {base.pretrained or base.network}, which may have seen the holdout's images")

        # Tuning
        started, platform, trainer = time.perf_counter(), platform_of(base), Trainings(folder, workers)
        tuned = tune(tuning, trainer)

        # The held-out test set, opened only now
        holdout = open_holdout(request.holdout, classes, cache, reporter)
        leakage = find_leakage(holdout, draws.all, settings, SetReader(folder, cache), base.resolution)
        holdout_set = write_set(folder, [leakage.holdout])

        # Arms
        planner = Planner(config, classes, tuned, platform, holdout_set, is_copy=leakage.is_copy, folder=folder)
        plan = planner.plan(settings, draws.all)
        predictions = trainer.run(plan.trainings, "training arms")

    findings = Findings(
        plan=plan,
        draws=draws.all,
        config=config,
        classes=classes,
        holdout=leakage.holdout,
        predictions={training.digest: predicted for training, predicted in zip(plan.trainings, predictions, strict=True)},
        is_copy=leakage.is_copy,
        required=required,
    )
    notes = [*reference.notes, *notes, *holdout.notes, *leakage.notes, *notes_of_classes(leakage.holdout, classes), *plan.notes]
    return Measurement(findings, tuned, base, leakage.copies_removed, notes=notes, started=started)


def _not_done(tuning: Tuning, folder: Path) -> list[Beside]:
    """Trainings of the tuning that were not done yet, each once."""
    different = {training.digest: training for training in tuning.trainings}
    return [Beside(training) for training in different.values() if read_result(folder, training) is None]


def write_result(request: HoldoutRequest, result: Document) -> None:
    """Write the result's file, whole or not at all."""
    place, _, file = request.out.rpartition("/")
    Folder(place).replace(file, result.to_bytes())


def _require_places(request: HoldoutRequest) -> None:
    """Raises PlaceError if the folder or the result can't be written."""
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        how = "output.path" if request.recipe is not None else "--out"
        raise PlaceError(f"{request.folder}: can't be written ({error.strerror}); choose another place with {how}") from error
    require_writable_file(request.out)
