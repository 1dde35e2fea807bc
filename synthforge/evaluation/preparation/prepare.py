"""Prepare draws before the held-out test set is opened: generators, pools and the images that arms take from.

Where a draw has a generator that has seen only its images (one that is there, or one that is fitted now), this makes a
pool, and an encoder that has seen no other images chooses from it. These have the origin `own`. The recipe's own pool
has the origin `elsewhere` if its generator saw other real images, or does not say. It is used for draws without a
generator of their own, and on request beside it.

Folders are named by what they depend on, so an evaluation that was killed continues where it stopped.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synthforge.config import identity_of
from synthforge.curation.sides import VERSION as SIDES_VERSION
from synthforge.data.collection import Collection
from synthforge.data.image_table import Table
from synthforge.data.layout import COMPLETE, canonical_json, digest_of
from synthforge.data.opening import open_collection
from synthforge.data.storage import content_of, replace_file
from synthforge.devices import cpu_threads
from synthforge.errors import DatasetError, RequestError, SynthforgeError, WorkError
from synthforge.evaluation.preparation.curated import rules_of
from synthforge.evaluation.preparation.origins import DrawToPrepare
from synthforge.evaluation.preparation.pool import VERSION, DrawPool
from synthforge.evaluation.preparation.protocol import ArmSources, Pool, PreparedDraw
from synthforge.evaluation.reference import RealDraw, Reference
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.sets import Images, SetReader, path_of
from synthforge.evaluation.settings import RealDraws, Setting
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
class Preparation:
    """Fit, generate and choose for draws; picklable."""

    request: MeasurementRequest
    """Its `recipe` is never None."""
    sources: ArmSources

    @functools.cached_property
    def choosing(self) -> Any:
        """All that curation's choices depend on, models by their content. The metric encoder does not choose."""
        curation = self.request.curation.model_copy(update={"metric_encoder": None})
        return identity_of(curation, lambda path, value: content_of(value))

    def on(self, device: str) -> Preparation:
        """The same on one device, wherever the request leaves the device open."""
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

    def __init__(self, preparation: Preparation) -> None:
        self._preparation, request = preparation, preparation.request
        self._reference = Reference.open(request.reference, cache_folder(request.curation), Reporter(), request.curation.reading)
        self._draws = functools.cache(lambda amount: self._reference.draws(amount, request.config))

    def prepare(self, unit: DrawToPrepare) -> PreparedDraw | SynthforgeError:
        """Prepare a draw.

        Returns an error of this draw alone; raises RequestError, since it would stop every other draw too.
        """
        try:
            with cpu_threads(self._preparation.request.config.trainer.threads):  # the same images for any number of workers
                return _OneDraw(unit, self._draws(unit.amount), self._preparation, self._reference).run()
        except RequestError:
            raise
        except SynthforgeError as error:
            return error


class _OneDraw:
    """One draw with pools of one origin."""

    def __init__(self, unit: DrawToPrepare, draws: Sequence[RealDraw], preparation: Preparation, reference: Reference) -> None:
        self.preparation = preparation
        self.draw_pool = DrawPool(reference, draws[unit.draw], unit.origin, preparation.request)

    def left(self) -> PreparedDraw | None:
        """The result of an earlier run. None: something is missing or incomplete."""
        if (recipe := self.draw_pool.left()) is None:
            return None
        try:
            return self._read(self._path(self._opened(recipe.pool_path)))
        except DatasetError:
            return None

    def _opened(self, address: str) -> Collection:
        curation = self.preparation.request.curation
        return open_collection(address, cache_folder(curation), reading=curation.reading)

    def run(self) -> PreparedDraw:
        """Make all that is not there yet: generator, pool, and the images that arms take from."""
        recipe, generator = self.draw_pool.make()
        pool = self._opened(recipe.pool_path)
        path = self._path(pool)
        if (left := self._read(path)) is not None:
            return left
        images = Images.of(Table.of([pool]), self.draw_pool.reference.classes, is_real=False)
        prepared = self.preparation.sources.prepare(self.draw_pool, Pool(pool, images), recipe, generator)
        pool_notes = [f"{self.draw_pool.draw.name}: {problem}" for problem in pool.problems]
        prepared = prepared.model_copy(update={"notes": [*pool_notes, *prepared.notes]})
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda temporary: temporary.write_bytes(canonical_json(prepared.model_dump(mode="json"))))
        return prepared

    def _path(self, pool: Collection) -> Path:
        """The file for what is prepared from a pool."""
        draw_pool, config, reference = self.draw_pool, self.draw_pool.config, self.draw_pool.reference
        rules = [astuple(rule) for rule in rules_of(config)]
        depends = [VERSION, SIDES_VERSION, draw_pool.origin, rules, config.synthetic_per_real, self.preparation.choosing]
        depends += [[pool.digest, reference.table.collections[0].digest], [pool.address, reference.address]]  # sets say where images lie
        depends += self.preparation.sources.identity(draw_pool)
        return draw_pool.folder / f"{digest_of(depends)[:12]}-prepared.json"

    def _read(self, path: Path) -> PreparedDraw | None:
        try:
            prepared = PreparedDraw.model_validate_json(path.read_bytes())
            for digest in {digest for by_ratio in prepared.sources for digest in by_ratio.values()}:
                pq.read_metadata(path_of(self.preparation.request.folder, digest))
        except (OSError, ValueError, pa.ArrowException):
            return None
        return prepared if prepared.rendered is None or (Path(prepared.rendered) / COMPLETE).exists() else None


