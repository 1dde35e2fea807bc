"""Trainings as units of work for an executor. The predictions of a training are a small file named by its digest.

The digest is over everything that decides the result: both sets, trainer, mixing and seed. A training with a file is
not repeated, whichever evaluation it was done for, so an evaluation that was killed goes on where it was.
"""

from __future__ import annotations

import functools
import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthforge.config import identity_of
from synthforge.data.layout import digest_of
from synthforge.data.read_config import DECODER_VERSION, Reading
from synthforge.data.storage import replace_file
from synthforge.devices import cpu_threads
from synthforge.errors import SynthforgeError, WorkError
from synthforge.evaluation.sets import SetReader
from synthforge.evaluation.trainer.loader import decoded
from synthforge.evaluation.trainer.train import Predictions, predict, train
from synthforge.executors.running import Workers
from synthforge.recipe.evaluation import MixingConfig, TrainerConfig

VERSION = 3
"""To be raised when equal sets and settings give another training."""
TRIES = 2


@dataclass(frozen=True)
class Training:
    """One training and its test."""

    train_set: str
    """Digest of the training set."""
    test_set: str
    """Digest of the test set."""
    config: TrainerConfig
    mixing: MixingConfig
    seed: int
    num_classes: int
    decoder: int | str = DECODER_VERSION
    """See `Reading.decoder`."""
    platform: str = ""
    """Device and pretrained weights, on which the result depends too."""

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over everything that decides the result."""
        settings = [identity_of(config, lambda path, value: value) for config in (self.config, self.mixing)]
        return digest_of([VERSION, self.decoder, self.train_set, self.test_set, *settings, self.seed, self.num_classes, self.platform])

    @property
    def images(self) -> int:
        """Number of training images that it sees, repetitions included."""
        return self.config.steps * self.config.batch


def result_path(folder: Path, training: Training) -> Path:
    """The file for its predictions."""
    return folder / "trainings" / f"{training.digest[:32]}.npz"


def read_result(folder: Path, training: Training) -> Predictions | None:
    """Predictions of a training. None: it was not done, or its file is damaged."""
    try:
        with np.load(io.BytesIO(result_path(folder, training).read_bytes()), allow_pickle=False) as file:
            return Predictions(file["predicted"], file["confidence"], file["probability"])
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        return None


class ClassifierTrainer:
    """Trains and tests classifiers on one device."""

    def __init__(self, folder: Path, cache: Path, reading: Reading, device: torch.device, threads: int) -> None:
        self._folder, self._device, self._threads = folder, device, threads
        self._sets = SetReader(folder, cache, reading)
        self._test: tuple[tuple[str, int], np.ndarray, np.ndarray] | None = None

    def train(self, training: Training, advance: Callable[[int], None]) -> str | SynthforgeError:
        """Do a training and write its predictions; returns its digest, or the error."""
        done = 0

        def progress(images: int) -> None:
            nonlocal done
            advance(images - done)
            done = images

        try:
            with cpu_threads(self._threads):
                predictions = self._train(training, progress)
        except WorkError as error:
            advance(-done)
            return error
        columns = {name.removesuffix("_V"): values_V for name, values_V in vars(predictions).items()}
        replace_file(result_path(self._folder, training), lambda temporary: np.savez_compressed(temporary, **columns))
        progress(training.images)
        return training.digest

    def _train(self, training: Training, progress: Callable[[int], None]) -> Predictions:
        network = train(
            training.config,
            training.mixing,
            self._sets.read(training.train_set),
            num_classes=training.num_classes,
            seed=training.seed,
            device=self._device,
            on_progress=lambda at: progress(at.step * training.config.batch),
        )
        # Read only now: the test set is out of reach while the classifier is trained.
        images_VCHW, truth_V = self._test_images(training)
        return predict(network, images_VCHW, truth_V, self._device)

    def _test_images(self, training: Training) -> tuple[np.ndarray, np.ndarray]:
        assert training.config.resolution is not None
        key = (training.test_set, training.config.resolution)
        if self._test is None or self._test[0] != key:
            test = self._sets.read(training.test_set)
            self._test = key, decoded(test.gather(np.arange(len(test))), training.config.resolution, test.background), test.label_N
        return self._test[1], self._test[2]


class TrainingRunner:
    """Has workers do the trainings that were not done yet."""

    def __init__(self, folder: Path, workers: Workers[Any, Any]) -> None:
        self._folder, self._workers = folder, workers

    def left(self, trainings: Sequence[Training]) -> list[Training]:
        """Those that were not done yet, each once."""
        different = {training.digest: training for training in trainings}
        return [training for training in different.values() if read_result(self._folder, training) is None]

    def run(self, trainings: Sequence[Training], task: str) -> list[Predictions]:
        """Predictions of each training, done now if they are missing; raises WorkError for trainings that fail."""
        different = {training.digest: training for training in trainings}
        todo = sorted(self.left(trainings), key=lambda training: -training.images)  # the longest first, so workers end together
        if todo:
            _, failed = self._workers.run(
                todo,
                task=f"{task}: {len(todo)} training runs",
                size=lambda training: training.images,
                name=lambda training: f"seed {training.seed}",
                done=sum(training.images for training in different.values()) - sum(training.images for training in todo),
                tries=TRIES,
            )
            if failed:
                raise WorkError(
                    f"{len(failed)} of {len(todo)} training runs failed; the first: {failed[0].reason}; run again to go on with the others"
                )
        by_digest = {digest: read_result(self._folder, training) for digest, training in different.items()}
        results = [result for training in trainings if (result := by_digest[training.digest]) is not None]
        if len(results) < len(trainings):
            raise WorkError(f"{self._folder / 'trainings'}: results vanished while they were read; run again")
        return results
