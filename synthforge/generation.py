"""`generate`: a recipe's images as sealed shards, going on wherever an earlier run stopped."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from synthforge.errors import RequestError, ShardFailed, WorkError
from synthforge.images import contact_sheet, decode, encode
from synthforge.plan import Plan
from synthforge.progress import Counters, Reporter
from synthforge.recipe import MAX_SAMPLES, Recipe
from synthforge.shards.folder import DatasetFolder, differences, remove_dataset
from synthforge.shards.layout import LOG, MANIFEST, RECIPE_LOG, Shard, canonical_json
from synthforge.shards.writers import Heartbeat
from synthforge.storage import Folder, writer_name

if TYPE_CHECKING:
    from synthforge.engine import Engine


@dataclass(frozen=True)
class GenerateResult:
    """What `generate` leaves behind."""

    folder: str
    is_complete: bool
    """Every shard is sealed or quarantined."""
    samples: int
    """In the whole dataset."""
    left_out: int
    """Samples of the dataset whose every attempt was rejected."""
    shards: int
    bytes: int
    digest: str | None
    """SHA-256 over the seals, once complete."""
    made: int
    """Images that this run made."""
    adopted: int
    """Shards that another run had begun to publish and this one sealed."""
    seconds: float
    """Of making, without loading the model."""
    images_per_second: float
    rejected: dict[str, int]
    """Reason to number of images that were made again."""
    padding: int
    """Images made only to fill batches."""
    halvings: int
    """Times that the batch was halved for want of memory."""
    quarantined: dict[str, str]
    """Shard to reason."""
    per_class: dict[str, int]
    """Samples asked for of each class."""
    contact_sheet: str | None


def generate(
    recipe: Recipe,
    reporter: Reporter | None = None,
    *,
    extend: int | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
) -> GenerateResult:
    """Make the recipe's images and write them as sealed shards, going on where an earlier run stopped.

    Args:
        extend: append this many samples to a finished run, or go on with an interrupted extension of this size.
        overwrite: remove what is in the folder first; refused while another process writes there.
        retry_quarantined: try shards again that were given up.
    Raises: RequestError and its children before anything is changed; WorkError and its children once work has begun.
    """
    reporter = reporter or Reporter()
    plan = Plan.of(recipe)
    folder = Folder(recipe.pool_path, recipe.output.single_writer)
    folder.require_writable()
    folder.sweep()
    # Announced before anything is decided, so that nobody clears the folder while the model is loading.
    with Heartbeat(folder) as heartbeat:
        others = heartbeat.others()
        if overwrite and others:
            raise RequestError(f"{folder.address}: {others[0].writer} is writing there; stop it before --overwrite")
        dataset = None if overwrite else _reopened(folder, plan)
        begins_segment = _begins_segment(dataset, plan, folder, extend)
        if dataset is not None and not begins_segment:
            adopted = _adopt(dataset, plan, reporter)
            given_up = dataset.state().quarantined
            if not dataset.state().missing and not (retry_quarantined and given_up):
                reporter.note("nothing to do: " + (f"{len(given_up)} shard(s) are quarantined" if given_up else "every shard is sealed"))
                return _finish(dataset, plan, Counters(), adopted, 0.0)
        else:
            adopted = 0

        from synthforge.engine import Engine, Sampler, load_generator

        reporter.note(f"loading {recipe.generator.model}")
        generator = load_generator(recipe, plan)
        # Nothing was changed so far; from here on the request is known to be possible.
        if overwrite:
            remove_dataset(folder)
        identity = generator.identity()
        dataset = DatasetFolder.create(folder, plan.manifest(identity))
        if changes := differences(dataset.manifest.generator or {}, identity):
            reporter.note(f"made with other library versions than the shards that are there: {'; '.join(changes)}; pixels may differ")
        if begins_segment:
            assert extend is not None
            dataset.extend(extend, recipe.output.samples_per_shard)
        if retry_quarantined:
            for shard in dataset.state().quarantined:
                dataset.release(shard)
        if others:
            reporter.note(f"{len(others)} other process(es) work on this folder; sharing the shards that are left")
        log = folder.within(LOG)
        log.replace(RECIPE_LOG, canonical_json(recipe.model_dump(mode="json")))
        engine = Engine(Sampler(generator, plan, recipe.execution.batch), dataset, recipe.execution.encoders)
        started = time.perf_counter()
        try:
            adopted += _make_all(engine, heartbeat, reporter)
        except RequestError as error:
            raise WorkError(str(error)) from error  # too late for "nothing was started"
        seconds = time.perf_counter() - started
        _write_log(log, engine, seconds)
        return _finish(dataset, plan, engine.sampler.counters, adopted, seconds)


def _reopened(folder: Folder, plan: Plan) -> DatasetFolder | None:
    """The dataset that is there, if it is this plan's; None if there is none."""
    if not folder.exists(MANIFEST):
        if strangers := [name for name in folder.list() if name.startswith("train-")]:
            raise RequestError(
                f"{folder.address}: holds {strangers[0]} but no {MANIFEST}, so it is no dataset of ours; use another folder, or --overwrite"
            )
        return None
    existing = DatasetFolder.open(folder.address, folder.single_writer)
    existing.require_same_plan(plan.digest, plan.identity)
    return existing


