"""Prepare what an evaluation compares, before the holdout is opened: generators, pools and curation's choices for each draw of real images.

For each draw a generator that has seen just its images (one that is there, or fitted now), a pool of it, and what curation chooses with an
encoder that has seen no other images either: origin `own`. Beside it, apart, the recipe's own pool where its generator has seen others, or
does not say: origin `elsewhere`. Everything lies in a folder named by what it depends on, so a killed evaluation goes on where it was.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from synthforge.config import identity_of
from synthforge.curation.sides import VERSION as SIDES_VERSION
from synthforge.data.collection import Collection, open_collection
from synthforge.data.layout import COMPLETE, canonical_json, digest_of
from synthforge.data.pools import Table
from synthforge.data.storage import content_of, replace_file
from synthforge.devices import cpu_threads
from synthforge.errors import DatasetError, RequestError, SynthforgeError, WorkError
from synthforge.evaluation.conditions import RealDraw
from synthforge.evaluation.diagnosis.arms import in_new_names
from synthforge.evaluation.diagnosis.sources import Renderings, sources_of, with_encoder
from synthforge.evaluation.draws.choice import Chooser, rules_of
from synthforge.evaluation.draws.origins import DrawToPrepare
from synthforge.evaluation.draws.pool import VERSION, DrawPool
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Images, path_of, write_set
from synthforge.executors.running import Workers
from synthforge.generation.render import VERSION as RENDERING_VERSION
from synthforge.generation.render import render, why_not
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.evaluation import DIAGNOSIS_VERSION, Amount, DiagnosisConfig, EvaluationConfig
from synthforge.recipe.recipe import ExecutionConfig, Recipe

_OnDevice = TypeVar("_OnDevice", ExecutionConfig, PixelFitConfig, CurationConfig)
_DEADLINE = 24 * 3600.0
"""Seconds. Fitting and generating say nothing to the executor meanwhile, so that a worker is not taken for hung too soon."""


@dataclass(frozen=True)
class PreparedDraw:
    """Everything that was prepared for a draw. It is written as it is, so that names of fields must stay."""

    origin: Origin
    generator: str
    sources: list[dict[str, str]]
    """One for each ratio: key of a source to the digest of its set of images."""
    notes: list[str] = field(default_factory=list)
    rendered: str | None = None
    """Diagnosis only: address of the real images as the generator renders them."""
    facts: dict[str, float] = field(default_factory=dict)
    """Diagnosis only: figures that are known without training (`DiagnosisSources.facts`)."""


@dataclass(frozen=True)
class PrepareWork:
    """Fit, generate and choose for draws; picklable."""

    reference: str
    recipe: Recipe
    config: EvaluationConfig
    curation: CurationConfig
    folder: Path
    cache: Path
    diagnosis: DiagnosisConfig | None = None
    """If there is one, images for the arms of a diagnosis are prepared, in place of those that curation chooses."""

    @functools.cached_property
    def choosing(self) -> Any:
        """All that curation's choices depend on, models by their content. The metric encoder only measures, so it is not part of it."""
        return identity_of(self.curation.model_copy(update={"metric_encoder": None}), lambda path, value: content_of(value))

    def on(self, device: str) -> PrepareWork:
        """The same on one device, where it is left open which."""
        execution, fit = _on(self.recipe.execution, device), self.config.fit and _on(self.config.fit, device)
        recipe, config = self.recipe.model_copy(update={"execution": execution}), self.config.model_copy(update={"fit": fit})
        return replace(self, recipe=recipe, config=config, curation=_on(self.curation, device))


