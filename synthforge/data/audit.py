"""Look at a dataset folder without changing it: is every shard what its seal says, and how far is the work?"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import COMPLETE, LOG, Shard
from synthforge.data.storage import sha256_of
from synthforge.data.tars import index_tar
from synthforge.data.writers import Beat, live_writers
from synthforge.errors import DatasetError, StorageFailed


@dataclass(frozen=True)
class Audit:
    """What `verify` found."""

    shards: int
    """Sealed shards looked at."""
    samples: int
    bytes: int
    problems: list[str] = field(default_factory=list)
    """One line each; empty means that every byte is what was sealed."""
    notes: list[str] = field(default_factory=list)
    """Not wrong, but worth knowing: shards missing or quarantined, files of others."""


def verify(dataset: DatasetFolder, on_shard: Callable[[int, int], None] = lambda done, total: None) -> Audit:
    """Read every shard whole and compare it with its seal, and the totals with complete.json."""
    state = dataset.state()
    problems: list[str] = []
    samples = num_bytes = 0
    for done, shard in enumerate(state.sealed):
        try:
            found_samples, found_bytes = _verify_shard(dataset, shard)
            samples += found_samples
            num_bytes += found_bytes
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
    if strays := _strays(dataset):
        notes.append(f"{len(strays)} file(s) that no shard owns, such as {strays[0]}")
    return Audit(len(state.sealed), samples, num_bytes, problems, notes)


def _verify_shard(dataset: DatasetFolder, shard: Shard) -> tuple[int, int]:
    seal = dataset.seal(shard)
    dataset.table(shard)  # checks its digest
    with dataset.folder.fetched(shard.tar) as tar:
        where = dataset.folder.where(shard.tar)
        size = tar.stat().st_size
        if size != seal.bytes:
            raise DatasetError(f"{where}: has {size:,} bytes, sealed were {seal.bytes:,}; remove the shard's files and run again")
        if sha256_of(tar) != seal.tar_sha256:
            index_tar(tar, where)  # says where it is torn, if it is
            raise DatasetError(f"{where}: its bytes are not those that were sealed; remove the shard's files and run again")
    return seal.samples, seal.bytes


def _strays(dataset: DatasetFolder) -> list[str]:
    owned = {shard.stem for shard in dataset.shards()}
    names = dataset.folder.list()
    return sorted(name for name in names if re.match(r"train-", name) and name.split(".")[0] not in owned)


@dataclass(frozen=True)
class Status:
    """How far a dataset is."""

    samples_asked: int
    samples_done: int
    samples_missing: int
    """Left out of finished shards because every attempt was rejected."""
    shards_asked: int
    shards_done: int
    shards_quarantined: dict[str, str]
    """Stem to reason."""
    bytes: int
    is_complete: bool
    writers: list[Beat]
    images_per_second: float
    """Of all live writers together; 0 if nobody writes."""
    seconds_left: float | None
    """None if nobody writes."""


def status(dataset: DatasetFolder) -> Status:
    """Count what is sealed, and ask the writers' heartbeats for their rate."""
    state = dataset.state()
    seals = dataset.seals(state.sealed)
    writers = live_writers(dataset.folder.within(LOG))
    rate = sum(beat.images_per_second for beat in writers)
    remaining = sum(shard.num_samples for shard in state.missing)
    return Status(
        samples_asked=dataset.num_samples,
        samples_done=sum(seal.samples for seal in seals),
        samples_missing=sum(len(seal.missing) for seal in seals),
        shards_asked=len(state.sealed) + len(state.unfinished) + len(state.quarantined),
        shards_done=len(state.sealed),
        shards_quarantined={shard.stem: dataset.quarantine_reason(shard) for shard in state.quarantined},
        bytes=state.num_bytes,
        is_complete=dataset.completion() is not None and not state.unfinished,
        writers=writers,
        images_per_second=rate,
        seconds_left=remaining / rate if rate else None,
    )
