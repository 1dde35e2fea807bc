"""Prepare draws before the held-out test set is opened: generators, pools and the images that arms take from.

Each draw of real images gets a generator that has seen only its images: one that is there, or one that is fitted now.
The generator makes a pool, and an encoder that has seen no other images chooses from it. These have the origin `own`.
The recipe's own pool is prepared apart (origin `elsewhere`) where its generator saw other real images, or does not
say. Folders are named by what they depend on, so an evaluation that was killed goes on where it was.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synthforge.config import identity_of
from synthforge.curation.sides import VERSION as SIDES_VERSION
from synthforge.data.collection import Collection
from synthforge.data.layout import COMPLETE, canonical_json, digest_of
from synthforge.data.opening import open_collection
from synthforge.data.storage import content_of, replace_file
from synthforge.devices import cpu_threads
from synthforge.errors import DatasetError, RequestError, SynthforgeError, WorkError
from synthforge.evaluation.preparation.choice import rules_of
from synthforge.evaluation.preparation.origins import DrawToPrepare
from synthforge.evaluation.preparation.pool import VERSION, DrawPool
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import HoldoutRequest
from synthforge.evaluation.sets import SetReader, path_of
from synthforge.evaluation.settings import RealDraws, Setting
from synthforge.evaluation.sources import ArmSources, PreparedDraw
from synthforge.executors.running import Workers
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import MORE
from synthforge.recipe.recipe import ExecutionConfig

_OnDevice = TypeVar("_OnDevice", ExecutionConfig, PixelFitConfig, CurationConfig)
_DEADLINE = 24 * 3600.0
"""Seconds without progress until a worker counts as hung. Fitting and generating report nothing to the executor
meanwhile."""


@dataclass(frozen=True)
class PrepareWork:
    """Fit, generate and choose for draws; picklable."""

    request: HoldoutRequest
    """With a recipe."""
    sources: ArmSources

    @functools.cached_property
    def choosing(self) -> Any:
        """All that curation's choices depend on, models by their content. The metric encoder does not choose."""
        curation = self.request.curation.model_copy(update={"metric_encoder": None})
        return identity_of(curation, lambda path, value: content_of(value))

    def on(self, device: str) -> PrepareWork:
        """The same work on one device, wherever the request leaves the device open."""
        recipe, config = self.request.recipe, self.request.config
        assert recipe is not None
        request = replace(
            self.request,
            recipe=recipe.model_copy(update={"execution": _on(recipe.execution, device)}),
            config=config.model_copy(update={"fit": config.fit and _on(config.fit, device)}),
            curation=_on(self.request.curation, device),
        )
        return replace(self, request=request)


class Preparer:
    """Prepares draws in one process, with the real images open."""

    def __init__(self, work: PrepareWork) -> None:
        self._work = work
        self._reference = Reference.open(work.request.reference, cache_folder(work.request.curation), Reporter())

    def prepare(self, unit: DrawToPrepare) -> PreparedDraw | SynthforgeError:
        """Prepare a draw; returns errors. Raises RequestError, a mistake that other draws would meet hours later."""
        try:
            with cpu_threads(self._work.request.config.trainer.threads):  # the same images for any number of workers
                return _Preparation.of(unit, self._work, self._reference).run()
        except RequestError:
            raise
        except SynthforgeError as error:
            return error


