"""Check a dataset folder without changing it: compare shards with their seals, and report progress."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from synthforge.data.folder import DatasetFolder
from synthforge.data.heartbeats import Beat, live_writers
from synthforge.data.layout import COMPLETE, LOG, Seal, Shard
from synthforge.data.storage import sha256_of
from synthforge.data.tars import index_tar
from synthforge.errors import DatasetError, StorageFailed


@dataclass(frozen=True)
class Audit:
    """The result of `verify`."""

    shards: int
    """Number of sealed shards."""
    samples: int
    bytes: int
    """Size of the tars that are intact."""
    problems: list[str] = field(default_factory=list)
    """One line each. Empty: every byte is what was sealed."""
    notes: list[str] = field(default_factory=list)
    """Other remarks: shards that are missing or quarantined, files that are no part of the dataset."""


def verify(dataset: DatasetFolder, on_shard: Callable[[int, int], None] = lambda done, total: None) -> Audit:
    """Read every shard and compare it with its seal, and the totals with complete.json.

    Args:
        on_shard: called after each shard with the number of checked shards and of all.
    """
    state = dataset.state()
    problems: list[str] = []
    intact: list[Seal] = []
    for done, shard in enumerate(state.sealed):
        try:
            intact.append(_verify_shard(dataset, shard))
        except (DatasetError, StorageFailed) as error:
            problems.append(str(error))
        except FileNotFoundError:
            problems.append(f"{dataset.folder.where(shard.stem)}: sealed, but its tar or table is gone; remove its seal and run again")
        on_shard(done + 1, len(state.sealed))
    notes = [
        f"{len(shards)} shard(s) {what}, first {shards[0].stem}"
        for shards, what in ((state.missing, "not made yet"), (state.orphaned, "without a seal; run again and they are adopted"))
        if shards
    ]
    notes += [f"{shard.stem} is quarantined: {dataset.quarantine_reason(shard)}" for shard in state.quarantined]
    completion = dataset.completion()
    if completion is None and not state.unfinished:
        notes.append(f"{COMPLETE} is missing or from before an extension; run again and it is written")
    if completion is not None and not problems and completion.digest != dataset.digest():
        problems.append(f"{dataset.folder.where(COMPLETE)}: does not match the seals; remove it and run again")
    owned = {shard.stem for shard in dataset.shards()}
    if strays := sorted(name for name in dataset.folder.list() if name.startswith("train-") and name.split(".")[0] not in owned):
        notes.append(f"{len(strays)} file(s) that belong to no shard, such as {strays[0]}")
    samples, size = sum(seal.samples for seal in intact), sum(seal.bytes for seal in intact)
    return Audit(len(state.sealed), samples, size, problems, notes)


def _verify_shard(dataset: DatasetFolder, shard: Shard) -> Seal:
    seal = dataset.seal(shard)
    dataset.table(shard)  # checks its digest
    with dataset.folder.fetched(shard.tar) as tar:
        where = dataset.folder.where(shard.tar)
        if (size := tar.stat().st_size) != seal.bytes:
            raise DatasetError(f"{where}: has {size:,} bytes, but {seal.bytes:,} were sealed; remove the shard's files and run again")
        if sha256_of(tar) != seal.tar_sha256:
            index_tar(tar, where)  # raises an error that says more if the tar is torn
            raise DatasetError(f"{where}: its bytes are not those that were sealed; remove the shard's files and run again")
    return seal


@dataclass(frozen=True)
class Status:
    """The progress of a dataset."""

    samples_asked: int
    """Number of samples in the whole dataset."""
    samples_done: int
    """Number of samples in finished shards."""
    samples_missing: int
    """Number of samples that finished shards leave out, because every attempt was rejected."""
    shards_asked: int
    shards_done: int
    shards_quarantined: dict[str, str]
    """Reason for each shard that was given up, by the stem of its files."""
    bytes: int
    """Size of all files of shards."""
    is_complete: bool
    writers: list[Beat]
    """Last heartbeat of each live writer."""
    images_per_second: float
    """Rate of all live writers together. 0: nobody writes."""
    seconds_left: float | None
    """Time left at this rate. None: nobody writes."""


def status(dataset: DatasetFolder) -> Status:
    """Count what is sealed, and take the rate from the writers' heartbeats."""
    state = dataset.state()
    seals = dataset.seals(state.sealed)
    writers = live_writers(dataset.folder.within(LOG))
    rate = sum(beat.images_per_second for beat in writers)
    remaining = sum(shard.num_samples for shard in state.missing)
    return Status(
        samples_asked=dataset.num_samples,
        samples_done=sum(seal.samples for seal in seals),
        samples_missing=sum(len(seal.left_out) for seal in seals),
        shards_asked=len(state.sealed) + len(state.unfinished) + len(state.quarantined),
        shards_done=len(state.sealed),
        shards_quarantined={shard.stem: dataset.quarantine_reason(shard) for shard in state.quarantined},
        bytes=state.num_bytes,
        is_complete=dataset.completion() is not None and not state.unfinished,
        writers=writers,
        images_per_second=rate,
        seconds_left=remaining / rate if rate else None,
    )
