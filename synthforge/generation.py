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

from synthforge.errors import DatasetError, RequestError
from synthforge.images import contact_sheet, decode, encode
from synthforge.plan import Plan
from synthforge.progress import Reporter
from synthforge.recipe import Recipe
from synthforge.shards.folder import DatasetFolder
from synthforge.shards.layout import LOG, MANIFEST, RECIPE_LOG, Shard, canonical_json
from synthforge.shards.writers import Heartbeat, live_writers
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
    Raises: RequestError and its children before anything is started; StorageFailed when storage gives way.
    """
    reporter = reporter or Reporter()
    if extend is not None and not 1 <= extend <= 10**9:
        raise RequestError(f"--extend {extend}: give a number of samples to add, 1 or more")
    plan = Plan.of(recipe)
    folder = Folder(recipe.pool_path, recipe.output.single_writer)
    folder.require_writable()
    folder.sweep()
    if overwrite:
        _clear(folder)

    dataset = _reopened(folder, plan)
    if dataset is not None:
        _settle_length(dataset, plan, extend, reporter)
        if retry_quarantined:
            for shard in dataset.state().quarantined:
                dataset.release(shard)
        if not dataset.state().unfinished:
            reporter.note("nothing to do: every shard is sealed")
            return _result(dataset, plan, None, 0, 0.0)
    elif extend is not None:
        raise RequestError(f"{folder.address}: nothing there to extend; run without --extend first")

    from synthforge.engine import Engine, Sampler, load_generator

    reporter.note(f"loading {recipe.generator.model}")
    generator = load_generator(recipe, plan)
    if dataset is None:
        dataset = DatasetFolder.create(folder, plan.manifest(generator.identity()))
    engine = Engine(Sampler(generator, plan, recipe.execution.batch), dataset, recipe.execution.encoders)
    log = folder.within(LOG)
    log.replace(RECIPE_LOG, canonical_json(recipe.model_dump(mode="json")))
    started = time.perf_counter()
    with Heartbeat(folder) as heartbeat:
        others = heartbeat.others()
        if others:
            reporter.note(f"{len(others)} other process(es) work on this folder; sharing the shards that are left")
        adopted = _make_all(engine, heartbeat, reporter)
    seconds = time.perf_counter() - started
    _write_log(log, engine, seconds)
    completion = dataset.complete()
    sheet = _sheet_of_dataset(dataset, recipe.name) if completion is not None and completion.samples else None
    return _result(dataset, plan, engine, adopted, seconds, sheet)


def _clear(folder: Folder) -> None:
    writers = live_writers(folder.within(LOG))
    if writers:
        raise RequestError(f"{folder.address}: {writers[0].writer} is writing there; stop it before --overwrite")
    try:
        DatasetFolder.open(folder.address).remove_all()
    except DatasetError:
        # Nothing there, or a damaged manifest: what is named like a dataset's files goes all the same.
        if folder.exists(MANIFEST):
            for name in sorted(folder.list(), key=lambda name: not name.endswith(".json")):
                if name.startswith(("train-", "extension-")) or name in {MANIFEST, "complete.json"}:
                    folder.remove(name)


def _reopened(folder: Folder, plan: Plan) -> DatasetFolder | None:
    """The dataset that is there, if it is this plan's; None if there is none."""
    if not folder.exists(MANIFEST):
        if strangers := [name for name in folder.list() if name.startswith("train-")]:
            raise RequestError(
                f"{folder.address}: holds {strangers[0]} but no {MANIFEST}, so it is no dataset of ours; choose another folder"
            )
        return None
    existing = DatasetFolder.open(folder.address)
    existing.folder.single_writer = folder.single_writer
    # create() compares the plans and says what changed; the generator's identity is the one recorded then.
    return DatasetFolder.create(existing.folder, plan.manifest(existing.manifest.generator or {}))


def _settle_length(dataset: DatasetFolder, plan: Plan, extend: int | None, reporter: Reporter) -> None:
    """Extend if asked to, and say so if the recipe's count differs from what the folder holds."""
    segments = dataset.segments()
    unfinished = dataset.state().unfinished
    if extend is not None:
        if unfinished and len(segments) > 1 and segments[-1].num_samples == extend:
            reporter.note(f"going on with the extension by {extend:,} samples that was begun")
        elif unfinished:
            raise RequestError(f"{dataset.folder.address}: {len(unfinished)} shard(s) are not made yet; run without --extend first")
        else:
            dataset.extend(extend, plan.recipe.output.samples_per_shard)
    elif len(plan) > dataset.num_samples:
        raise RequestError(
            f"{dataset.folder.address}: was begun with {dataset.num_samples:,} samples, the recipe now asks for {len(plan):,}; "
            f"add the rest with --extend {len(plan) - dataset.num_samples}"
        )
    elif len(plan) < segments[0].num_samples:
        raise RequestError(
            f"{dataset.folder.address}: was begun with {segments[0].num_samples:,} samples, the recipe now asks for {len(plan):,}; "
            "a dataset does not shrink: use another folder, or --overwrite"
        )


