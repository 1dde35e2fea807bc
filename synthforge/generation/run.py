"""`generate`: make a recipe's images and write them as sealed shards, resuming wherever an earlier run stopped."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from synthforge.config import to_record
from synthforge.data.folder import DatasetFolder, differences, remove_dataset
from synthforge.data.heartbeats import Heartbeat
from synthforge.data.images import contact_sheet, decode, encode
from synthforge.data.layout import LOG, MANIFEST, RECIPE_LOG, Completion, Shard
from synthforge.data.sidefiles import write_side_files
from synthforge.data.storage import Folder
from synthforge.errors import RequestError, WorkError
from synthforge.executors.array import ArrayPart
from synthforge.executors.protocol import Executor, Failed, Finished, Terms
from synthforge.generation.plan import Plan
from synthforge.generation.prompts import PromptReport, look_at
from synthforge.progress import Counters, Reporter
from synthforge.recipe.recipe import MAX_SAMPLES, Recipe

if TYPE_CHECKING:
    from synthforge.generation.work import ShardWork


@dataclass(frozen=True)
class GenerateResult:
    """The outcome of `generate`: the state of the dataset, and the work of this run."""

    folder: str
    is_complete: bool
    """Every shard is sealed or quarantined."""
    samples: int
    """Samples in the whole dataset."""
    left_out: int
    """Samples whose every attempt was rejected: of the whole dataset once it is complete, of this run until then."""
    shards: int
    bytes: int
    digest: str | None
    """SHA-256 over the seals, once complete."""
    made: int
    """Images that this run made."""
    adopted: int
    """Tars that an earlier run left without a seal and this run checked and sealed."""
    seconds: float
    """Time of making images, without loading the model."""
    images_per_second: float
    rejected: dict[str, int]
    """Reason to number of images that were rejected and made again."""
    padding: int
    """Images made only to fill batches."""
    halvings: int
    """How often the batch was halved because memory ran out."""
    quarantined: dict[str, str]
    """Shards of this run's part that were given up, with the reason of each."""
    per_class: dict[str, int]
    """Samples of each class: those that exist once the dataset is complete, those requested until then."""
    part: str | None
    """This run's part of the dataset, as NUMBER/COUNT; None: the whole."""
    contact_sheet: str | None
    """File with some images of each class; None if none was drawn."""
    prompts: PromptReport
    """Whether some prompts are cut, or have no effect."""


def generate(
    recipe: Recipe,
    reporter: Reporter | None = None,
    *,
    extend: int | None = None,
    overwrite: bool = False,
    retry_quarantined: bool = False,
    part: ArrayPart | None = None,
) -> GenerateResult:
    """Make the recipe's images and write them as sealed shards. An interrupted run is resumed.

    Args:
        extend: append this many samples to a finished run, or resume an interrupted extension of this size.
        overwrite: remove the folder's content first; refused while another process writes there.
        retry_quarantined: try shards again that were given up.
        part: make only these shards; other processes, anywhere and at any time, make the others.
    Raises: RequestError and its children before anything is changed; WorkError and its children once work has begun.
    """
    reporter = reporter or Reporter()
    if part is not None and (overwrite or extend is not None):
        raise RequestError(f"--part {part}: can't be combined with --overwrite or --extend; use these without --part")
    plan = Plan.of(recipe)
    prompts = look_at(plan)
    folder = Folder(recipe.pool_path, recipe.output.single_writer)
    with folder.without_traces():
        folder.require_writable()
        folder.sweep()
        # Announced before anything is decided, so that nobody clears the folder while the model is loading.
        with Heartbeat(folder) as heartbeat:
            return _generate(plan, prompts, folder, heartbeat, reporter, extend, part, overwrite=overwrite, retry=retry_quarantined)


