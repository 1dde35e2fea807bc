"""`evaluate`: train a classifier on every arm, test it on the holdout, and say what the synthetic images are worth.

The steps, top to bottom: the real-only arm is tuned on validation data; only then the holdout is opened; images that copy one of it are
removed from every arm; every arm is trained with the same steps, settings and seeds; figures, comparisons, exchange rates, verdict.
Which settings there are (draws, pools, what curation chose) is prepared by the caller, without the holdout.
Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthforge.curation.pools import Table
from synthforge.errors import DatasetError, RequestError
from synthforge.evaluation.config import REAL, ArmConfig, EvaluationConfig, MixingConfig, TrainerConfig
from synthforge.evaluation.copies import HoldoutCopies
from synthforge.evaluation.models import platform_of
from synthforge.evaluation.scores import ArmScore, Comparison, Measured, Outcomes, Worth, arm_score, compared, pairs, worth
from synthforge.evaluation.sets import Images, SetReader, write_set
from synthforge.evaluation.settings import Origin, RealDraw, Setting
from synthforge.evaluation.trainings import Training, TrainWork, run_trainings
from synthforge.evaluation.tuning import Tuned, key_of, tune
from synthforge.evaluation.verdict import sentence_of, verdict_of
from synthforge.images import decode
from synthforge.progress import Reporter
from synthforge.shards.collection import open_collection
from synthforge.statistics import estimate, of_two_trainings

OVERLAP = 0.1
"""A real set that holds so much of the holdout is the holdout."""
_READ_AT_ONCE = 1024
_MOST_DRAWS = 1000
"""As many as an evaluation can have."""
FEW_HOLDOUT = 20
"""Holdout images of a class, below which its recall says little."""


@dataclass(frozen=True)
class SettingResult:
    """One row of a table: an amount of real data with so many synthetic images for each."""

    amount: str
    real_per_class: float
    synthetic_per_real: float
    budget: int
    """Every real image that anything behind the arms has seen, generators from elsewhere aside."""
    arms: dict[str, ArmScore]
    comparisons: list[Comparison]
    worth: dict[str, Worth]
    steps_check: dict[str, Measured]
    """Accuracy after twice the steps less that after the steps of the evaluation, by arm; of one seed in each draw."""
    steps_check_mean: Measured | None
    """The same over all arms."""
    sentence: str
    missing: dict[str, str]
    """Arms that could not be made, and why."""


@dataclass(frozen=True)
class TableResult:
    """Settings whose pools are of one origin."""

    origin: Origin
    generator: str
    settings: list[SettingResult]


@dataclass(frozen=True)
class CurvePoint:
    """Real only, with so many images of each class."""

    amount: str
    real_per_class: float
    accuracy: Measured


@dataclass(frozen=True)
class EvaluateResult:
    """What `evaluate` found; evaluation.json."""

    holdout: str
    holdout_images: int
    classes: list[str]
    verdict: str
    """In words."""
    tables: list[TableResult]
    """First the one whose generators have seen nothing but the real images of each setting, if there is one."""
    curve: list[CurvePoint]
    """The real learning curve."""
    tuned: list[dict[str, Any]]
    """What the search on validation data chose for each draw."""
    trainer: dict[str, Any]
    steps: int
    copies_removed: dict[str, int]
    """Images left out because they copy a holdout image, by source."""
    notes: list[str]
    trainings: int
    device: str
    seconds: float
    file: str | None = None
    requirements: dict[str, bool] = field(default_factory=dict)
    """What --require asked for, and whether it holds."""


class Evaluation:
    """One evaluation: its settings, and what becomes of them.

    Args:
        settings: prepared without the holdout, those of `own` origin first.
        curve: draws of further amounts, on which only `real` is trained.
        folder: where sets and trainings lie.
        base: the trainer, with its resolution filled in.
    """

    def __init__(
        self,
        settings: Sequence[Setting],
        curve: Sequence[RealDraw],
        holdout: str,
        classes: list[str],
        config: EvaluationConfig,
        base: TrainerConfig,
        folder: Path,
        cache: Path,
        reporter: Reporter,
        notes: Sequence[str] = (),
    ) -> None:
        self.settings, self.classes, self.config, self.base, self.folder, self.reporter = settings, classes, config, base, folder, reporter
        self.holdout_address, self._cache = holdout, cache
        self.notes = list(notes)
        self.arms = {arm.name: arm for arm in config.arms}
        drawn = {(str(draw.amount), draw.number): draw for draw in [*(setting.draw for setting in settings), *curve]}
        self.draws = sorted(drawn.values(), key=lambda draw: (draw.per_class, draw.number))
        self.work = TrainWork(folder, cache, base.device, base.threads)
        self.workers = default_workers(config, base.device)
        self.platform = platform_of(base)
        self.tuned: dict[tuple[str, int], Tuned] = {}
        self.missing: dict[str, str] = {}
        self._started = time.perf_counter()
        self._num_trainings = 0
        self._also: list[tuple[str, str]] = []

    def also_compare(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Compare these arms as well, the one with the other."""
        self._also = [pair for pair in wanted if all(name in self.arms for name in pair)]

    def run(self) -> EvaluateResult:
        """All of it; raises RequestError for a holdout that can't be used, WorkError for trainings that fail."""
        self._require_readable([images for draw in self.draws for images in (draw.fit, draw.validation) if images is not None])
        self.tuned = tune(self.draws, self.base, self.config, self.work, len(self.classes), self.workers, self.reporter)
        self._open_holdout()
        self._train()
        return self._result()

    def _require_readable(self, sets: Sequence[Images]) -> None:
        reader, known = SetReader(self.folder, self._cache), set[str]()
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
                f"{self.holdout_address}: none of its classes ({', '.join(sorted(named)[:5])}) is one of the real images' "
                f"({', '.join(self.classes[:5])}); names must be the same"
            )
        if unknown := sorted(named - set(self.classes)):
            raise RequestError(
                f"{self.holdout_address}: class {unknown[0]!r} is not among the real images' ({', '.join(self.classes[:8])})"
            )
        self._require_readable([self.holdout])
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

    def _train(self) -> None:
        self._by_arm: dict[tuple[int, str], tuple[list[Training], list[Training], float]] = {}
        for index, setting in enumerate(self.settings):
            for name, arm in self.arms.items():
                self._add(index, setting, name, arm)
        self._drop_incomplete()
        self._real_only = {key_of(draw): self._trainings_on([[draw.fit]] * self.config.seeds, draw, MixingConfig()) for draw in self.draws}
        main = [training for ours, _, _ in self._by_arm.values() for training in ours]
        main += [training for ours in self._real_only.values() for training in ours]
        checks = [training for _, ours, _ in self._by_arm.values() for training in ours]
        results = run_trainings([*main, *checks], self.work, self.workers, "training arms", self.reporter)
        self._found = dict(zip([training.digest for training in [*main, *checks]], results, strict=True))
        self._num_trainings = len(self._found)

    def _add(self, index: int, setting: Setting, name: str, arm: ArmConfig) -> None:
        by_seed = []
        for seed in range(self.config.seeds):
            parts = setting.parts(arm, seed, len(self.classes), self.is_copy)
            if isinstance(parts, str):
                self.missing[f"{index} {name}"] = parts
                return
            by_seed.append(parts)
        if emptied := [source for source, part in zip(arm.of, by_seed[0], strict=True) if not len(part)]:
            self.missing[f"{index} {name}"] = f"no images of {emptied[0]} are left"
            return
        counts = np.sum([part.per_class(len(self.classes)) for part in by_seed[0]], axis=0)
        if (counts == 0).any():
            without = self.classes[int(np.flatnonzero(counts == 0)[0])]
            self.missing[f"{index} {name}"] = f"no images of class {without}"
            return
        mixing = arm.mixing or self.config.mixing
        trainings = self._trainings_on(by_seed, setting.draw, mixing)
        twice = []
        if self.config.steps_check:
            longer = trainings[0].config.model_copy(update={"steps": 2 * self.base.steps})
            twice = [replace(trainings[0], config=longer)]
        num_images = float(np.mean([sum(len(part) for part in parts) for parts in by_seed]))
        self._by_arm[index, name] = trainings, twice, num_images

    def _trainings_on(self, by_seed: Sequence[list[Images]], draw: RealDraw, mixing: MixingConfig) -> list[Training]:
        config = self.tuned[key_of(draw)].config
        found = []
        for seed, parts in enumerate(by_seed):
            kept = [part.take(np.array([not self.is_copy.get(sha, False) for sha in part.sha256_N], np.bool_)) for part in parts]
            has_both = len({part.is_real for part in kept}) == 2
            digest = write_set(self.folder, kept)
            policy = mixing if has_both else MixingConfig()
            # Each draw has seeds of its own: where draws are of the same images, trainings still are not. More draws or seeds change none.
            own = seed * _MOST_DRAWS + draw.number
            found.append(Training(digest, self.holdout_set, config, policy, own, len(self.classes), self.platform))
        return found

    def _drop_incomplete(self) -> None:
        """An arm that lacks in one draw is left out in all draws of its setting."""
        for key in list(self._by_arm):
            group = self._group(self.settings[key[0]])
            if any((index, key[1]) not in self._by_arm for index in group):
                del self._by_arm[key]

    def _group(self, setting: Setting) -> list[int]:
        """All draws of a setting."""
        return [
            index
            for index, other in enumerate(self.settings)
            if (other.origin, other.draw.amount, other.ratio) == (setting.origin, setting.draw.amount, setting.ratio)
        ]

    # Figures

    def _outcomes(self, trainings: Sequence[Sequence[Training]]) -> Outcomes:
        return Outcomes.of([[self._found[one.digest] for one in by_seed] for by_seed in trainings], self.holdout.label_N)

    def _result(self) -> EvaluateResult:
        curve = self._curve()
        groups = list(dict.fromkeys(tuple(self._group(setting)) for setting in self.settings))
        tables = [
            self._table(origin, [group for group in groups if self.settings[group[0]].origin == origin], curve) for origin in _ORIGINS
        ]
        tables = [table for table in tables if table.settings]
        return EvaluateResult(
            holdout=self.holdout_address,
            holdout_images=len(self.holdout),
            classes=self.classes,
            verdict=verdict_of(tables, [(point.real_per_class, point.accuracy) for point in self._points(curve)], self.arms),
            tables=tables,
            curve=self._points(curve),
            tuned=[{name: value for name, value in asdict(one).items() if name != "config"} for one in self.tuned.values()],
            trainer=self.base.model_dump(mode="json"),
            steps=self.base.steps,
            copies_removed=self.copies_removed,
            notes=list(
                dict.fromkeys(
                    [
                        *self.notes,
                        *self._of_draws(groups),
                        *self._of_steps(tables),
                        *(note for setting in self.settings for note in setting.notes),
                    ]
                )
            ),
            trainings=self._num_trainings,
            device=_device_name(self.base.device),
            seconds=round(time.perf_counter() - self._started, 1),
        )

    def _of_draws(self, groups: Sequence[tuple[int, ...]]) -> list[str]:
        """What intervals do not cover, for the notes."""
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
        for group in groups:
            of_draw = [self.settings[index] for index in group]
            where = f"{of_draw[0].draw.per_class:g} real per class" + (", from elsewhere" if of_draw[0].origin == "elsewhere" else "")
            pools = [[setting.sources[name].sha256_N for setting in of_draw] for name in of_draw[0].sources if " by " not in name]
            if any(np.array_equal(pool, others[0]) for others in pools for pool in others[1:]):
                notes.append(f"{where}: all draws share one pool, so intervals do not cover other fits or pools")
            elif pools and self.config.fit is None:
                notes.append(f"{where}: one generator made the pools of all draws, so intervals do not cover other fits")
        return notes

    def _of_steps(self, tables: Sequence[TableResult]) -> list[str]:
        """Whether the steps were enough, for the notes."""
        margin, notes = self.config.margin, []
        for table in tables:
            for setting in table.settings:
                moved = [name for name, one in setting.steps_check.items() if one.low > margin or one.high < -margin]
                mean, where = setting.steps_check_mean, f"{setting.real_per_class:g} real per class"
                if mean is None:
                    continue
                told = f"twice the steps change accuracy by {100 * mean.value:+.1f} [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}] points"
                if moved or mean.low > margin or mean.high < -margin:
                    most = f", most of all {', '.join(moved)}" if moved else ""
                    notes.append(f"{where}: {told} over all arms{most}; raise trainer.steps before believing differences")
                elif max(mean.high, -mean.low) > margin:
                    notes.append(f"{where}: {told} over all arms; that it is less than {100 * margin:g} points is not shown")
        return notes

    def _curve(self) -> list[tuple[str, float, Outcomes]]:
        """Real only for each amount, in order."""
        found = []
        for amount in dict.fromkeys(str(draw.amount) for draw in self.draws):
            draws = [draw for draw in self.draws if str(draw.amount) == amount]
            outcomes = self._outcomes([self._real_only[key_of(draw)] for draw in draws])
            found.append((amount, float(np.mean([draw.per_class for draw in draws])), outcomes))
        return sorted(found, key=lambda point: point[1])

    def _points(self, curve: Sequence[tuple[str, float, Outcomes]]) -> list[CurvePoint]:
        return [CurvePoint(amount, round(size, 2), Measured.share(estimate(outcomes.correct_DSV))) for amount, size, outcomes in curve]

    def _table(self, origin: Origin, groups: Sequence[tuple[int, ...]], curve: Sequence[tuple[str, float, Outcomes]]) -> TableResult:
        outcomes = [self._arms_of(group) for group in groups]
        differences = [
            (arm, against, found[arm].correct_DSV - found[against].correct_DSV) for found in outcomes for arm, against in self._pairs(found)
        ]
        comparisons = compared(differences, self.holdout.label_N, self.classes, self.config.margin)
        settings = []
        for group, found in zip(groups, outcomes, strict=True):
            num = len(self._pairs(found))
            own, comparisons = comparisons[:num], comparisons[num:]
            settings.append(self._setting(group, found, own, curve))
        generators = list(dict.fromkeys(self.settings[group[0]].generator for group in groups))
        return TableResult(origin, "; ".join(filter(None, generators)), settings)

    def _pairs(self, found: Mapping[str, Outcomes]) -> list[tuple[str, str]]:
        usual = pairs({name: self.arms[name] for name in found}, self.config.mixing)
        return list(dict.fromkeys([*usual, *(pair for pair in self._also if found.keys() >= set(pair))]))

    def _arms_of(self, group: Sequence[int]) -> dict[str, Outcomes]:
        names = [name for name in self.arms if (group[0], name) in self._by_arm]
        return {name: self._outcomes([self._by_arm[index, name][0] for index in group]) for name in names}

    def _setting(
        self,
        group: Sequence[int],
        found: dict[str, Outcomes],
        comparisons: list[Comparison],
        curve: Sequence[tuple[str, float, Outcomes]],
    ) -> SettingResult:
        first = self.settings[group[0]]
        arms = {
            name: arm_score(
                name,
                outcomes,
                float(np.mean([self._by_arm[index, name][2] for index in group])),
                self.holdout.label_N,
                self.classes,
            )
            for name, outcomes in found.items()
        }
        worths = self._worth(first, found, curve)
        checks, checked = self._steps_checks(group, found)
        missing = {
            name: next(self.missing[f"{index} {name}"] for index in group if f"{index} {name}" in self.missing)
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
            sentence=sentence_of(per_class, first.draw.budget, first.ratio, arms, comparisons, worths),
            missing=missing,
        )

    def _steps_checks(self, group: Sequence[int], found: Mapping[str, Outcomes]) -> tuple[dict[str, Measured], Measured | None]:
        """What twice the steps change, by arm and over all arms."""
        moved = {
            name: self._outcomes([self._by_arm[index, name][1] for index in group]).correct_DSV - one.correct_DSV[:, :1]
            for name, one in found.items()
            if self._by_arm[group[0], name][1]
        }
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

    def _worth(self, setting: Setting, found: dict[str, Outcomes], curve: Sequence[tuple[str, float, Outcomes]]) -> dict[str, Worth]:
        if len(curve) < 2:
            return {}
        num_real, num_others = setting.draw.per_class, float(setting.wanted(len(self.classes), self.is_copy).mean())
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
                without, more_real = by_parts.get(("random",)), by_parts.get((REAL,)) if setting.ratio == 1 else by_parts.get(("more",))
                if parts != ("curated",):
                    without = more_real = None
            if name in {without, more_real}:
                without = more_real = None
            worths[name] = worth(
                name,
                outcomes,
                [(size, one) for _, size, one in curve],
                num_real=num_real if has_real else 0.0,
                num_others=num_others * (len(parts) - has_real),
                without=found[without] if without is not None else None,
                more_real=found[more_real] if more_real is not None else None,
            )
        return worths


_ORIGINS: tuple[Origin, ...] = ("own", "elsewhere")


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