def _begins_segment(dataset: DatasetFolder | None, plan: Plan, folder: Folder, extend: int | None) -> bool:
    """Whether this run is to append a segment; raises RequestError if what is asked for does not fit what is there."""
    if extend is not None and not 1 <= extend <= MAX_SAMPLES:
        raise RequestError(f"--extend {extend}: give a number of samples to add, from 1 to {MAX_SAMPLES:,}")
    if dataset is None:
        if extend is not None:
            raise RequestError(f"{folder.address}: nothing there to extend; run without --extend first")
        return False
    segments = dataset.segments()
    present = segments[-1].end_sample
    if extend is not None:
        if dataset.completion() is None:
            # An extension that was begun, or finished but for its last file: the same request goes on with it.
            if len(segments) > 1 and segments[-1].num_samples == extend:
                return False
            raise RequestError(f"{folder.address}: is not finished yet; run without --extend first")
        if present + extend > MAX_SAMPLES:
            raise RequestError(f"--extend {extend}: the dataset holds {present:,} samples; at most {MAX_SAMPLES:,} fit in one")
        return True
    if len(plan) > present:
        raise RequestError(
            f"{folder.address}: was begun with {present:,} samples, the recipe now asks for {len(plan):,}; "
            f"add the rest with --extend {len(plan) - present}"
        )
    if len(plan) < segments[0].num_samples:
        raise RequestError(
            f"{folder.address}: was begun with {segments[0].num_samples:,} samples, the recipe now asks for {len(plan):,}; "
            "a dataset does not shrink: use another folder, or --overwrite"
        )
    return False


def _adopt(dataset: DatasetFolder, plan: Plan, reporter: Reporter) -> int:
    """Seal every tar that lacks a seal; the number of them."""
    orphaned = dataset.state().orphaned
    for shard in orphaned:
        dataset.adopt(shard, plan.check)
        reporter.note(f"{shard.tar}: found without a seal, checked and sealed")
    return len(orphaned)


def _make_all(engine: Engine, heartbeat: Heartbeat, reporter: Reporter) -> int:
    """Make what is missing until nothing is; quarantine what fails too often; the number of shards adopted meanwhile."""
    dataset, counters = engine.dataset, engine.sampler.counters
    tries, failures, adopted = engine.plan.recipe.execution.tries, dict[int, int](), 0
    state = dataset.state()
    reporter.begin("generating", dataset.num_samples, sum(shard.num_samples for shard in state.sealed + state.quarantined))
    started, made = time.perf_counter(), 0

    def on_images(num: int) -> None:
        nonlocal made
        made += num
        reporter.advance(num)
        heartbeat.tell(images=made, rate=made / max(time.perf_counter() - started, 1e-9))

    before: list[Shard] = []
    while unfinished := dataset.state().unfinished:
        if unfinished == before:
            if not heartbeat.others():
                where = dataset.folder.where(unfinished[0].stem)
                raise WorkError(f"{where}: something that is no file of ours is in its place; remove it and run again")
            time.sleep(1)  # somebody else is at what is left
        before = unfinished
        # A tar without a seal now is of a writer that is just sealing it, or died: sealing it too does no harm.
        adopted += _adopt(dataset, engine.plan, reporter)
        for shard, outcome in engine.run(_claimed_last(unfinished, dataset, heartbeat, reporter), on_images):
            heartbeat.drop(shard.index)
            if isinstance(outcome, ShardFailed):
                before = []  # it is tried again
                failures[shard.index] = failures.get(shard.index, 0) + 1
                reporter.note(f"try {failures[shard.index]} of {tries}: {outcome}")
                has_success = counters.shards > 0 or bool(state.sealed)
                if not has_success and sum(failures.values()) >= max(3, tries):
                    # Not one shard could be made: that is the model or the machine, and quarantine would only hide it.
                    raise WorkError(f"no shard could be made, {sum(failures.values())} tries failed; the last: {outcome}")
                if failures[shard.index] >= tries:
                    dataset.quarantine(shard, str(outcome), tries)
    reporter.end()
    return adopted


