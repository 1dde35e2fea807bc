"""What an evaluation compares, made before the holdout is opened: generators, pools and curation's choices for each draw of real images.

For each draw a generator that has seen just its images (one that is there, or fitted now), a pool of it, and what curation chooses with an
encoder that has seen no other images either: origin `own`. Beside it, apart, the recipe's own pool where its generator has seen others, or
does not say: origin `elsewhere`. Everything lies in a folder named by what it depends on, so a killed evaluation goes on where it was.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from synthforge.config import identity_of
from synthforge.curation.run import Gated, NothingLeftError, choose, gate
from synthforge.curation.sides import CLIP, SMALL, Sides
from synthforge.curation.sides import VERSION as SIDES_VERSION
from synthforge.data.collection import Collection, open_collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import COMPLETE, MANIFEST, canonical_json, digest_of
from synthforge.data.pools import Table
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder, content_of, resolve
from synthforge.data.units import Part
from synthforge.devices import cpu_threads, own_gpu
from synthforge.errors import DatasetError, RequestError, SynthforgeError, WorkError, some
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.diagnosis import decomposition
from synthforge.evaluation.diagnosis.decomposition import Rendered, sources_of
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Images, SetReader, path_of, write_set
from synthforge.executors.protocol import Place
from synthforge.executors.running import Workers
from synthforge.features.embed import published
from synthforge.features.encoders.config import FittedConfig, OpenClipConfig, PixelsConfig, TimmConfig
from synthforge.features.encoders.protocol import SEEN_DIGITS
from synthforge.generation.plan import Plan
from synthforge.generation.render import VERSION as RENDERING_VERSION
from synthforge.generation.render import render, why_not
from synthforge.generation.run import generate
from synthforge.generators.pixel.report import was_fitted_on
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, SizeConfig
from synthforge.recipe.evaluation import DIAGNOSIS_VERSION, Amount, ArmConfig, DiagnosisConfig, EvaluationConfig
from synthforge.recipe.recipe import Recipe

VERSION = 2
PREPARED = "prepared.json"
MODEL = "model_index.json"
"""The last file of a model that is saved."""
SYNTHETIC = ("random", "curated")
PARTS: tuple[Part, ...] = ("fit", "validation")
DEADLINE = 24 * 3600.0
"""Seconds. Fitting and generating say nothing to the executor meanwhile, so that a worker is not taken for hung too soon."""


@dataclass(frozen=True)
class Unit:
    """One draw with pools of one origin: what is prepared in one go."""

    amount: Amount
    draw: int
    origin: Origin


@dataclass(frozen=True)
class Prepared:
    """What was made for a unit; its images as digests of sets."""

    origin: Origin
    generator: str
    sources: list[dict[str, str]]
    """For each ratio: key of a source to the digest of its images."""
    notes: list[str] = field(default_factory=list)
    rendered: str | None = None
    """For a diagnosis: where the real images lie as the generator renders them."""
    facts: dict[str, float] = field(default_factory=dict)
    """For a diagnosis: what is known without training (`decomposition.sources_of`)."""


@dataclass(frozen=True)
class PrepareWork:
    """Fit, generate and choose for units; picklable."""

    reference: str
    recipe: Recipe | None
    config: EvaluationConfig
    curation: CurationConfig
    folder: Path
    cache: Path
    diagnosis: DiagnosisConfig | None = None
    """What arms of a diagnosis take from is prepared, in place of what curation chooses."""

    def open(self, place: Place) -> PrepareStream:
        """Take a device, and open the real images."""
        return PrepareStream(self._on(own_gpu(place.worker, place.workers, "auto")))

    @functools.cached_property
    def choosing(self) -> Any:
        """What curation's choices depend on, models by their content; the metric encoder only measures."""
        return identity_of(self.curation.model_copy(update={"metric_encoder": None}), lambda path, value: content_of(value))

    def _on(self, device: str) -> PrepareWork:
        """The same on one device, where it is left open which."""
        assert self.recipe is not None
        execution, fitting, curation = self.recipe.execution, self.config.fit, self.curation
        if execution.device == "auto":
            execution = execution.model_copy(update={"device": device})
        if fitting is not None and fitting.device == "auto":
            fitting = fitting.model_copy(update={"device": device})
        if curation.device == "auto":
            curation = curation.model_copy(update={"device": device})
        recipe, config = self.recipe.model_copy(update={"execution": execution}), self.config.model_copy(update={"fit": fitting})
        return replace(self, recipe=recipe, config=config, curation=curation)