def _make_all(engine: Engine, heartbeat: Heartbeat, reporter: Reporter) -> int:
    """Adopt what lacks a seal, make what is missing, quarantine what fails too often; the number of shards adopted."""
    dataset = engine.dataset
    state = dataset.state()
    for shard in state.orphaned:
        dataset.adopt(shard, engine.plan.check)
        reporter.note(f"{shard.tar}: found without a seal, checked and sealed")
    done = sum(shard.num_samples for shard in state.sealed + state.orphaned)
    reporter.begin("generating", dataset.num_samples, done)
    started = time.perf_counter()

    def on_images(num: int) -> None:
        reporter.advance(num)
        seconds = time.perf_counter() - started
        heartbeat.tell(images=engine.counters.images, rate=engine.counters.images / max(seconds, 1e-9))

    todo, tries = state.missing, engine.plan.recipe.execution.tries
    for turn in range(1, tries + 1):
        failed: list[tuple[Shard, str]] = []
        for shard, outcome in engine.run(_claimed_last(todo, dataset, heartbeat, reporter), on_images):
            if isinstance(outcome, Exception):
                failed.append((shard, str(outcome)))
                reporter.note(f"try {turn} of {tries}: {outcome}")
        todo = [shard for shard, _ in failed]
        if not todo:
            break
    for shard, reason in failed:
        dataset.quarantine(shard, reason, tries)
    reporter.end()
    return len(state.orphaned)


def _claimed_last(shards: list[Shard], dataset: DatasetFolder, heartbeat: Heartbeat, reporter: Reporter) -> Iterator[Shard]:
    """Shards that still need making: first those that no live writer is at, then those too, in case its writer is stuck.

    Making a shard twice costs time, never correctness: the first tar wins.
    """
    postponed = []
    for shard in shards:
        if shard.index in {beat.shard for beat in heartbeat.others()}:
            postponed.append(shard)
        elif _is_still_missing(shard, dataset, reporter):
            heartbeat.tell(shard=shard.index)
            yield shard
    for shard in postponed:
        if _is_still_missing(shard, dataset, reporter):
            heartbeat.tell(shard=shard.index)
            yield shard


def _is_still_missing(shard: Shard, dataset: DatasetFolder, reporter: Reporter) -> bool:
    if dataset.folder.exists(shard.seal) or dataset.folder.exists(shard.tar):
        reporter.advance(shard.num_samples)  # another process made it
        return False
    return True


def _write_log(log: Folder, engine: Engine, seconds: float) -> None:
    """Telemetry of one run: outside every digest."""
    import diffusers
    import torch

    counters = engine.counters
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


def _result(
    dataset: DatasetFolder, plan: Plan, engine: Engine | None, adopted: int, seconds: float, sheet: str | None = None
) -> GenerateResult:
    from synthforge.engine import Counters

    counters = engine.counters if engine is not None else Counters()
    completion = dataset.completion() or dataset.complete()
    state = dataset.state()
    return GenerateResult(
        folder=dataset.folder.address,
        is_complete=completion is not None,
        samples=completion.samples if completion is not None else sum(dataset.seal(shard).samples for shard in state.sealed),
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
        contact_sheet=sheet,
    )


SHEET_COLUMNS = 12
CONTACT_SHEET = "contact-sheet.png"


def _sheet_of_dataset(dataset: DatasetFolder, name: str) -> str | None:
    """A contact sheet of the first shard's images, beside the shards' folder on a local disk."""
    if dataset.folder.path is None:
        return None
    rows: dict[str, list[Any]] = {name: [] for name in dataset.manifest.classes[:40]}
    first = next((shard for shard in dataset.state().sealed), None)
    if first is None:
        return None
    for row in dataset.table(first).select(["key", "class", "image_offset", "image_size"]).to_pylist():
        images = rows.get(row["class"])
        if images is not None and len(images) < SHEET_COLUMNS:
            images.append(decode(dataset.folder.read_range(first.tar, row["image_offset"], row["image_size"])))
    path = dataset.folder.path.parent / CONTACT_SHEET
    path.write_bytes(encode(contact_sheet(rows, title=f"{name}: synthetic"), "png", 100, marking=True))
    return str(path)