def _generate(
    plan: Plan,
    prompts: PromptReport,
    folder: Folder,
    heartbeat: Heartbeat,
    reporter: Reporter,
    extend: int | None,
    part: ArrayPart | None,
    *,
    overwrite: bool,
    retry: bool,
) -> GenerateResult:
    recipe, others = plan.recipe, heartbeat.others()
    if overwrite and others:
        raise RequestError(f"{folder.address}: {others[0].writer} is writing there; stop it before --overwrite")
    dataset = None if overwrite else _reopened(folder, plan)
    num_appended = _num_to_append(dataset, plan, folder, extend)
    num_shards = math.ceil((num_appended or len(plan)) / recipe.output.samples_per_shard / (part.of if part is not None else 1))
    adopted = 0
    if dataset is not None and not num_appended:
        adopted = _adopt(dataset, plan, reporter)
        num_shards = _num_due(dataset, part, retry, reporter)
        if not num_shards:
            return _finish(dataset, plan, prompts, Counters(), adopted=adopted, seconds=0.0, part=part)
    if dataset is None or recipe.prompts.overlong == "error":
        prompts.refuse()  # a dataset that an earlier version began can be completed
    for note in (*prompts.notes, *prompts.problems):
        reporter.note(note)
    work = _work(dataset, plan, num_appended)
    reporter.note(f"loading {recipe.generator.model}")
    with _executor(work, num_shards, reporter) as executor:
        identity = executor.open()
        # Nothing was changed so far; from here on the request is known to be possible.
        if overwrite:
            remove_dataset(folder)
        dataset = DatasetFolder.create(folder, plan.manifest(identity))
        if changes := differences(dataset.manifest.generator or {}, identity):
            reporter.note(f"the existing shards were made with other settings: {'; '.join(changes)}; pixels may differ")
        if num_appended:
            dataset.extend(num_appended, recipe.output.samples_per_shard)
        for shard in _own(dataset.state().quarantined, part) if retry else []:
            dataset.release(shard)
        if others:
            reporter.note(f"{len(others)} other process(es) work on this folder; sharing the shards that are left")
        folder.within(LOG).replace(RECIPE_LOG, to_record(recipe))  # not sorted: the order of classes matters
        run = _Generating(dataset, plan, part, heartbeat, reporter)
        seconds = run.make_all(executor)
    return _finish(dataset, plan, prompts, run.counters, adopted=adopted + run.adopted, seconds=seconds, part=part)


def _num_due(dataset: DatasetFolder, part: ArrayPart | None, retry_quarantined: bool, reporter: Reporter) -> int:
    """Shards to make or to try again in this part; says so if there are none."""
    state = dataset.state()
    num_due = len(_own(state.missing + (state.quarantined if retry_quarantined else []), part))
    if not num_due:
        num_given_up = len(state.quarantined)
        reporter.note("nothing to do: " + (f"{num_given_up} shard(s) are quarantined" if num_given_up else "every shard is sealed"))
    return num_due


def _work(dataset: DatasetFolder | None, plan: Plan, num_appended: int) -> ShardWork:
    """Work for the executor, with the precision that an existing dataset was begun in."""
    from synthforge.generation.work import ShardWork

    present, generator = (dataset.num_samples, dataset.manifest.generator) if dataset is not None else (len(plan), None)
    return ShardWork(plan.recipe, plan.digests, present + num_appended, (generator or {}).get("dtype"))


def _executor(work: ShardWork, num_shards: int, reporter: Reporter) -> Executor[Shard, Counters]:
    """One worker in this process, or several in processes of their own."""
    from synthforge.executors.inline import InlineExecutor
    from synthforge.executors.local import LocalExecutor
    from synthforge.generation.work import default_workers

    execution = work.recipe.execution
    workers = min(execution.workers or default_workers(execution.device), num_shards)
    if workers <= 1:
        return InlineExecutor(work)
    reporter.note(f"starting {workers} workers")
    return LocalExecutor(work, workers, deadline_seconds=execution.deadline_seconds, note=reporter.note)


def _own(shards: list[Shard], part: ArrayPart | None) -> list[Shard]:
    return [shard for shard in shards if part is None or part.has(shard.index)]


