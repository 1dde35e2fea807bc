"""What takes long in an evaluation, as work of one kind: draws to prepare and trainings, done by workers that stay for both."""

from __future__ import annotations

import gc
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch

from synthforge.errors import SynthforgeError
from synthforge.evaluation.prepare import Prepared, PrepareStream, PrepareWork, Unit
from synthforge.evaluation.trainer.jobs import Training, TrainWork
from synthforge.executors.protocol import Place


@dataclass(frozen=True)
class Beside:
    """A training of which progress is not counted, since it is done while draws are prepared and a worker has none left."""

    training: Training


Job: TypeAlias = Unit | Training | Beside


@dataclass(frozen=True)
class EvaluationWork:
    """Prepare draws and train on them; picklable.

    Args:
        preparing: None where there is nothing to prepare.
    """

    training: TrainWork
    preparing: PrepareWork | None

    def open(self, place: Place) -> EvaluationStream:
        """Take a device."""
        return EvaluationStream(self, place)


class EvaluationStream:
    """Implements `executors.protocol.Stream`; a receipt is what was prepared, or the training's digest."""

    def __init__(self, work: EvaluationWork, place: Place) -> None:
        self._work, self._place = work, place
        self._training = work.training.open(place)
        self._preparing: PrepareStream | None = None
        self._prepared_last = False

    def describe(self) -> str:
        """The device."""
        return self._training.describe()

    def run(
        self, units: Iterator[Job], advance: Callable[[int], None]
    ) -> Generator[tuple[Job, Prepared | str | SynthforgeError], None, None]:
        """Do one after another."""
        for job in units:
            self._change_to(type(job) is Unit)
            if isinstance(job, Unit):
                yield from self._prepares().run(iter([job]), advance)
            elif isinstance(job, Beside):
                for _, found in self._training.run(iter([job.training]), lambda num: advance(0)):
                    yield job, found
            else:
                yield from self._training.run(iter([job]), advance)

    def _change_to(self, prepares: bool) -> None:
        """On a GPU draws leave nothing behind for trainings and these nothing for draws: memory, and networks that were compiled."""
        if prepares != self._prepared_last and torch.cuda.is_initialized():
            gc.collect()
            torch.cuda.empty_cache()
            torch.compiler.reset()  # compiled networks share a limit, above which steps are slow, or sampling fails
        self._prepared_last = prepares

    def _prepares(self) -> PrepareStream:
        if self._preparing is None:
            assert self._work.preparing is not None
            self._preparing = self._work.preparing.open(self._place)
        return self._preparing

    def close(self) -> None:
        """Nothing is open."""
