"""Measure what training sets are worth: the steps that an evaluation and a diagnosis share, in their order.

1. Open the real images and take draws of them.
2. Prepare for each draw the images that arms take from.
3. Tune the real-only arm on validation data; every arm takes its settings.
4. Open the held-out test set, and leave out training images that copy one of its images.
5. Train every arm with the same steps, settings and seeds, and test it.

`Findings` turns the predictions into figures.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from synthforge.data.input_report import InputReport
from synthforge.data.layout import Document
from synthforge.data.storage import Folder, require_writable_file
from synthforge.devices import one_worker_each, pick_device
from synthforge.errors import PlaceError
from synthforge.evaluation.holdout import check_holdout, find_leakage, notes_of_classes, open_holdout
from synthforge.evaluation.preparation.origins import draws_to_prepare
from synthforge.evaluation.preparation.prepare import Preparation, prepared_settings
from synthforge.evaluation.preparation.protocol import ArmSources
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.requirements import Requirement
from synthforge.evaluation.sets import SetReader, write_set
from synthforge.evaluation.settings import RealDraws
from synthforge.evaluation.sources import given_settings
from synthforge.evaluation.trainer.jobs import TrainingRunner
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
    inputs: list[InputReport]
    """The real images, synthetic sets that are given in place of a recipe, and the test set."""
    notes: list[str]
    started: float
    """Clock reading when preparation ended."""

    def all_notes(self, before: Sequence[str], after: Sequence[str]) -> list[str]:
        """All notes, each once."""
        return list(dict.fromkeys([*before, *self.notes, *after]))

    def shared(self, request: MeasurementRequest) -> dict[str, Any]:
        """The fields that the results of an evaluation and a diagnosis share."""
        device = pick_device(self.trainer.device)
        return {
            "inputs": self.inputs,
            "holdout": request.holdout,
            "holdout_images": len(self.findings.holdout),
            "trainer": self.trainer.model_dump(mode="json"),
            "trainings": len(self.findings.predictions),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type}, {os.cpu_count()} cores",
            "seconds": round(time.perf_counter() - self.started, 1),
            "file": request.out,
        }


def measure(request: MeasurementRequest, sources: ArmSources, reporter: Reporter, required: Sequence[Requirement] = ()) -> Measurement:
    """Prepare, tune, train and test; `sources` finds the images that arms take from.

    Raises RequestError or PlaceError before anything is made; RequestError also for an unusable test set, which is
    opened late. Raises WorkError for draws or trainings that fail.
    """
    config, cache, folder = request.config, cache_folder(request.curation), request.folder
    reading = request.curation.reading
    _require_places(request)

    # Real images
    reporter.note("reading the real images")
    reference = Reference.open(request.reference, cache, reporter, reading)
    classes = reference.classes
    base = filled_in(config.trainer, reference.image_size)
    assert base.resolution is not None
    draws = RealDraws.of(reference, config)
    units = draws_to_prepare(reference, request)
    draws.require_readable()
    check_holdout(request.holdout, classes, cache, reading)

    given: list[InputReport] = []
    tuning = Tuning.of(draws.all, base, config, folder, len(classes), reading.decoder)
    preparation = Preparation(request, sources) if request.recipe is not None else None
    work = EvaluationWork(folder, cache, reading, device=base.device, threads=base.threads, preparation=preparation)
    with Workers(work, config.workers or one_worker_each(base.device), reporter, deadline_seconds=TRAINING_DEADLINE) as workers:
        # Images that arms take from; workers without a draw to prepare tune meanwhile
        trainings = TrainingRunner(folder, workers)
        if preparation is not None:
            beside = [Beside(training) for training in trainings.left(tuning.trainings)]
            settings, notes = prepared_settings(units, preparation, draws, workers, beside=beside)
        else:
            settings, notes, given = given_settings(request, sources, draws, reporter)
        started = time.perf_counter()

        # Tuning
        tuned = tune(tuning, trainings)

        # The held-out test set, opened only now
        holdout = open_holdout(request.holdout, classes, cache, reporter, reading)
        leakage = find_leakage(holdout, draws.all, settings, SetReader(folder, cache, reading), base.resolution)
        holdout_set = write_set(folder, [leakage.holdout])

        # Arms
        planner = Planner(config, classes, tuned, platform_of(base), reading.decoder, holdout_set, is_copy=leakage.is_copy, folder=folder)
        plan = planner.plan(settings, draws.all)
        predictions = trainings.run(plan.trainings, "training arms")

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
    notes = [*reference.notes, *notes, *_notes_of_weights(base), *holdout.notes, *leakage.notes]
    notes += [*notes_of_classes(leakage.holdout, classes), *plan.notes]
    inputs = [reference.table.collections[0].report, *given, holdout.report]
    return Measurement(findings, tuned, base, leakage.copies_removed, inputs=inputs, notes=notes, started=started)


def _notes_of_weights(config: TrainerConfig) -> list[str]:
    """A note if the weights that classifiers start from may have seen the test set."""
    if config.start == "scratch":
        return []
    return [f"classifiers start from weights of {config.pretrained or config.network}, which may have been trained on test images"]


def write_result(request: MeasurementRequest, result: Document) -> None:
    """Write the result's file, whole or not at all."""
    place, _, file = request.out.rpartition("/")
    Folder(place).replace(file, result.to_bytes())


def _require_places(request: MeasurementRequest) -> None:
    """Raises PlaceError if the folder or the result can't be written."""
    try:
        request.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        how = "output.path" if request.recipe is not None else "--out"
        raise PlaceError(f"{request.folder}: can't be written ({error.strerror}); choose another place with {how}") from error
    require_writable_file(request.out)