class Preparer:
    """Prepares draws in one process, with the real images open."""

    def __init__(self, work: PrepareWork) -> None:
        self._work = work
        self._reference = Reference.open(work.reference, work.cache, Reporter())
        self._draws: dict[Amount, list[RealDraw]] = {}

    def prepare(self, unit: DrawToPrepare) -> PreparedDraw | SynthforgeError:
        """Prepare a draw; what fails is returned. Raises RequestError, a mistake which others would meet as well, only after hours."""
        if unit.amount not in self._draws:
            self._draws[unit.amount] = self._reference.draws(unit.amount, self._work.config)
        draw = self._draws[unit.amount][unit.draw]
        try:
            with cpu_threads(self._work.config.trainer.threads):  # whatever the number of workers, the same images
                return _Preparation.of(self._work, self._reference, draw, unit.origin).run()
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
    def of(cls, work: PrepareWork, reference: Reference, draw: RealDraw, origin: Origin) -> _Preparation:
        return cls(work, DrawPool(reference, draw, origin, recipe=work.recipe, config=work.config, beside=work.folder))

    def left(self) -> PreparedDraw | None:
        """The result of an earlier run; None if not all of it is there and whole."""
        if (recipe := self.made.left()) is None:
            return None
        try:
            return self._left_at(self._path(open_collection(recipe.pool_path, self.work.cache)))
        except DatasetError:
            return None

    def run(self) -> PreparedDraw:
        """Make all that is not there yet: generator, pool, and what arms take from."""
        recipe, generator = self.made.make()
        pool = open_collection(recipe.pool_path, self.work.cache)
        path = self._path(pool)
        if (left := self._left_at(path)) is not None:
            return left
        prepared = self._compared(recipe, generator) if self.work.diagnosis is not None else self._chosen_from(pool, generator)
        of_pool = [f"{self.made.draw.name}: {problem}" for problem in pool.problems]
        prepared = replace(prepared, notes=[*of_pool, *prepared.notes])
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, lambda temporary: temporary.write_bytes(canonical_json(prepared.__dict__)))
        return prepared

    def _path(self, pool: Collection) -> Path:
        """The file for what is prepared of a pool."""
        rules, reference = [astuple(rule) for rule in rules_of(self.work.config)], self.made.reference
        depends = [VERSION, SIDES_VERSION, self.made.origin, rules, self.work.config.synthetic_per_real, self.work.choosing]
        depends += [[pool.digest, reference.table.collections[0].digest], [pool.address, reference.address]]  # sets say where images lie
        if (config := self._diagnosis) is not None:
            depends += [DIAGNOSIS_VERSION, RENDERING_VERSION, identity_of(config, lambda path, value: content_of(value))]
        return self.made.folder / f"{digest_of(depends)[:12]}-prepared.json"

    def _left_at(self, path: Path) -> PreparedDraw | None:
        try:
            found = PreparedDraw(**json.loads(path.read_bytes()))
            found = replace(found, sources=[in_new_names(keys) for keys in found.sources])
            for digest in {digest for by_ratio in found.sources for digest in by_ratio.values()}:
                pq.read_metadata(path_of(self.work.folder, digest))
        except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException):
            return None
        return found if found.rendered is None or (Path(found.rendered) / COMPLETE).exists() else None

    def _chosen_from(self, pool: Collection, generator: str) -> PreparedDraw:
        """For an evaluation: random and curated images, for each ratio."""
        everything = Images.of(Table.of([pool]), self.made.reference.classes, is_real=False)
        chooser = Chooser(self.made, pool.address, self.work.curation, self.work.cache)
        sources, origin, notes = [], self.made.origin, list[str]()
        for ratio in self.work.config.synthetic_per_real:
            found = {"random": write_set(self.work.folder, [everything])}
            for rule in rules_of(self.work.config):
                chosen = chooser.choose(rule, ratio)
                notes += chosen.notes
                if chosen.images is not None:
                    found[rule.key] = write_set(self.work.folder, [chosen.images])
                if not chosen.is_own and rule.source == "curated":
                    origin = "elsewhere"
            sources.append(found)
        return PreparedDraw(origin, generator, sources, notes)

    def _compared(self, recipe: Recipe, generator: str) -> PreparedDraw:
        """For a diagnosis: the images of its arms."""
        made, config, renderings, notes = self.made, self._diagnosis, None, []
        assert config is not None
        if (reason := why_not(recipe, config.strength)) is not None:
            notes.append(f"{made.draw.name}: appearance can't be measured: {reason}")
        else:
            real = made.real_address()
            address = render(recipe, real, config.strength, made.folder, made.threads)
            renderings = Renderings.made(address, made.draw, real, self.work.cache)
        found = sources_of(made.reference, made.draw, recipe.pool_path, renderings, config=config, curation=self.work.curation)
        notes += [f"{made.draw.name}: {note}" for note in found.notes]
        digests = {name: write_set(self.work.folder, [images]) for name, images in found.images.items()}
        rendered = renderings.address if renderings is not None else None
        return PreparedDraw(made.origin, generator, [digests], notes, rendered=rendered, facts=found.facts)

    @property
    def _diagnosis(self) -> DiagnosisConfig | None:
        config = self.work.diagnosis
        return config and with_encoder(config, self.work.curation, self.made.reference.image_size, self.made.origin)


def prepare(
    units: Sequence[DrawToPrepare],
    draws: Mapping[Amount, Sequence[RealDraw]],
    work: PrepareWork,
    reference: Reference,
    workers: Workers[Any, Any],
    beside: Sequence[Any],
) -> dict[DrawToPrepare, PreparedDraw]:
    """Prepare what is not there yet; raises WorkError naming what failed.

    Args:
        beside: what workers may do that have no draw left.
    """
    preparations = {unit: _Preparation.of(work, reference, draws[unit.amount][unit.draw], unit.origin) for unit in units}
    found = {unit: left for unit, preparation in preparations.items() if (left := preparation.left()) is not None}
    todo = [unit for unit in units if unit not in found]
    if not todo:
        return found
    finished, missed = workers.run(
        todo,
        done=len(found),
        task="preparing draws: generators, pools, curation",
        what="draws",
        size=lambda unit: int(isinstance(unit, DrawToPrepare)),
        name=lambda unit: (
            f"{unit.amount} real images, draw {unit.draw}"
            if isinstance(unit, DrawToPrepare)
            else "a training of the tuning, to be repeated"
        ),
        beside=beside,
        deadline_seconds=_DEADLINE,
    )
    if failed := [one for one in missed if isinstance(one.unit, DrawToPrepare)]:
        first = failed[0]
        raise WorkError(
            f"{len(failed)} of {len(units)} draws could not be prepared; the first, {first.unit.amount} real images: {first.reason}"
        )
    found |= {outcome.unit: outcome.receipt for outcome in finished if isinstance(outcome.unit, DrawToPrepare)}
    return {unit: found[unit] for unit in units}


def _on(config: _OnDevice, device: str) -> _OnDevice:
    return config.model_copy(update={"device": device}) if config.device == "auto" else config