def _reopened(folder: Folder, plan: Plan) -> DatasetFolder | None:
    """The folder's dataset, if this plan made it; None if there is none. Raises RequestError otherwise."""
    if not folder.exists(MANIFEST):
        if strangers := [name for name in folder.list() if name.startswith("train-")]:
            raise RequestError(
                f"{folder.address}: holds {strangers[0]} but no {MANIFEST}, so it is no dataset; use another folder, or --overwrite"
            )
        return None
    existing = DatasetFolder.open(folder.address, folder.single_writer)
    existing.require_same_plan(plan.digest, plan.identity)
    return existing


def _num_to_append(dataset: DatasetFolder | None, plan: Plan, folder: Folder, extend: int | None) -> int:
    """Samples to append in a new segment, 0 for none; raises RequestError if the request doesn't fit the dataset."""
    if extend is not None and not 1 <= extend <= MAX_SAMPLES:
        raise RequestError(f"--extend {extend}: give a number of samples to add, from 1 to {MAX_SAMPLES:,}")
    if dataset is None:
        if extend is not None:
            raise RequestError(f"{folder.address}: nothing there to extend; run without --extend first")
        return 0
    segments = dataset.segments()
    present = segments[-1].end_sample
    if extend is not None:
        if dataset.completion() is None:
            # An extension that was begun, or lacks only its last file, is resumed by the same request.
            if len(segments) > 1 and segments[-1].num_samples == extend:
                return 0
            raise RequestError(f"{folder.address}: is not finished yet; run without --extend first")
        if present + extend > MAX_SAMPLES:
            raise RequestError(f"--extend {extend}: the dataset holds {present:,} samples; at most {MAX_SAMPLES:,} fit in one")
        return extend
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
    return 0


def _adopt(dataset: DatasetFolder, plan: Plan, reporter: Reporter) -> int:
    """Seal every tar that lacks a seal; returns how many."""
    orphaned = dataset.state().orphaned
    for shard in orphaned:
        dataset.adopt(shard, plan.check)
        reporter.note(f"{shard.tar}: found without a seal, checked and sealed")
    return len(orphaned)