class PrepareStream:
    """Implements `executors.protocol.Stream`; a receipt is what was prepared."""

    def __init__(self, work: PrepareWork) -> None:
        self._work = work
        self._reference = Reference.open(work.reference, work.cache, Reporter())
        self._draws: dict[Amount, list[RealDraw]] = {}

    def describe(self) -> None:
        """Nothing to tell."""

    def run(self, units: Iterator[Unit], advance: Callable[[int], None]) -> Generator[tuple[Unit, Prepared | SynthforgeError], None, None]:
        """Prepare units."""
        for unit in units:
            try:
                if unit.amount not in self._draws:
                    self._draws[unit.amount] = self._reference.draws(unit.amount, self._work.config)
                draw = self._draws[unit.amount][unit.draw]
                with cpu_threads(self._work.config.trainer.threads):  # whatever the number of workers, the same images
                    found: Prepared | SynthforgeError = _Preparation(self._work, self._reference, draw, unit).run()
                advance(1)
            except RequestError:  # a mistake of the user, which others would meet as well: better told now than after hours
                raise
            except SynthforgeError as error:
                found = error
            yield unit, found

    def close(self) -> None:
        """Nothing is open."""


class _Preparation:
    """One unit."""

    def __init__(self, work: PrepareWork, reference: Reference, draw: RealDraw, unit: Unit) -> None:
        self.work, self.reference, self.draw, self.unit = work, reference, draw, unit
        self.notes: list[str] = []
        self._gated: dict[str, Gated] = {}
        """Of each pool that curation has looked at: rules and ratios differ in what they choose of the same images."""
        assert work.recipe is not None
        self.threads = work.recipe.execution.threads or work.config.trainer.threads
        real = [
            [part.sha256_N.tolist(), [str(label) for label in part.label_N.tolist()]]
            for part in (self.draw.fit, self.draw.validation, self.draw.rest)
            if part is not None
        ]
        fitting = identity_of(work.config.fit, lambda path, value: value) if work.config.fit is not None else None
        depends = [VERSION, reference.classes, real, unit.draw, fitting, self.threads]
        self.folder = work.folder / f"{self.draw.name}-{digest_of(depends)[:12]}"
        """For all that is made of the draw's images alone: its generator, and what it is fitted on."""

    def run(self) -> Prepared:
        """All of it, or what an earlier run left."""
        if self._is_fitted_here:
            self._fit()
        recipe, generator = self._recipe()
        if recipe is not self.work.recipe:
            generate(recipe, Reporter())
        pool = recipe.pool_path
        collection = open_collection(pool, self.work.cache)
        self.notes += [f"{self.draw.name}: {problem}" for problem in collection.problems]
        path = self._path(collection)
        if (left := self._left_at(path)) is not None:
            return left
        prepared = self._diagnosed(recipe, generator) if self.work.diagnosis is not None else self._chosen_from(collection, generator)
        self.folder.mkdir(parents=True, exist_ok=True)
        published(path, lambda temporary: temporary.write_bytes(canonical_json(prepared.__dict__)))
        return prepared

    def _chosen_from(self, collection: Collection, generator: str) -> Prepared:
        """Random and curated images of a pool, for each ratio."""
        pool, table = collection.address, Table.of([collection])
        everything = Images.of(table, np.arange(len(table)), self.reference.classes, is_real=False)
        sources, origin = [], self.unit.origin
        for ratio in self.work.config.synthetic_per_real:
            wanted = Setting(self.draw, ratio, origin, {}).asked(len(self.reference.classes))
            quota = {name: int(num) for name, num in zip(self.reference.classes, wanted, strict=True)}
            found = {"random": write_set(self.work.folder, [everything])}
            for key, source, method, regime in self._curated:
                chosen, is_own = self._chosen(source, method, regime, pool, quota)
                if chosen is not None:
                    found[key] = write_set(self.work.folder, [chosen])
                if not is_own and source == "curated":
                    origin = "elsewhere"
            sources.append(found)
        return Prepared(origin, generator, sources, self.notes)

    def left(self) -> Prepared | None:
        """What an earlier run prepared; None if nothing, or not all of it is there and whole."""
        needs = [self._model / MODEL] * self._is_fitted_here + [self._images / COMPLETE] * self._is_guided
        if not all(path.exists() for path in needs):
            return None
        recipe, _ = self._recipe()
        if recipe is not self.work.recipe and not (Path(recipe.pool_path) / COMPLETE).exists():
            return None
        try:
            return self._left_at(self._path(open_collection(recipe.pool_path, self.work.cache)))
        except DatasetError:
            return None

    @property
    def _curated(self) -> list[tuple[str, str, str, str]]:
        """Key, source, rule and regime of each choice."""
        return sorted({(arm.key_of(source), source, arm.selection or "", arm.regime) for arm, source in _curated(self.work.config)})

    def _path(self, pool: Collection) -> Path:
        """Where it is written what was prepared of a pool."""
        depends = digest_of(
            [
                VERSION,
                SIDES_VERSION,
                self.unit.origin,
                self._curated,
                self.work.config.synthetic_per_real,
                self.work.choosing,
                [pool.digest, self.reference.table.collections[0].digest],
                [pool.address, self.reference.address],  # sets say where images lie
                *self._diagnosis,
            ]
        )
        return self.folder / f"{depends[:12]}-{PREPARED}"

    def _left_at(self, path: Path) -> Prepared | None:
        try:
            found = Prepared(**json.loads(path.read_bytes()))
            found = replace(found, sources=[decomposition.in_new_names(keys) for keys in found.sources])
            for digest in {digest for by_ratio in found.sources for digest in by_ratio.values()}:
                pq.read_metadata(path_of(self.work.folder, digest))
        except (OSError, ValueError, TypeError, AttributeError, pa.ArrowException):
            return None
        return found if found.rendered is None or (Path(found.rendered) / COMPLETE).exists() else None

    # Generator and pool

    @property
    def _is_fitted_here(self) -> bool:
        return self.work.config.fit is not None and self.unit.origin == "own"

    @property
    def _is_guided(self) -> bool:
        assert self.work.recipe is not None
        return self.work.recipe.sampling.real_guidance is not None and not self.draw.is_whole

    @property
    def _model(self) -> Path:
        """Of a generator that is fitted here."""
        return self.folder / "generator"

    @property
    def _images(self) -> Path:
        """The draw's images as a set of their own."""
        return self.folder / "reference"

    def _recipe(self) -> tuple[Recipe, str]:
        """The recipe of the pool, and a name for its generator, which is there."""
        recipe, config = self.work.recipe, self.work.config
        assert recipe is not None
        model = name = str(recipe.generator.model)
        if self.unit.origin == "elsewhere" or (self.draw.is_whole and config.fit is None and self.unit.draw == 0):
            made_by = DatasetFolder.open(recipe.pool_path).manifest.generator or {}  # the recipe may have changed since
            return recipe, str(made_by.get("model", name))
        if self._is_fitted_here:
            model, name = str(self._model), "fitted on these images"
        elif not self.draw.is_whole:
            assert config.generators is not None
            model = name = config.generators.replace("{amount}", str(self.unit.amount))
        sampling = recipe.sampling.model_copy(update={"seed": recipe.sampling.seed + self.unit.draw})
        if sampling.real_guidance is not None:
            guided = sampling.real_guidance.model_copy(update={"reference": self._draw_address()})
            sampling = sampling.model_copy(update={"real_guidance": guided})
        made = recipe.model_copy(
            update={
                "generator": recipe.generator.model_copy(update={"model": model}),
                "sampling": sampling,
                "execution": recipe.execution.model_copy(update={"workers": 1, "threads": self.threads}),
            }
        )
        # A plan has no length, but a pool has.
        place = self.folder / f"pool-{digest_of([Plan.of(made).digest, made.num_samples])[:12]}"
        return made.model_copy(update={"output": recipe.output.model_copy(update={"path": str(place)})}), name

    def _fit(self) -> None:
        config = self.work.config.fit
        assert config is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".generator.lock"):  # another evaluation may want the same
            if not (self._model / MODEL).exists():
                from synthforge.generators.pixel.fit import fit  # takes seconds to import

                seeded = config.loop.model_copy(update={"seed": config.loop.seed + self.unit.draw})
                fit(self._draw_address(), self._model, config.model_copy(update={"loop": seeded, "per_class": None}))

    def _draw_address(self) -> str:
        """Of the draw's images as a set of their own, which is written if it is not there."""
        if self.draw.is_whole:
            return self.work.reference
        self.reference.write(self.draw.fit, self._images, {"fit": (0, len(self.draw.fit))})
        return str(self._images)

    # What a diagnosis compares

    @property
    def _diagnosis(self) -> list[Any]:
        """What it depends on besides."""
        config = self.work.diagnosis
        if config is None:
            return []
        described = config.model_copy(update={"encoder": self._likeness})
        return [DIAGNOSIS_VERSION, RENDERING_VERSION, identity_of(described, lambda path, value: content_of(value))]

    @property
    def _likeness(self) -> Any:
        """The encoder by whose features images are alike."""
        assert self.work.diagnosis is not None
        if self.work.diagnosis.encoder is not None:
            return self.work.diagnosis.encoder
        encoder = self.work.curation.encoder
        if self.reference.image_size <= SMALL or self.unit.origin == "own":
            return PixelsConfig()
        return encoder if isinstance(encoder, OpenClipConfig | TimmConfig) else CLIP

    def _diagnosed(self, recipe: Recipe, generator: str) -> Prepared:
        config, rendered = self.work.diagnosis, None
        assert config is not None
        if (reason := why_not(recipe, config.strength)) is not None:
            self.notes.append(f"{self.draw.name}: appearance can't be measured: {reason}")
        else:
            real = self._draw_address()
            address = render(recipe, real, config.strength, self.folder, self.threads)
            as_rendered = self.draw.fit.sha256_N
            if not self.draw.is_whole:  # a draw's images may have been encoded anew
                as_rendered = Table.of([open_collection(real, self.work.cache)]).strings("image_sha256")
            sources = Table.of([open_collection(address, self.work.cache)]).strings("source_sha256")
            row_of = {sha256: row for row, sha256 in enumerate(sources)}
            rendered = Rendered(address, np.array([row_of.get(sha256, -1) for sha256 in as_rendered], np.int64))
        classes = self.reference.classes
        found, facts, notes = sources_of(
            self.reference.table,
            self.draw.fit,
            recipe.pool_path,
            rendered,
            classes,
            self._likeness,
            config,
            self.work.curation,
        )
        self.notes += [f"{self.draw.name}: {note}" for note in notes]
        digests = {key: write_set(self.work.folder, [images]) for key, images in found.items()}
        return Prepared(self.unit.origin, generator, [digests], self.notes, rendered.address if rendered is not None else None, facts)

    # What curation chooses

    def _chosen(self, source: str, method: str, regime: str, pool: str, quota: dict[str, int]) -> tuple[Images | None, bool]:
        """Images by the rule of curation, and whether its encoder has seen no other real images than the draw's."""
        if source == "more-curated":
            if (self.draw.rest.per_class(len(self.reference.classes)) < np.array(list(quota.values()))).any():
                return None, True  # not enough other real images
            pool = str(self.folder / "others")
            self.reference.write(self.draw.rest, Path(pool), {})
        present = set(Table.of([open_collection(pool, self.work.cache)]).strings("class"))
        config = self._curation(method, regime, {name: num for name, num in quota.items() if name in present})
        try:
            if pool not in self._gated:
                self._gated[pool] = gate([pool], self._draw_address(), config, Reporter())
            choice = choose(self._gated[pool], config, Reporter())
        except NothingLeftError as error:
            self.notes.append(f"{self.draw.name}: {error}")
            return None, True
        if len(choice.kept) == 0:
            return None, True
        sides = self._gated[pool].sides
        if source == "more-curated":
            rows = np.sort(choice.kept)
            return replace(self.draw.rest.take(rows), weight_N=choice.weight_N[rows]), self._is_own(sides)
        kept = np.sort(choice.kept)
        self.notes += [f"{self.draw.name}: {note}" for note in choice.notes]
        weight = choice.weight_N[kept]
        return Images.of(sides.pool, kept, self.reference.classes, is_real=False, weight=weight), self._is_own(sides)

    def _curation(self, method: str, regime: str, quota: dict[str, int]) -> CurationConfig:
        curation = self.work.curation
        selection = curation.selection.model_copy(update={"seed": curation.selection.seed + self.unit.draw})
        if method:
            selection = selection.model_copy(update={"method": method, "weights": False})
        if not selection.weights:
            selection = selection.model_copy(update={"size": SizeConfig(quota=quota)})
        encoder = curation.encoder
        is_own = encoder is None or isinstance(encoder, PixelsConfig) or (isinstance(encoder, FittedConfig) and encoder.model is None)
        if not self.draw.is_whole and self.unit.origin == "own":
            if not is_own:
                self.notes.append(f"{self.draw.name}: the recipe's encoder has seen other images; one that was fitted on these alone chose")
            encoder = encoder if is_own and encoder is not None else FittedConfig()
        update = {"regime": regime, "selection": selection, "encoder": encoder, "metric_encoder": None, "cache": str(self.work.cache)}
        return curation.model_copy(update=update)

    def _is_own(self, sides: Sides) -> bool:
        if isinstance(sides.encoder, PixelsConfig) or (isinstance(sides.encoder, FittedConfig) and sides.encoder.model is None):
            return True
        seen = frozenset().union(*(encoder.seen for encoder in sides.encoders))
        images = [self.draw.fit, *([self.draw.validation] if self.draw.validation is not None else [])]
        budget = {sha256[:SEEN_DIGITS] for part in images for sha256 in part.sha256_N}
        return bool(seen) and seen <= budget


