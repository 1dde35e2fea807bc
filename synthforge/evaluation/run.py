"""The verb `evaluate`: prepare every setting, then train and measure."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from synthforge.curation.write import weights_of
from synthforge.data.layout import Document
from synthforge.data.pools import Table
from synthforge.data.storage import Folder, require_writable_file
from synthforge.devices import one_worker_each
from synthforge.errors import PlaceError, RequestError
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.diagnosis.arms import as_source
from synthforge.evaluation.diagnosis.sources import Renderings, sources_of, with_encoder
from synthforge.evaluation.draws.origins import DrawToPrepare, draws_to_prepare
from synthforge.evaluation.measure import Evaluation, measure, result_of
from synthforge.evaluation.prepare import PreparedDraw, PrepareWork, prepare
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import Request
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.types import EvaluateResult, Origin
from synthforge.evaluation.sets import Images, SetReader, classes_in
from synthforge.evaluation.trainer.jobs import Trainings, read_result
from synthforge.evaluation.trainer.models import filled_in
from synthforge.evaluation.tuning import Tuning
from synthforge.evaluation.work import Beside, EvaluationWork
from synthforge.executors.running import Workers
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.evaluation import MORE, REAL, Amount, EvaluationConfig

FEWEST_CURVE_POINTS = 3
TRAINING_DEADLINE = 1800.0
"""Seconds without progress after which a training is taken for hung."""


def evaluate(request: Request, reporter: Reporter | None = None) -> EvaluateResult:
    """Prepare every setting, train every arm, and write the result.

    Raises RequestError before anything is made, and for what is wrong with the holdout, which is opened late; WorkError for what fails.
    """
    result = result_of(request, *measured(request, reporter or Reporter()))
    write_result(request, result)
    return result


def write_result(request: Request, result: Document) -> None:
    """In one go."""
    place, _, file = request.out.rpartition("/")
    Folder(place).replace(file, result.to_bytes())


def measured(request: Request, reporter: Reporter) -> tuple[Evaluation, Findings]:
    """Prepare every setting and train every arm; errors as for `evaluate`."""
    config, cache, folder = request.config, cache_folder(request.curation), request.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        how = "output.path" if request.recipe is not None else "--out"
        raise PlaceError(f"{folder}: can't be written ({error.strerror}); choose another place with {how}") from error
    require_writable_file(request.out)
    reporter.note("reading the real images")
    reference = Reference.open(request.reference, cache, reporter)
    base = filled_in(config.trainer, reference.image_size)
    draws = {amount: reference.draws(amount, config) for amount in config.real_per_class}
    _require_images(config, draws, len(reference.classes))
    amounts = _curve_amounts(config, reference)
    curve = {amount: draws.get(amount) or reference.draws(amount, config, "evaluation.curve") for amount in amounts}
    in_order = sorted(itertools.chain(*(draws | curve).values()), key=lambda draw: (draw.per_class, draw.number))
    recipe, preparing, units, notes = request.recipe, None, [], [*reference.notes]
    if recipe is not None:
        units = [unit for amount in config.real_per_class for unit in draws_to_prepare(reference, amount, recipe, config)]
        preparing = PrepareWork(
            request.reference, recipe, config, request.curation, folder=folder, cache=cache, diagnosis=request.diagnosis
        )
        # These hold if no synthetic images are asked for.
        ratios = config.synthetic_per_real if any(MORE in arm.of for arm in config.arms) else config.synthetic_per_real[:1]
        settings = _settings(draws, ratios, "own", {})
    else:
        settings, more = _given(request, reference, draws, cache, reporter)
        notes += more
    used = [images.row_N for draw in in_order for images in (draw.fit, draw.validation) if images is not None]
    reference.table.require_readable(np.unique(np.concatenate(used)))
    if base.start != "scratch":
        notes.append(f"classifiers start from weights of {base.pretrained or base.network}, which may have seen the holdout's images")
    tuning = Tuning.of(in_order, base, config, folder, len(reference.classes))
    work = EvaluationWork(folder, cache, base.device, base.threads, preparing)
    with Workers(work, config.workers or one_worker_each(base.device), reporter, deadline_seconds=TRAINING_DEADLINE) as workers:
        if preparing is not None and units:
            different = {training.digest: training for training in tuning.trainings}
            beside = [Beside(training) for training in different.values() if read_result(folder, training) is None]
            prepared = prepare(units, draws, preparing, reference, workers, beside=beside)
            settings = _prepared(prepared, draws, config, SetReader(folder, cache))
        trainer = Trainings(folder, workers)
        return measure(request, settings, reference.classes, tuning, trainer, notes=notes, reporter=reporter)


def _require_images(config: EvaluationConfig, draws: dict[Amount, list[RealDraw]], num_classes: int) -> None:
    """Refuse so few images beside each real one that they are none."""
    if all(arm.of == [REAL] for arm in config.arms):
        return
    for (amount, (draw, *_)), ratio in itertools.product(draws.items(), config.synthetic_per_real):
        if not Setting(draw, ratio, "own", {}).asked(num_classes).any():
            raise RequestError(f"evaluation.synthetic_per_real: {ratio:g} for each of {amount} real images is no image at all; raise it")


def _curve_amounts(config: EvaluationConfig, reference: Reference) -> list[Amount]:
    """Amounts at which real only is trained: those evaluated, all, half of the smallest, and more where that makes too few for a curve."""
    if config.curve is not None:
        return [*config.curve]
    amounts: dict[Amount, None] = dict.fromkeys([*config.real_per_class, "all"])
    whole = int(reference.draws("all", config)[0].fit.per_class(len(reference.classes)).min())
    smallest = min(amount if isinstance(amount, int) else whole for amount in config.real_per_class)
    for part in (2, 4):
        if (part == 2 or len(amounts) < FEWEST_CURVE_POINTS) and smallest // part >= 1:
            amounts[smallest // part] = None
    return [amount for amount in amounts if not (isinstance(amount, int) and amount > whole)]


def _settings(
    draws: dict[Amount, list[RealDraw]], ratios: Sequence[float], origin: Origin, sources: dict[str, Images], generator: str = ""
) -> list[Setting]:
    """Every draw with every ratio, all of the same sources."""
    return [Setting(draw, ratio, origin, sources, generator) for by_amount in draws.values() for ratio in ratios for draw in by_amount]


def _prepared(
    prepared: dict[DrawToPrepare, PreparedDraw], draws: dict[Amount, list[RealDraw]], config: EvaluationConfig, reader: SetReader
) -> list[Setting]:
    """Settings of a recipe."""
    elsewhere = {unit.amount for unit in prepared if unit.origin == "elsewhere"}
    # Where curation's encoder has seen other images, `own` units are of elsewhere too; there may be such already.
    moved = {unit.amount for unit, found in prepared.items() if unit.origin == "own" and found.origin == "elsewhere"}
    settings = []
    for unit, found in prepared.items():
        if unit.origin == "own" and unit.amount in moved & elsewhere:
            continue
        for ratio, digests in zip(config.synthetic_per_real, found.sources, strict=True):
            sources = {key: as_source(key, reader.images(digest)) for key, digest in digests.items()}
            draw = draws[unit.amount][unit.draw]
            settings.append(Setting(draw, ratio, found.origin, sources, found.generator, notes=found.notes, facts=found.facts))
    return sorted(settings, key=lambda one: (one.origin != "own", one.draw.per_class, one.ratio, one.draw.number))


def _given(
    request: Request, reference: Reference, draws: dict[Amount, list[RealDraw]], cache: Path, reporter: Reporter
) -> tuple[list[Setting], list[str]]:
    """Settings of sets that were given: nothing is known of what their generators have seen."""
    config, notes, sources = request.config, [], {}
    for name, address in request.synthetic:
        table = Table.open(address, cache, reporter)
        classes_in(table, address, reference.classes)
        found = Images.of(table, reference.classes, is_real=False, weight=weights_of(address, table.strings("key")))
        notes += [f"{address}: {problem}" for problem in table.collections[0].problems]
        if len(found) < len(table):
            notes.append(
                f"{address}: {len(table) - len(found):,} images of classes that the real images lack, or without a label, are left out"
            )
        if request.diagnosis is not None and (found.weight_N != 1).any():
            notes.append(f"{address}: importance weights are not used in a diagnosis, whose arms take images as often as they are there")
        sources[name] = found
    if request.diagnosis is not None:
        if request.rendered is None:
            notes.append("appearance can't be measured without the generator; give --rendered, the real images as it renders them")
        settings = []
        for draw in itertools.chain(*draws.values()):
            setting, more = _diagnosed(request, reference, draw, cache, reporter)
            settings.append(setting)
            notes += more
        return settings, notes
    origin: Origin = "elsewhere" if sources else "own"
    generators = ", ".join(name for name, _ in request.synthetic)
    return _settings(draws, config.synthetic_per_real, origin, sources, generators), notes


def _diagnosed(request: Request, reference: Reference, draw: RealDraw, cache: Path, reporter: Reporter) -> tuple[Setting, list[str]]:
    """A diagnosis of a set that was given, and what is to be noted."""
    ((name, address),) = request.synthetic
    assert request.diagnosis is not None
    reporter.note(f"comparing {address} with {draw.per_class:g} real images per class")
    renderings = Renderings.given(request.rendered, reference, draw, cache) if request.rendered is not None else None
    config = with_encoder(request.diagnosis, request.curation, reference.image_size, "elsewhere")
    found = sources_of(reference, draw, address, renderings, config=config, curation=request.curation)
    return Setting(draw, 1.0, "elsewhere", found.images, generator=name, facts=found.facts), found.notes