@dataclass
class _Generating:
    """One run's share of the work: its shards, their order, and their outcomes."""

    dataset: DatasetFolder
    plan: Plan
    part: ArrayPart | None
    heartbeat: Heartbeat
    reporter: Reporter
    counters: Counters = field(default_factory=Counters)
    adopted: int = 0
    _failed: list[Failed[Shard]] = field(default_factory=list)
    """Shards that failed before any succeeded."""
    _num_failed_tries: int = 0
    _have_failed: set[int] = field(default_factory=set)
    _has_success: bool = False
    _made: int = 0
    _started: float = field(default_factory=time.perf_counter)

    def make_all(self, executor: Executor[Shard, Counters]) -> float:
        """Make all missing shards, and quarantine those that fail too often; returns the seconds this took."""
        try:
            self._make_all(executor)
        except RequestError as error:
            raise WorkError(str(error)) from error  # a RequestError would say that nothing was started
        self.dataset.folder.sweep()  # temporary files of workers that died
        return time.perf_counter() - self._started

    def _make_all(self, executor: Executor[Shard, Counters]) -> None:
        state = self.dataset.state()
        self._has_success = bool(state.sealed)
        done = _own(state.sealed + state.quarantined, self.part)
        total = sum(shard.num_samples for shard in _own([*self.dataset.shards()], self.part))
        self.reporter.begin("generating", total, sum(shard.num_samples for shard in done))
        terms = Terms(self.plan.recipe.execution.tries, lambda shard: shard.num_samples, self._on_progress, self._on_try_failed)
        for outcome in executor.run(self._feed(), terms):
            self.heartbeat.drop(outcome.unit.index)
            if isinstance(outcome, Finished):
                self.counters = self.counters + outcome.receipt
                self._has_success = True
            else:
                self._failed.append(outcome)
            while self._has_success and self._failed:
                failed = self._failed.pop(0)
                self.dataset.quarantine(failed.unit, failed.reason, failed.tries)
        # Only now: earlier, a tar without a seal may be one that this run is about to seal. Now it is another writer's,
        # which is sealing it or died. Sealing it twice does no harm.
        self.adopted += _adopt(self.dataset, self.plan, self.reporter)
        self.reporter.end()
        if self._failed:
            raise self._nothing_works(self._failed[-1].reason)
        if left := _own(self.dataset.state().unfinished, self.part):
            where = self.dataset.folder.where(left[0].stem)
            raise WorkError(f"{where}: an unknown file is in its place; remove it and run again")

    def _on_progress(self, num: int) -> None:
        self._made += num
        self.reporter.advance(num)
        self.heartbeat.tell(images=self._made, rate=self._made / max(time.perf_counter() - self._started, 1e-9))

    def _on_try_failed(self, shard: Shard, reason: str, number: int) -> None:
        tries = self.plan.recipe.execution.tries
        self._num_failed_tries += 1
        self.reporter.note(f"try {number} of {tries}: {reason if shard.stem in reason else f'{shard.stem}: {reason}'}")
        self._have_failed.add(shard.index)
        if not self._has_success and len(self._have_failed) >= 3:
            raise self._nothing_works(reason)

    def _nothing_works(self, reason: str) -> WorkError:
        """The error if no shard could be made. The model or the machine is at fault, so none is quarantined."""
        return WorkError(f"no shard could be made, {self._num_failed_tries} tries failed; the last: {reason}")

    def _feed(self) -> Iterator[Shard | None]:
        """Shards to make: first those that no live writer is making, then those whose writer takes too long.

        Yields None for "wait". Making a shard twice costs time but is never wrong: the first tar wins.
        """
        postponed, began = [], time.monotonic()
        unfinished = _own(self.dataset.state().unfinished, self.part)
        for shard in unfinished:
            if shard.index in self.heartbeat.claimed_by_others():
                postponed.append(shard)
            elif not self._count_if_done(shard):
                self.heartbeat.claim(shard.index)
                yield shard
        usual = (time.monotonic() - began) / max(len(unfinished), 1)
        for shard in postponed:
            patience = time.monotonic() + 10 + 3 * usual
            while not (is_done := self._count_if_done(shard)) and time.monotonic() < patience:
                if shard.index not in self.heartbeat.claimed_by_others():
                    break
                yield None
            if not is_done:
                self.heartbeat.claim(shard.index)
                yield shard

    def _count_if_done(self, shard: Shard) -> bool:
        """Advance progress by a shard if another process has made it in the meantime; returns whether it has."""
        is_done = self.dataset.folder.exists(shard.seal) or self.dataset.folder.exists(shard.tar)
        if is_done:
            self.reporter.advance(shard.num_samples)
        return is_done


def _finish(
    dataset: DatasetFolder, plan: Plan, prompts: PromptReport, counters: Counters, *, adopted: int, seconds: float, part: ArrayPart | None
) -> GenerateResult:
    """If the dataset is complete, write complete.json, side files and contact sheet. Returns the summary."""
    output = plan.recipe.output

    def side_files(completion: Completion, is_new: bool) -> None:
        write_side_files(dataset, completion, name=plan.recipe.name, licence=output.licence, tags=output.tags, only_missing=not is_new)

    completion = dataset.complete(plan.counts_without, side_files)
    state = dataset.state()
    samples = completion.samples if completion is not None else sum(seal.samples for seal in dataset.seals(state.sealed))
    return GenerateResult(
        folder=dataset.folder.address,
        is_complete=completion is not None,
        samples=samples,
        left_out=completion.left_out if completion is not None else counters.left_out,
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
        quarantined={shard.stem: dataset.quarantine_reason(shard) for shard in _own(state.quarantined, part)},
        per_class=completion.class_samples if completion is not None else plan.counts(dataset.num_samples),
        part=str(part) if part is not None else None,
        contact_sheet=_sheet_of_dataset(dataset, plan.recipe) if completion is not None and samples else None,
        prompts=prompts,
    )


SHEET_COLUMNS, SHEET_ROWS = 12, 40
CONTACT_SHEET = "contact-sheet.png"


def _sheet_of_dataset(dataset: DatasetFolder, recipe: Recipe) -> str | None:
    """A contact sheet of the first shard, beside the pool on a local disk; None elsewhere, or if writing fails."""
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
        return None  # the dataset is complete without it
    return str(path)