def _claimed_last(shards: list[Shard], dataset: DatasetFolder, heartbeat: Heartbeat, reporter: Reporter) -> Iterator[Shard]:
    """Shards that still need making: first those that no live writer is at, then those whose writer takes too long.

    Making a shard twice costs time, never correctness: the first tar wins.
    """
    postponed, began = [], time.monotonic()
    for number, shard in enumerate(shards):
        if shard.index in heartbeat.claimed_by_others():
            postponed.append(shard)
        elif _is_still_missing(shard, dataset, reporter):
            heartbeat.claim(shard.index)
            yield shard
        usual = (time.monotonic() - began) / (number + 1)
    for shard in postponed:
        patience = time.monotonic() + 10 + 3 * usual
        while not _is_there(shard, dataset) and shard.index in heartbeat.claimed_by_others() and time.monotonic() < patience:
            time.sleep(0.5)
        if _is_still_missing(shard, dataset, reporter):
            heartbeat.claim(shard.index)
            yield shard


def _is_there(shard: Shard, dataset: DatasetFolder) -> bool:
    return dataset.folder.exists(shard.seal) or dataset.folder.exists(shard.tar)


def _is_still_missing(shard: Shard, dataset: DatasetFolder, reporter: Reporter) -> bool:
    if _is_there(shard, dataset):
        reporter.advance(shard.num_samples)  # another process made it
        return False
    return True


def _write_log(log: Folder, engine: Engine, seconds: float) -> None:
    """Telemetry of one run: outside every digest."""
    import diffusers
    import torch

    counters = engine.sampler.counters
    device = engine.sampler.generator.device
    log.replace(
        f"run-{writer_name()}-{secrets.token_hex(4)}.json",
        canonical_json(
            {
                "seconds": round(seconds, 3),
                "device": torch.cuda.get_device_name(device)
                if device.type == "cuda"
                else f"{device.type}, {torch.get_num_threads()} threads",
                "batch": engine.sampler.batch,
                "counters": asdict(counters),
                "versions": {
                    "synthforge": version("synthforge"),
                    "python": platform.python_version(),
                    "torch": torch.__version__,
                    "diffusers": diffusers.__version__,
                    "numpy": np.__version__,
                },
            }
        ),
    )


def _finish(dataset: DatasetFolder, plan: Plan, counters: Counters, adopted: int, seconds: float) -> GenerateResult:
    """Write complete.json and the contact sheet if the dataset is whole, and sum up."""
    completion = dataset.complete()
    state = dataset.state()
    samples = completion.samples if completion is not None else sum(seal.samples for seal in dataset.seals(state.sealed))
    return GenerateResult(
        folder=dataset.folder.address,
        is_complete=completion is not None,
        samples=samples,
        left_out=completion.missing if completion is not None else counters.left_out,
        shards=len(state.sealed),
        bytes=state.num_bytes,
        digest=completion.digest if completion is not None else None,
        made=counters.images,
        adopted=adopted,
        seconds=round(seconds, 3),
        images_per_second=round(counters.images / seconds, 1) if seconds else 0.0,
        rejected=counters.rejected,
        padding=counters.padding,
        halvings=counters.halvings,
        quarantined=dict(completion.quarantined) if completion is not None else {},
        per_class=plan.counts(dataset.num_samples),
        contact_sheet=_sheet_of_dataset(dataset, plan.recipe) if samples else None,
    )


SHEET_COLUMNS, SHEET_ROWS = 12, 40
CONTACT_SHEET = "contact-sheet.png"


def _sheet_of_dataset(dataset: DatasetFolder, recipe: Recipe) -> str | None:
    """A contact sheet of the first shard's images, beside the pool on a local disk; None elsewhere or if it can't be written."""
    if dataset.folder.path is None:
        return None
    first = dataset.state().sealed[0]
    rows: dict[str, list[Any]] = {name: [] for name in dataset.manifest.classes[:SHEET_ROWS]}
    for row in dataset.table(first).select(["class", "image_offset", "image_size"]).to_pylist():
        images = rows.get(row["class"])
        if images is not None and len(images) < SHEET_COLUMNS:
            images.append(decode(dataset.folder.read_range(first.tar, row["image_offset"], row["image_size"])))
    path = dataset.folder.path.parent / CONTACT_SHEET
    sheet = contact_sheet(rows, title=f"{recipe.name}: synthetic")
    try:
        path.write_bytes(encode(sheet, "png", 100, recipe.output.marking))
    except OSError:
        return None  # the dataset is whole; a picture beside it is a courtesy
    return str(path)