def prepared_settings(
    units: Sequence[DrawToPrepare], preparation: Preparation, draws: RealDraws, workers: Workers[Any, Any], *, beside: Sequence[Any]
) -> tuple[list[Setting], list[str]]:
    """Settings of a recipe, those of `own` origin first, and notes; raises WorkError naming what could not be prepared.

    Args:
        beside: units for workers that have no draw left.
    """
    config = preparation.request.config
    if not units:  # no arm takes synthetic images
        has_more = any(MORE in arm.of for arm in config.arms)
        return draws.settings(config.synthetic_per_real if has_more else config.synthetic_per_real[:1], "own", {}), []
    by_unit = _prepared(units, preparation, draws, workers, beside)
    reader = SetReader(preparation.request.folder, cache_folder(preparation.request.curation), preparation.request.curation.reading)
    elsewhere = {unit.amount for unit in by_unit if unit.origin == "elsewhere"}
    # If curation's encoder saw other images, an `own` draw counts as elsewhere. That amount may already have an
    # `elsewhere` pool; then the `own` one is dropped.
    moved = {unit.amount for unit, prepared in by_unit.items() if unit.origin == "own" and prepared.origin == "elsewhere"}
    settings, notes = [], list[str]()
    for unit, prepared in by_unit.items():
        if unit.origin == "own" and unit.amount in moved & elsewhere:
            continue
        notes += prepared.notes
        draw = draws.by_amount[unit.amount][unit.draw]
        for ratio, digests in zip(config.synthetic_per_real, prepared.sources, strict=True):
            images = preparation.sources.read(digests, reader)
            settings.append(Setting(draw, ratio, prepared.origin, images, prepared.generator, facts=prepared.facts))
    settings.sort(key=lambda setting: (setting.origin != "own", setting.draw.per_class, setting.ratio, setting.draw.number))
    return settings, notes


def _prepared(
    units: Sequence[DrawToPrepare], preparation: Preparation, draws: RealDraws, workers: Workers[Any, Any], beside: Sequence[Any]
) -> dict[DrawToPrepare, PreparedDraw]:
    """Prepare what is not there yet."""
    by_unit = {unit: _OneDraw(unit, draws.by_amount[unit.amount], preparation, draws.reference) for unit in units}
    prepared = {unit: left for unit, one in by_unit.items() if (left := one.left()) is not None}
    if len(prepared) == len(units):
        return prepared
    finished, missed = workers.run(
        [unit for unit in units if unit not in prepared],
        done=len(prepared),
        task="preparing draws: generators, pools, curation",
        what="draws",
        size=lambda unit: int(isinstance(unit, DrawToPrepare)),
        name=lambda unit: unit.name if isinstance(unit, DrawToPrepare) else "a training run of the tuning, to be repeated",
        beside=beside,
        deadline_seconds=_DEADLINE,
    )
    if failed := [failure for failure in missed if isinstance(failure.unit, DrawToPrepare)]:
        unit, reason = failed[0].unit, failed[0].reason
        raise WorkError(f"{len(failed)} of {len(units)} draws could not be prepared; the first, {unit.name}: {reason}")
    prepared |= {outcome.unit: outcome.receipt for outcome in finished if isinstance(outcome.unit, DrawToPrepare)}
    return {unit: prepared[unit] for unit in units}


def _on(config: _OnDevice, device: str) -> _OnDevice:
    return config.model_copy(update={"device": device}) if config.device == "auto" else config