@dataclass(frozen=True)
class _Preparation:
    """One draw with pools of one origin."""

    work: PrepareWork
    made: DrawPool

    @classmethod
    def of(cls, unit: DrawToPrepare, work: PrepareWork, reference: Reference) -> _Preparation:
        draw = reference.draws(unit.amount, work.request.config)[unit.draw]
        return cls(work, DrawPool(reference, draw, unit.origin, work.request))

    def left(self) -> PreparedDraw | None:
        """The result of an earlier run. None: not all of it is there and whole."""
        if (recipe := self.made.left()) is None:
            return None
        try:
            return self._read(self._path(open_collection(recipe.pool_path, cache_folder(self.work.request.curation))))
        except DatasetError:
            return None

    def run(self) -> PreparedDraw:
        """Make all that is not there yet: generator, pool, and the images that arms take from."""
        recipe, generator = self.made.make()
        pool = open_collection(recipe.pool_path, cache_folder(self.work.request.curation))
        path = self._path(pool)
        if (left := self._read(path)) is not None:
            return left
        prepared = self.work.sources.prepare(self.made, pool, recipe, generator)
        pool_notes = [f"{self.made.draw.name}: {problem}" for problem in pool.problems]
        prepared = replace(prepared, notes=[*pool_notes, *prepared.notes])
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda temporary: temporary.write_bytes(canonical_json(prepared.__dict__)))
        return prepared

    def _path(self, pool: Collection) -> Path:
        """The file for what is prepared from a pool."""
        rules, reference = [astuple(rule) for rule in rules_of(self.made.config)], self.made.reference
        depends = [VERSION, SIDES_VERSION, self.made.origin, rules, self.made.config.synthetic_per_real, self.work.choosing]
        depends += [[pool.digest, reference.table.collections[0].digest], [pool.address, reference.address]]  # sets say where images lie
        depends += self.work.sources.identity(self.made)
        return self.made.folder / f"{digest_of(depends)[:12]}-prepared.json"

    def _read(self, path: Path) -> PreparedDraw | None:
        try:
            prepared = PreparedDraw(**json.loads(path.read_bytes()))
            for digest in {digest for by_ratio in prepared.sources for digest in by_ratio.values()}:
                pq.read_metadata(path_of(self.work.request.folder, digest))
        except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException):
            return None
        return prepared if prepared.rendered is None or (Path(prepared.rendered) / COMPLETE).exists() else None


def prepared_settings(
    units: Sequence[DrawToPrepare], work: PrepareWork, draws: RealDraws, workers: Workers[Any, Any], *, beside: Sequence[Any]
) -> list[Setting]:
    """Settings of a recipe, those of `own` origin first; raises WorkError naming what could not be prepared.

    Args:
        beside: units for workers that have no draw left.
    """
    config = work.request.config
    if not units:  # no arm takes synthetic images
        has_more = any(MORE in arm.of for arm in config.arms)
        return draws.settings(config.synthetic_per_real if has_more else config.synthetic_per_real[:1], "own", {})
    prepared = _prepared(units, work, draws.reference, workers, beside)
    reader = SetReader(work.request.folder, cache_folder(work.request.curation))
    elsewhere = {unit.amount for unit in prepared if unit.origin == "elsewhere"}
    # If curation's encoder saw other images, an `own` draw counts as elsewhere; there may be one of these already.
    moved = {unit.amount for unit, made in prepared.items() if unit.origin == "own" and made.origin == "elsewhere"}
    settings = []
    for unit, made in prepared.items():
        if unit.origin == "own" and unit.amount in moved & elsewhere:
            continue
        draw = draws.by_amount[unit.amount][unit.draw]
        for ratio, digests in zip(config.synthetic_per_real, made.sources, strict=True):
            images = work.sources.read(digests, reader)
            settings.append(Setting(draw, ratio, made.origin, images, made.generator, notes=made.notes, facts=made.facts))
    return sorted(settings, key=lambda setting: (setting.origin != "own", setting.draw.per_class, setting.ratio, setting.draw.number))


def _prepared(
    units: Sequence[DrawToPrepare], work: PrepareWork, reference: Reference, workers: Workers[Any, Any], beside: Sequence[Any]
) -> dict[DrawToPrepare, PreparedDraw]:
    """Prepare what is not there yet."""
    prepared = {unit: left for unit in units if (left := _Preparation.of(unit, work, reference).left()) is not None}
    if len(prepared) == len(units):
        return prepared
    finished, missed = workers.run(
        [unit for unit in units if unit not in prepared],
        done=len(prepared),
        task="preparing draws: generators, pools, curation",
        what="draws",
        size=lambda unit: int(isinstance(unit, DrawToPrepare)),
        name=lambda unit: unit.name if isinstance(unit, DrawToPrepare) else "a training of the tuning, to be repeated",
        beside=beside,
        deadline_seconds=_DEADLINE,
    )
    if failed := [failure for failure in missed if isinstance(failure.unit, DrawToPrepare)]:
        unit, reason = failed[0].unit, failed[0].reason
        raise WorkError(f"{len(failed)} of {len(units)} draws could not be prepared; the first, {unit.amount} real images: {reason}")
    prepared |= {outcome.unit: outcome.receipt for outcome in finished if isinstance(outcome.unit, DrawToPrepare)}
    return {unit: prepared[unit] for unit in units}


def _on(config: _OnDevice, device: str) -> _OnDevice:
    return config.model_copy(update={"device": device}) if config.device == "auto" else config
