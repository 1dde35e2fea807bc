"""The long work of an evaluation: draws to prepare, and trainings. The same workers do both."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import torch

from synthforge.data.read_config import Reading
from synthforge.devices import own_gpu, pick_device
from synthforge.errors import SynthforgeError
from synthforge.evaluation.preparation.origins import DrawToPrepare
from synthforge.evaluation.preparation.prepare import Preparation, Preparer
from synthforge.evaluation.preparation.protocol import PreparedDraw
from synthforge.evaluation.trainer.jobs import ClassifierTrainer, Training
from synthforge.executors.protocol import Place


@dataclass(frozen=True)
class Beside:
    """A training for a worker that has no draw left to prepare. It does not count as progress."""

    training: Training


Job: TypeAlias = DrawToPrepare | Training | Beside


@dataclass(frozen=True)
class EvaluationWork:
    """Prepare draws and train on them; picklable.

    Args:
        folder: for sets and predictions.
        device, threads: for trainings.
        preparation: None: there is nothing to prepare.
    """

    folder: Path
    cache: Path
    reading: Reading
    device: str
    threads: int
    preparation: Preparation | None

    def open(self, place: Place) -> EvaluationStream:
        """Take a worker's device."""
        return EvaluationStream(self, place)


class EvaluationStream:
    """Implements `executors.protocol.Stream`. Receipts are prepared draws and digests of trainings."""

    def __init__(self, work: EvaluationWork, place: Place) -> None:
        self._work, self._place = work, place
        self._device = pick_device(own_gpu(place.worker, place.workers, work.device), "evaluation.trainer.device")
        self._trainer = ClassifierTrainer(work.folder, work.cache, work.reading, self._device, work.threads)
        self._prepared_last = False

    def describe(self) -> str:
        """The device's name."""
        return torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type

    def run(
        self, units: Iterator[Job], advance: Callable[[int], None]
    ) -> Generator[tuple[Job, PreparedDraw | str | SynthforgeError], None, None]:
        """Do the jobs one after another."""
        for job in units:
            self._change_to(type(job) is DrawToPrepare)
            if isinstance(job, DrawToPrepare):
                prepared = self._preparer.prepare(job)
                advance(int(not isinstance(prepared, SynthforgeError)))
                yield job, prepared
            elif isinstance(job, Beside):
                yield job, self._trainer.train(job.training, lambda num: advance(0))
            else:
                yield job, self._trainer.train(job, advance)

    def _change_to(self, prepares: bool) -> None:
        """Free GPU memory and compiled networks between preparing and training."""
        if prepares != self._prepared_last and torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()
            torch.compiler.reset()  # compiled networks share a limit; above it steps are slow, or sampling fails
        self._prepared_last = prepares

    @functools.cached_property
    def _preparer(self) -> Preparer:
        assert self._work.preparation is not None
        return Preparer(self._work.preparation.on(own_gpu(self._place.worker, self._place.workers, "auto")))

    def close(self) -> None:
        """Nothing is open."""
