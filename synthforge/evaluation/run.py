"""The verb `evaluate`: prepare every setting, then train and measure."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from synthforge.curation.sides import CLIP, SMALL
from synthforge.data.collection import open_collection
from synthforge.data.layout import Document
from synthforge.data.pools import Table
from synthforge.data.storage import Folder, resolve
from synthforge.errors import PlaceError, RequestError, some
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.diagnosis import decomposition
from synthforge.evaluation.diagnosis.decomposition import Rendered, sources_of
from synthforge.evaluation.measure import Evaluation, default_workers, require_readable
from synthforge.evaluation.prepare import Prepared, PrepareWork, Unit, prepare, setting_of, units_of
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import RESULT, Request
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.types import EvaluateResult, Origin
from synthforge.evaluation.sets import Images
from synthforge.evaluation.trainer.jobs import Trainings, TrainWork, read_result
from synthforge.evaluation.trainer.models import filled_in
from synthforge.evaluation.tuning import Tuning, key_of
from synthforge.evaluation.work import Beside, EvaluationWork
from synthforge.executors.running import Workers
from synthforge.features.encoders.config import PixelsConfig
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.evaluation import MORE, REAL, Amount, EvaluationConfig

FEWEST_CURVE_POINTS = 3
FEWEST_PAIRED = 0.5
"""Share of the real images that must have a rendering for these to stand for all."""
TRAINING_DEADLINE = 1800.0
"""Seconds without progress after which a training is taken for hung."""


def evaluate(request: Request, reporter: Reporter | None = None) -> EvaluateResult:
    """Prepare every setting, train every arm, and write the result.

    Raises RequestError before anything is made, and for what is wrong with the holdout, which is opened late; WorkError for what fails.
    """
    evaluation, findings = measured(request, reporter or Reporter())
    result = evaluation.result(findings, request.out)
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
    _require_file(request.out)
    reporter.note("reading the real images")
    reference = Reference.open(request.reference, cache, reporter)
    base = filled_in(config.trainer, reference.image_size)
    draws = {amount: reference.draws(amount, config) for amount in config.real_per_class}
    _require_images(config, draws, len(reference.classes))
    curve = [
        draw
        for amount in _curve_amounts(config, reference)
        for draw in draws.get(amount) or reference.draws(amount, config, "evaluation.curve")
    ]
    every = {key_of(draw): draw for draw in [*itertools.chain(*draws.values()), *curve]}
    in_order = sorted(every.values(), key=lambda draw: (draw.per_class, draw.number))
    recipe, preparing, units, notes = request.recipe, None, [], [*reference.notes]
    if recipe is not None:
        units = [unit for amount in config.real_per_class for unit in units_of(reference, amount, recipe, config)]
        preparing = PrepareWork(request.reference, recipe, config, request.curation, folder, cache, request.diagnosis)
        settings = _only_real(draws, config)
    else:
        settings, more = _given(request, reference, draws, cache, reporter)
        notes += more
    require_readable([images for draw in in_order for images in (draw.fit, draw.validation) if images is not None], folder, cache)
    tuning = Tuning.of(in_order, base, config, folder, len(reference.classes))
    work = EvaluationWork(TrainWork(folder, cache, base.device, base.threads), preparing)
    with Workers(work, default_workers(config, base.device), reporter, deadline_seconds=TRAINING_DEADLINE) as workers:
        if preparing is not None and units:
            different = {training.digest: training for training in tuning.trainings}
            beside = [Beside(training) for training in different.values() if read_result(folder, training) is None]
            settings = _prepared(prepare(units, draws, preparing, reference, workers, beside), draws, config, folder, cache)
        asked = (settings, tuning, request.holdout, reference.classes, config, folder, cache, reporter, notes, request.require)
        evaluation = Evaluation(*asked)
        return evaluation, evaluation.run(Trainings(folder, workers))


def _require_images(config: EvaluationConfig, draws: dict[Amount, list[RealDraw]], num_classes: int) -> None:
    """Refuse so few images beside each real one that they are none."""
    if all(arm.of == [REAL] for arm in config.arms):
        return
    for (amount, (draw, *_)), ratio in itertools.product(draws.items(), config.synthetic_per_real):
        if not Setting(draw, ratio, "own", {}).asked(num_classes).any():
            raise RequestError(f"evaluation.synthetic_per_real: {ratio:g} for each of {amount} real images is no image at all; raise it")


def _require_file(out: str) -> None:
    """Refuse now what could not be written after hours."""
    if "://" in out:
        Folder(out.rpartition("/")[0]).require_writable()
        return
    path = Path(out)
    if path.is_dir():
        raise PlaceError(f"{out}: is a folder; name a file, such as {path / RESULT}")
    if path.exists() and not path.is_file():
        raise PlaceError(f"{out}: is no plain file; name another one with --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name[:200]}", suffix=path.name[200:], dir=path.parent):
            pass
    except OSError as error:
        raise PlaceError(f"{out}: can't be written ({error.strerror}); name another file with --out") from error


def _curve_amounts(config: EvaluationConfig, reference: Reference) -> list[Amount]:
    """Amounts at which real only is trained: those evaluated, all, half of the smallest, and more where that makes too few for a curve."""
    if config.curve is not None:
        return [*config.curve]
    amounts: dict[Amount, None] = dict.fromkeys([*config.real_per_class, "all"])
    whole = int(
        Images.of(reference.table, np.flatnonzero(reference.fit), reference.classes, is_real=True).per_class(len(reference.classes)).min()
    )
    smallest = min(amount if isinstance(amount, int) else whole for amount in config.real_per_class)
    for part in (2, 4):
        if (part == 2 or len(amounts) < FEWEST_CURVE_POINTS) and smallest // part >= 1:
            amounts[smallest // part] = None
    return [amount for amount in amounts if not (isinstance(amount, int) and amount > whole)]


def _only_real(draws: dict[Amount, list[RealDraw]], config: EvaluationConfig) -> list[Setting]:
    """Settings of a recipe of which no synthetic images are asked."""
    ratios = config.synthetic_per_real if any(MORE in arm.of for arm in config.arms) else config.synthetic_per_real[:1]
    return [Setting(draw, ratio, "own", {}) for by_amount in draws.values() for ratio in ratios for draw in by_amount]


def _prepared(
    prepared: dict[Unit, Prepared], draws: dict[Amount, list[RealDraw]], config: EvaluationConfig, folder: Path, cache: Path
) -> list[Setting]:
    """Settings of a recipe."""
    elsewhere = {unit.amount for unit in prepared if unit.origin == "elsewhere"}
    # Where curation's encoder has seen other images, `own` units are of elsewhere too; there may be such already.
    moved = {unit.amount for unit, found in prepared.items() if unit.origin == "own" and found.origin == "elsewhere"}
    kept = [unit for unit in prepared if not (unit.origin == "own" and unit.amount in moved & elsewhere)]
    settings = [
        setting_of(draws[unit.amount][unit.draw], ratio, number, prepared[unit], folder, cache)
        for unit in kept
        for number, ratio in enumerate(config.synthetic_per_real)
    ]
    return sorted(settings, key=lambda one: (one.origin != "own", one.draw.per_class, one.ratio, one.draw.number))


def _given(
    request: Request, reference: Reference, draws: dict[Amount, list[RealDraw]], cache: Path, reporter: Reporter
) -> tuple[list[Setting], list[str]]:
    """Settings of sets that were given: nothing is known of what their generators have seen."""
    config, notes, sources = request.config, [], {}
    for name, address in request.synthetic:
        collection = open_collection(address, cache, reporter=reporter)
        table = Table.of([collection])
        found = Images.of(table, np.arange(len(table)), reference.classes, is_real=False, weight=_weights(address, table))
        notes += [f"{address}: {problem}" for problem in collection.problems]
        if not len(found):
            raise RequestError(
                f"{address}: none of its classes ({some(collection.classes)}) is one of the real images' "
                f"({some(reference.classes)}); names must be the same"
            )
        if len(found) < len(table):
            notes.append(
                f"{address}: {len(table) - len(found):,} images of classes that the real images lack, or without a label, are left out"
            )
        if request.diagnosis is not None and (found.weight_N != 1).any():
            notes.append(f"{address}: importance weights are not used in a diagnosis, whose arms take images as often as they are there")
        sources[name] = found
    if request.diagnosis is not None:
        settings = [_diagnosed(request, reference, draw, cache, notes, reporter) for by_amount in draws.values() for draw in by_amount]
        return settings, notes
    origin: Origin = "elsewhere" if sources else "own"
    generators = ", ".join(name for name, _ in request.synthetic)
    settings = [
        Setting(draw, ratio, origin, sources, generators)
        for by_amount in draws.values()
        for ratio in config.synthetic_per_real
        for draw in by_amount
    ]
    return settings, notes


def _diagnosed(request: Request, reference: Reference, draw: RealDraw, cache: Path, notes: list[str], reporter: Reporter) -> Setting:
    """What arms of a diagnosis take from, of a set that was given."""
    config, rendered, ((name, address),) = request.diagnosis, None, request.synthetic
    assert config is not None
    reporter.note(f"comparing {address} with {draw.per_class:g} real images per class")
    if request.rendered is None:
        notes.append("appearance can't be measured without the generator; give --rendered, the real images as it renders them")
    else:
        keys = Table.of([open_collection(request.rendered, cache, reporter=reporter)]).strings("key")
        row_of = {key: row for row, key in enumerate(keys)}
        of_real = reference.table.strings("key")[draw.fit.row_N]
        rendered = Rendered(request.rendered, np.array([row_of.get(key, -1) for key in of_real], np.int64))
        if (paired := float((rendered.row_N >= 0).mean())) < FEWEST_PAIRED:
            raise RequestError(
                f"{request.rendered}: {paired:.0%} of the real images have one of the same name in it ({of_real[0]!r} is one of theirs); "
                "render all of them"
            )
    encoder = config.encoder or (PixelsConfig() if reference.image_size <= SMALL else CLIP)
    sources, facts, more = sources_of(reference.table, draw.fit, address, rendered, reference.classes, encoder, config, request.curation)
    notes += more
    sources = {key: decomposition.as_source(key, images) for key, images in sources.items()}
    return Setting(draw, 1.0, "elsewhere", sources, name, [], facts)


def _weights(address: str, table: Table) -> np.ndarray | None:
    """Importance weights that curation gave, in the order of the table; None if it gave none."""
    decisions = Folder(resolve(address))
    if not decisions.exists("decisions.parquet"):
        return None
    with decisions.fetched("decisions.parquet") as path:
        rows = pq.read_table(path, columns=["curated_key", "weight"]).to_pylist()
    weight = {row["curated_key"]: row["weight"] for row in rows if row["curated_key"] is not None}
    found = np.array([weight.get(key, 1.0) for key in table.strings("key")], np.float64)
    return None if (found == 1).all() else found