def _curated(config: EvaluationConfig) -> list[tuple[ArmConfig, str]]:
    return [(arm, source) for arm in config.arms for source in arm.of if source.endswith("curated")]


def units_of(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> list[Unit]:
    """What is to be prepared for one amount; raises RequestError for a generator that has seen more than its budget, or no pool at all."""
    if not any(source in SYNTHETIC or source == "more-curated" for arm in config.arms for source in arm.of):
        return []
    _require_possible(reference, amount, recipe, config)
    origins: list[Origin] = []
    if config.fit is not None:
        origins.append("own")
    elif amount == "all":
        model = resolve(str(recipe.generator.model))
        parts = read_labelled(reference.address)
        guided = recipe.sampling.real_guidance
        is_guided_by_others = guided is not None and resolve(guided.reference) != resolve(reference.address)
        if not is_guided_by_others and was_fitted_on(
            Path(model), [found for part in PARTS if (found := parts.get(part)) is not None and found.examples]
        ):
            origins.append("own")
    elif config.generators is not None:
        model = resolve(config.generators.replace("{amount}", str(amount)))
        if not Path(model).exists():
            raise RequestError(
                f"evaluation.generators: there is no {model}; fit one with --set per_class={amount}, or leave generators out"
            )
        if not was_fitted_on(Path(model), [read_labelled(reference.address)["fit"].first_of_each(int(amount))]):
            raise RequestError(
                f"evaluation.generators: {model} was not fitted on just the first {amount} real images of each class, so "
                f"its arms would have seen more than their budget; fit one with --set per_class={amount}, or leave generators out"
            )
        origins.append("own")
    has_pool = Folder(recipe.pool_path).exists(MANIFEST)
    uses_pool = amount == "all" and origins == ["own"] and config.fit is None
    if (
        has_pool and uses_pool
    ):  # what lies there must be of this very generator; of one from elsewhere nothing is claimed, so none is loaded
        plan = Plan.of(recipe)
        DatasetFolder.open(recipe.pool_path).require_same_plan(plan.digest, plan.identity)
    if not has_pool and (uses_pool or not origins):
        raise RequestError(
            f"{recipe.pool_path}: no pool there yet; make it first with `synthforge generate`, or let evaluation.fit make one"
        )
    if not origins or (config.elsewhere and has_pool and not uses_pool):
        origins.append("elsewhere")
    return [Unit(amount, number, origin) for origin in origins for number in range(config.draws)]


def _require_possible(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> None:
    """Refuse now what would fail only once a generator is fitted."""
    if lacking := [name for name in reference.classes if name not in recipe.classes]:
        raise RequestError(
            f"evaluation: class {lacking[0]!r} of the real images is not among the recipe's ({', '.join(list(recipe.classes)[:8])}): there "
            "would be no synthetic images of it; add it to `classes`, or leave its real images out"
        )
    if config.fit is not None:
        if recipe.generator.kind != "pixel":
            raise RequestError(
                f"evaluation.fit: fits a generator of kind pixel, and the recipe's is {recipe.generator.kind}; leave fit out, or make the "
                "generator `{kind: pixel, model: none}`"
            )
        labels = {str(name if spec.label is None else spec.label) for name, spec in recipe.classes.items()}
        if missing := sorted(labels - set(reference.classes)):
            raise RequestError(
                f"evaluation.fit: class {missing[0]!r} of the recipe is not among the real images' ({some(reference.classes)}); "
                "leave it out, or add images of it"
            )
    encoder = recipe.curation.encoder or FittedConfig()
    folds = encoder.folds if isinstance(encoder, FittedConfig) and encoder.model is None and _curated(config) else 0
    if isinstance(amount, int) and (num := amount * len(reference.classes)) < 2 * folds:
        raise RequestError(
            f"evaluation.real_per_class: {num} real images in all are too few for the {folds} folds of curation's encoder; raise it, or "
            "make the encoder `{kind: pixels}`"
        )
    methods = [arm.selection or recipe.curation.selection.method for arm, _ in _curated(config)]
    if "auto" in methods and (amount != "all" or reference.fit.all()):
        raise RequestError(
            f"evaluation: selection `auto` tries rules out on a validation part, and {amount} real images have none; name a rule"
        )


def prepare(
    units: Sequence[Unit],
    draws: Mapping[Amount, Sequence[RealDraw]],
    work: PrepareWork,
    reference: Reference,
    workers: Workers[Any, Any],
    beside: Sequence[Any] = (),
) -> dict[Unit, Prepared]:
    """Prepare what is not there yet; raises WorkError naming what failed.

    Args:
        beside: what workers may do that have no draw left.
    """
    left = {unit: _Preparation(work, reference, draws[unit.amount][unit.draw], unit).left() for unit in units}
    found = {unit: prepared for unit, prepared in left.items() if prepared is not None}
    todo = [unit for unit in units if unit not in found]
    if not todo:
        return found
    finished, missed = workers.run(
        todo,
        done=len(found),
        task="preparing draws: generators, pools, curation",
        what="draws",
        size=lambda unit: int(isinstance(unit, Unit)),
        name=lambda unit: (
            f"{unit.amount} real images, draw {unit.draw}" if isinstance(unit, Unit) else "a training of the tuning, to be repeated"
        ),
        beside=beside,
        deadline_seconds=DEADLINE,
    )
    if failed := [one for one in missed if isinstance(one.unit, Unit)]:
        first = failed[0]
        raise WorkError(
            f"{len(failed)} of {len(units)} draws could not be prepared; the first, {first.unit.amount} real images: {first.reason}"
        )
    found |= {outcome.unit: outcome.receipt for outcome in finished if isinstance(outcome.unit, Unit)}
    return {unit: found[unit] for unit in units}


def setting_of(draw: RealDraw, ratio: float, number: int, prepared: Prepared, folder: Path, cache: Path) -> Setting:
    """A unit's setting for one ratio."""
    reader = SetReader(folder, cache)
    sources = {key: decomposition.as_source(key, reader.images(digest)) for key, digest in prepared.sources[number].items()}
    return Setting(draw, ratio, prepared.origin, sources, prepared.generator, prepared.notes, prepared.facts)
