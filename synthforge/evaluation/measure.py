"""`evaluate`: train a classifier on every arm, test it on the holdout, and say what the synthetic images are worth.

The steps, top to bottom: the real-only arm is tuned on validation data; only then the holdout is opened; images that copy one of it are
removed from every arm; every arm is trained with the same steps, settings and seeds. What follows from it is `findings`.
Which settings there are (draws, pools, what curation chose) is prepared by the caller, without the holdout.
Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from synthforge.data.collection import open_collection
from synthforge.data.images import decode
from synthforge.data.pools import Table
from synthforge.errors import DatasetError, RequestError, some
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.leakage import HoldoutCopies
from synthforge.evaluation.results.findings import ArmTrainings, Findings, groups_of
from synthforge.evaluation.results.requirements import Requirement, holds
from synthforge.evaluation.results.types import EvaluateResult
from synthforge.evaluation.results.words import use_of, verdict_of
from synthforge.evaluation.sets import Images, SetReader, write_set
from synthforge.evaluation.trainer.jobs import Training, Trainings
from synthforge.evaluation.trainer.models import platform_of
from synthforge.evaluation.tuning import Tuned, Tuning, key_of, tune
from synthforge.progress import Reporter
from synthforge.recipe.evaluation import ALONE, REAL, ArmConfig, EvaluationConfig, MixingConfig

OVERLAP = 0.1
"""A real set that holds so much of the holdout is the holdout."""
_READ_AT_ONCE = 1024
_MOST_DRAWS = 1000
"""As many as an evaluation can have."""
FEW_HOLDOUT = 20
"""Holdout images of a class, below which its recall says little."""


class Evaluation:
    """One evaluation: its settings, and what becomes of them.

    Args:
        settings: prepared without the holdout, those of `own` origin first.
        tuning: of their draws, and of those of further amounts, on which only `real` is trained.
        folder: where sets and trainings lie.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        tuning: Tuning,
        holdout: str,
        classes: list[str],
        config: EvaluationConfig,
        folder: Path,
        cache: Path,
        reporter: Reporter,
        notes: Sequence[str] = (),
        required: Sequence[Requirement] = (),
    ) -> None:
        self.settings, self.classes, self.config = list(settings), classes, config
        base = tuning.base
        self.tuning, self.base, self.folder, self.reporter = tuning, base, folder, reporter
        self.holdout_address, self._cache = holdout, cache
        self.notes = list(notes)
        if base.start != "scratch":
            self.notes.append(
                f"classifiers start from weights of {base.pretrained or base.network}, which may have seen the holdout's images"
            )
        self.arms = {arm.name: arm for arm in config.arms}
        self.draws = tuning.draws
        self.platform = platform_of(base)
        self.tuned: dict[tuple[str, int], Tuned] = {}
        self.missing: dict[tuple[int, str], str] = {}
        self._started = time.perf_counter()
        self.num_trainings = 0
        self._required = required

    def run(self, trainer: Trainings) -> Findings:
        """All of it; raises RequestError for a holdout that can't be used, WorkError for trainings that fail."""
        self.tuned = tune(self.tuning, trainer)
        self._open_holdout()
        self._train(trainer)
        return Findings(
            self.settings,
            self.draws,
            self.arms,
            self.config,
            self.classes,
            self.holdout,
            self._by_arm,
            self._real_only,
            self._found,
            self.is_copy,
            self.missing,
            self._required,
        )

    # The holdout

    def _open_holdout(self) -> None:
        self.reporter.note(f"opening the holdout {self.holdout_address}")
        collection = open_collection(self.holdout_address, self._cache, reporter=self.reporter)
        self.notes += [f"{self.holdout_address}: {problem}" for problem in collection.problems]
        table = Table.of([collection])
        if num := sum(name is None for name in table.strings("class")):
            raise RequestError(f"{self.holdout_address}: {num} of {len(table)} images have no label; give them one, or remove them")
        self.holdout = Images.of(table, np.arange(len(table)), self.classes, is_real=True)
        named = {str(name) for name in table.strings("class")}
        if not named & set(self.classes):
            raise RequestError(
                f"{self.holdout_address}: none of its classes ({some(sorted(named))}) is one of the real images' "
                f"({some(self.classes)}); names must be the same"
            )
        if unknown := sorted(named - set(self.classes)):
            raise RequestError(
                f"{self.holdout_address}: class {unknown[0]!r} is not among the real images' ({some(self.classes, 12)}); leave it out, or "
                "add real images of it"
            )
        require_readable([self.holdout], self.folder, self._cache)
        self._find_copies()
        self.holdout_set = write_set(self.folder, [self.holdout])
        counts = self.holdout.per_class(len(self.classes))
        if without := [name for name, num in zip(self.classes, counts, strict=True) if num == 0]:
            self.notes.append(f"the holdout has no images of class {', '.join(without)}: nothing is known of them")
        if few := [name for name, num in zip(self.classes, counts, strict=True) if 0 < num < FEW_HOLDOUT]:
            self.notes.append(f"fewer than {FEW_HOLDOUT} holdout images of class {', '.join(few)}: their recall says little")

    def _find_copies(self) -> None:
        assert self.base.resolution is not None
        copies = HoldoutCopies(self.holdout, SetReader(self.folder, self._cache), self.base.resolution)
        by_name: dict[str, list[Images]] = {}
        for draw in self.draws:
            by_name.setdefault("real", []).extend([draw.fit, draw.rest, *([draw.validation] if draw.validation is not None else [])])
        for setting in self.settings:
            for key, images in setting.sources.items():
                by_name.setdefault(key.split(" by ")[0], []).append(images)
        copies.look([images for sources in by_name.values() for images in sources])
        self.is_copy = copies.is_copy
        left_out = {
            name: {sha256 for images in sources for sha256 in images.sha256_N if self.is_copy[sha256]} for name, sources in by_name.items()
        }
        self.copies_removed = {name: len(found - copies.unreadable.keys()) for name, found in left_out.items()}
        self.copies_removed = {name: num for name, num in self.copies_removed.items() if num}
        if copies.unreadable:
            first = next(iter(copies.unreadable.values()))
            self.notes.append(f"{len(copies.unreadable):,} images can't be read and were left out of every arm: {first}")
        real = {sha256 for images in by_name["real"] for sha256 in images.sha256_N}
        overlap = self.copies_removed.get("real", 0)
        if overlap > OVERLAP * len(self.holdout) or overlap > OVERLAP * len(real):
            raise RequestError(
                f"{self.holdout_address}: {overlap} of the real images are copies of its {len(self.holdout)} images; a holdout must hold "
                "images that are used for nothing else"
            )
        if overlap:
            # Generators, encoders and tuning have seen the real ones, so that every arm may know these, and not all equally well.
            copied = copies.copied_by([images for images in by_name["real"] if len(images)])
            self.notes.append(f"{int(copied.sum()):,} holdout images that real images copy were left out of the measurement")
            self.holdout = self.holdout.take(~copied)
        for name, num in self.copies_removed.items():
            self.notes.append(f"{num:,} images of {name} copy holdout images and were left out of every arm")

    # Trainings

    def _train(self, trainer: Trainings) -> None:
        self._leave_out_lacking()
        self._by_arm: dict[tuple[int, str], ArmTrainings] = {}
        for index, setting in enumerate(self.settings):
            for name, arm in self.arms.items():
                self._add(index, setting, name, arm)
        self._drop_incomplete()
        self._real_only = {key_of(draw): self._trainings_on([[draw.fit]] * self.config.seeds, draw, ALONE) for draw in self.draws}
        main = [training for arm in self._by_arm.values() for training in arm.by_seed]
        main += [training for ours in self._real_only.values() for training in ours]
        checks = [training for arm in self._by_arm.values() for training in arm.twice]
        results = trainer.run([*main, *checks], "training arms")
        self._found = dict(zip([training.digest for training in [*main, *checks]], results, strict=True))
        self.num_trainings = len(self._found)

    def _leave_out_lacking(self) -> None:
        """A source that lacks a class in one draw makes no arm in any draw, and so does not bound the size of others."""
        for group in groups_of(self.settings):
            of_group = [self.settings[index] for index in group]
            lacking = {key: name for setting in of_group for key, name in setting.lacking(self.classes, self.is_copy).items()}
            for name, arm in self.arms.items():
                for source in (source for source in arm.of if arm.key_of(source) in lacking):
                    reason = f"{source} has no image of class {lacking[arm.key_of(source)]}" + (" in some draw" if len(group) > 1 else "")
                    self.missing |= {(index, name): reason for index in group}
            for index in group:
                sources = {key: images for key, images in self.settings[index].sources.items() if key not in lacking}
                self.settings[index] = replace(self.settings[index], sources=sources)
            self._note_short([self.settings[index] for index in group])

    def _note_short(self, of_group: Sequence[Setting]) -> None:
        num = len(self.classes)
        short_GC = np.stack([setting.asked(num) - setting.wanted(num, self.is_copy) for setting in of_group])
        if (short_GC > 0).any():
            worst, label = (int(place) for place in np.unravel_index(int(np.argmax(short_GC)), short_GC.shape))
            asked = int(of_group[worst].asked(num)[label])
            whole = "" if REAL in of_group[0].sources else "; real only has all its own"
            self.notes.append(
                f"{of_group[0].where}: {asked:,} images of class {self.classes[label]!r} were wanted of each source, one has "
                f"{asked - int(short_GC[worst, label]):,}: every arm takes no more, so that arms are of one size{whole}"
            )

    def _add(self, index: int, setting: Setting, name: str, arm: ArmConfig) -> None:
        if (index, name) in self.missing:
            return
        by_seed = []
        for seed in range(self.config.seeds):
            parts = setting.parts(arm, seed, len(self.classes), self.is_copy)
            if isinstance(parts, str):
                self.missing[index, name] = parts
                return
            by_seed.append(parts)
        if emptied := [source for source, part in zip(arm.of, by_seed[0], strict=True) if not len(part)]:
            self.missing[index, name] = f"no images of {emptied[0]} are left"
            return
        counts = np.sum([part.per_class(len(self.classes)) for part in by_seed[0]], axis=0)
        if (counts == 0).any():
            without = self.classes[int(np.flatnonzero(counts == 0)[0])]
            self.missing[index, name] = f"no images of class {without}"
            return
        mixing = arm.mixing or self.config.mixing
        trainings = self._trainings_on(by_seed, setting.draw, mixing)
        twice = []
        if self.config.steps_check:
            longer = trainings[0].config.model_copy(update={"steps": 2 * self.base.steps})
            twice = [replace(trainings[0], config=longer)]
        num_images = float(np.mean([sum(len(part) for part in parts) for parts in by_seed]))
        self._by_arm[index, name] = ArmTrainings(trainings, twice, num_images)

    def _trainings_on(self, by_seed: Sequence[list[Images]], draw: RealDraw, mixing: MixingConfig) -> list[Training]:
        config = self.tuned[key_of(draw)].config
        found = []
        for seed, parts in enumerate(by_seed):
            kept = [part.take(np.array([not self.is_copy.get(sha, False) for sha in part.sha256_N], np.bool_)) for part in parts]
            has_both = len({part.is_real for part in kept}) == 2
            digest = write_set(self.folder, kept)
            policy = mixing if has_both else ALONE
            # Each draw has seeds of its own: where draws are of the same images, trainings still are not. More draws or seeds change none.
            own = seed * _MOST_DRAWS + draw.number
            found.append(Training(digest, self.holdout_set, config, policy, own, len(self.classes), self.platform))
        return found

    def _drop_incomplete(self) -> None:
        """An arm that lacks in one draw is left out in all draws of its setting."""
        for group in groups_of(self.settings):
            for name in self.arms:
                if any((index, name) not in self._by_arm for index in group):
                    for index in group:
                        self._by_arm.pop((index, name), None)

    def result(self, findings: Findings, file: str) -> EvaluateResult:
        """What follows from it, as it is written to a file."""
        curve = findings.curve
        compared = next((table for table in findings.tables if table.compares), None)
        return EvaluateResult(
            holdout=self.holdout_address,
            holdout_images=len(self.holdout),
            classes=self.classes,
            verdict=verdict_of(findings.tables, [(point.real_per_class, point.accuracy) for point in curve], self.arms),
            tables=findings.tables,
            curve=curve,
            tuned=[one.result for one in self.tuned.values()],
            trainer=self.base.model_dump(mode="json"),
            steps=self.base.steps,
            copies_removed=self.copies_removed,
            notes=self.all_notes([*findings.of_steps, *findings.of_curve], findings.of_intervals),
            trainings=self.num_trainings,
            device=self.device_name,
            seconds=self.seconds,
            file=file,
            requirements={one.text: holds(one, findings.tables) for one in self._required},
            use=use_of(compared, self.arms) if compared is not None else "not measured",
        )

    def all_notes(self, before: Sequence[str], after: Sequence[str]) -> list[str]:
        """What there is to say beside the figures, each once."""
        of_settings = [note for setting in self.settings for note in setting.notes]
        return list(dict.fromkeys([*before, *self.notes, *after, *of_settings]))

    @property
    def device_name(self) -> str:
        """What the classifiers were trained on."""
        return _device_name(self.base.device)

    @property
    def seconds(self) -> float:
        """Since draws were prepared."""
        return round(time.perf_counter() - self._started, 1)


def require_readable(sets: Sequence[Images], folder: Path, cache: Path) -> None:
    """Raises DatasetError for an image of some sets that can't be decoded."""
    reader, known = SetReader(folder, cache), set[str]()
    for images in sets:
        new = images.take(np.array([sha256 not in known for sha256 in images.sha256_N], np.bool_))
        known.update(new.sha256_N)
        for start in range(0, len(new), _READ_AT_ONCE):
            part = new.take(np.arange(start, min(start + _READ_AT_ONCE, len(new))))
            for row, data in zip(part.row_N, reader.files(part), strict=True):
                try:
                    decode(data)
                except DatasetError as error:
                    raise DatasetError(f"{images.address}, image {row}: {error}; remove or replace it") from error


def default_workers(config: EvaluationConfig, device: str) -> int:
    """Processes that work at a time: one for each GPU, or for each CPU core."""
    if config.workers is not None:
        return config.workers
    if device == "auto" and torch.cuda.is_available():
        return torch.cuda.device_count()
    return os.cpu_count() or 1 if device in {"auto", "cpu"} else 1


def _device_name(device: str) -> str:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.cuda.get_device_name() if device.startswith("cuda") else f"{device}, {os.cpu_count()} cores"
