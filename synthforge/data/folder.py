"""The dataset folder: create or reopen it, commit shards, extend it, complete it, read a sample.

The commit protocol publishes tar, table and seal in this order, each whole and create-only.
The first tar wins. A tar without a seal is checked and adopted, since table and seal follow from the tar.
So any number of writers may work on one folder.
A kill at any moment leaves a folder that the next run completes to the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from synthforge.data import layout
from synthforge.data.storage import Folder, resolve, sha256_of
from synthforge.data.tars import FAILURES_SCHEMA, MEMBERS, index_tar, table_bytes
from synthforge.errors import DatasetError, PlaceError, RequestError, StorageFailed

Check = Callable[[layout.Shard, pa.Table], None]
"""Raises DatasetError if the rows of a tar are not what the plan says they should be."""


@dataclass(frozen=True)
class State:
    """The shards of a folder by state, from one listing. Each shard is in exactly one of the four lists."""

    sealed: list[layout.Shard]
    orphaned: list[layout.Shard]
    """Shards with a tar and no seal, to be adopted."""
    quarantined: list[layout.Shard]
    """Shards that were given up."""
    missing: list[layout.Shard]
    """Shards that are not made yet."""
    num_bytes: int
    """Size of all files of shards."""

    @property
    def unfinished(self) -> list[layout.Shard]:
        """The shards that a run has to make or adopt, in order."""
        return sorted(self.orphaned + self.missing, key=lambda shard: shard.index)


class DatasetFolder:
    """A folder of shards that synthforge wrote. `open` needs an existing one; `create` begins or reopens one."""

    def __init__(self, folder: Folder, manifest: layout.Manifest) -> None:
        self.folder = folder
        self.manifest = manifest

    @classmethod
    def open(cls, address: str, single_writer: bool = False) -> DatasetFolder:
        """Open an existing dataset folder; raises DatasetError if there is none."""
        folder = Folder(resolve(address), single_writer)
        try:
            data = folder.read(layout.MANIFEST)
        except FileNotFoundError as error:
            hint = f"did you mean {folder.address}/pool?" if folder.exists(f"pool/{layout.MANIFEST}") else "check the path"
            raise DatasetError(f"{folder.address}: no {layout.MANIFEST} there, so no dataset folder; {hint}") from error
        return cls(folder, layout.parse(layout.Manifest, data, folder.where(layout.MANIFEST)))

    @classmethod
    def create(cls, folder: Folder, manifest: layout.Manifest) -> DatasetFolder:
        """Begin a dataset, or reopen the one that is there; raises RequestError if that has another plan.

        An existing manifest stays, with its segments. So a rerun continues, whatever number of samples it asks for.
        """
        folder.publish(layout.MANIFEST, manifest.to_bytes())
        dataset = cls(folder, layout.parse(layout.Manifest, folder.read(layout.MANIFEST), folder.where(layout.MANIFEST)))
        dataset.require_same_plan(manifest.plan_digest, manifest.recipe)
        return dataset

    def require_same_plan(self, plan_digest: str, identity: dict[str, Any]) -> None:
        """Raise RequestError, with what changed, if this dataset has another plan."""
        if self.manifest.plan_digest != plan_digest:
            changes = "; ".join(differences(self.manifest.recipe, identity)) or "the way plans are made"
            raise RequestError(
                f"{self.folder.address}: was made from another recipe, changed since: {changes}; "
                "go back, choose another folder with --set output.path=FOLDER, or start over with --overwrite"
            )

    def segments(self) -> list[layout.Segment]:
        """The segments in order: the one in the manifest, and one for each extension."""
        segments = [self.manifest.segment]
        while True:
            name = layout.extension_name(len(segments))
            if (content := self.folder.read_or_none(name)) is None:
                return segments
            extension = layout.parse(layout.Extension, content, self.folder.where(name))
            if extension.plan_digest != self.manifest.plan_digest:
                raise DatasetError(f"{self.folder.where(name)}: belongs to another plan; remove it")
            segments.append(extension.segment)

    def extend(self, num_samples: int, samples_per_shard: int) -> layout.Segment:
        """Append a segment; raises RequestError if another process appends a different one at this moment."""
        segments = self.segments()
        last = segments[-1]
        segment = layout.Segment(
            first_sample=last.end_sample,
            num_samples=num_samples,
            first_shard=last.first_shard + last.num_shards,
            samples_per_shard=samples_per_shard,
        )
        extension = layout.Extension(plan_digest=self.manifest.plan_digest, segment=segment)
        name = layout.extension_name(len(segments))
        if not self.folder.publish(name, extension.to_bytes()) and self.folder.read(name) != extension.to_bytes():
            raise RequestError(f"{self.folder.address}: another process extended it differently just now; look with `synthforge status`")
        return segment

    def shards(self) -> Iterator[layout.Shard]:
        """Every shard that the dataset has or will have, in order."""
        for segment in self.segments():
            yield from segment.shards()

    @property
    def num_samples(self) -> int:
        """Number of samples in all segments, made or not."""
        return sum(segment.num_samples for segment in self.segments())

    def state(self, segments: Sequence[layout.Segment] | None = None) -> State:
        """List the folder, and sort the shards by state.

        Args:
            segments: None: read them from the folder.
        """
        listing = self.folder.list()
        state = State([], [], [], [], num_bytes=sum(size for name, size in listing.items() if name.startswith("train-")))
        for shard in (shard for segment in segments or self.segments() for shard in segment.shards()):
            by_file = ((shard.seal, state.sealed), (shard.quarantine, state.quarantined), (shard.tar, state.orphaned))
            next((shards for file, shards in by_file if file in listing), state.missing).append(shard)
        return state

    def seal(self, shard: layout.Shard) -> layout.Seal:
        """The seal of a shard; raises as `seals` does."""
        return self.seals([shard])[0]

    def seals(self, shards: Sequence[layout.Shard]) -> list[layout.Seal]:
        """The seals of shards, read together.

        Raises: FileNotFoundError if a shard has none; DatasetError if one is damaged or has another plan.
        """
        contents = self.folder.read_many([shard.seal for shard in shards])
        seals = []
        for where, content in zip((self.folder.where(shard.seal) for shard in shards), contents, strict=True):
            seals.append(layout.parse(layout.Seal, content, where))
            if seals[-1].plan_digest != self.manifest.plan_digest:
                raise DatasetError(f"{where}: seals a shard of another plan; remove the shard's files and run again")
        return seals

    def commit(self, shard: layout.Shard, tar: Path, check: Check) -> layout.Seal:
        """Publish a finished tar and seal it. If another writer was first, check and seal its tar instead."""
        if self.folder.publish(shard.tar, tar):
            return self._seal(shard, tar, index_tar(tar, self.folder.where(shard.tar)))
        return self.adopt(shard, check)

    def adopt(self, shard: layout.Shard, check: Check) -> layout.Seal:
        """Check and seal the tar of a shard that is already there."""
        with self.folder.fetched(shard.tar) as tar:
            table = index_tar(tar, self.folder.where(shard.tar))
            check(shard, table)
            return self._seal(shard, tar, table)

    def _seal(self, shard: layout.Shard, tar: Path, table: pa.Table) -> layout.Seal:
        content = table_bytes(table)
        if not self.folder.publish(shard.table, content):
            # Another version of pyarrow may write equal rows as different bytes. The table that is there counts.
            content = self.folder.read(shard.table)
            if not _has_rows(content, table):
                raise DatasetError(f"{self.folder.where(shard.table)}: does not match its tar; remove both and run again")
        keys = table.column("key").to_pylist()
        seal = layout.Seal(
            plan_digest=self.manifest.plan_digest,
            samples=len(keys),
            bytes=tar.stat().st_size,
            first_key=keys[0],
            last_key=keys[-1],
            left_out=sorted(set(map(layout.key_of, shard.samples)) - set(keys)) if self._has_numbers else [],
            tar_sha256=sha256_of(tar),
            table_sha256=hashlib.sha256(content).hexdigest(),
        )
        if not self.folder.publish(shard.seal, seal.to_bytes()) and self.seal(shard) != seal:
            raise DatasetError(f"{self.folder.where(shard.seal)}: does not match its tar; remove the shard's files and run again")
        return seal

    def quarantine(self, shard: layout.Shard, reason: str, tries: int) -> None:
        """Give up a shard: publish a marker with the reason."""
        marker = layout.Quarantine(plan_digest=self.manifest.plan_digest, tries=tries, reason=reason)
        self.folder.publish(shard.quarantine, marker.to_bytes())

    def quarantine_reason(self, shard: layout.Shard) -> str:
        """Why a shard was given up."""
        return layout.parse(layout.Quarantine, self.folder.read(shard.quarantine), self.folder.where(shard.quarantine)).reason

    def release(self, shard: layout.Shard) -> None:
        """Remove the marker of a quarantined shard, so that the shard is tried again."""
        self.folder.remove(shard.quarantine)
        self.folder.remove(layout.COMPLETE)

    def complete(
        self,
        count: Callable[[int, Iterator[int]], dict[str, int]] | None = None,
        prepare: Callable[[layout.Completion, bool], None] = lambda completion, is_new: None,
    ) -> layout.Completion | None:
        """Write complete.json, whose content is a pure function of the folder. None: shards are unfinished.

        Args:
            count: number of samples of each class, from the number of samples and those that are not there. None: don't
            count.
            prepare: called with the totals, and whether they are new, before complete.json is published.
        """
        segments = self.segments()  # read once, so that no extension counts without its shards
        state = self.state(segments)
        if state.unfinished:
            return None
        seals = dict(zip((shard.index for shard in state.sealed), self.seals(state.sealed), strict=True))
        left_out = (int(key) for seal in seals.values() for key in seal.left_out)
        gone = itertools.chain(left_out, *(shard.samples for shard in state.quarantined))
        completion = layout.Completion(
            plan_digest=self.manifest.plan_digest,
            digest=_digest_of_seals(list(seals.values())),
            segments=len(segments),
            samples=sum(seal.samples for seal in seals.values()),
            left_out=sum(len(seal.left_out) for seal in seals.values()),
            bytes=sum(seal.bytes for seal in seals.values()),
            shard_samples=[seals[shard.index].samples if shard.index in seals else 0 for segment in segments for shard in segment.shards()],
            quarantined={shard.stem: self.quarantine_reason(shard) for shard in state.quarantined},
            class_samples=count(segments[-1].end_sample, gone) if count is not None else {},
        )
        present = self._read_completion()
        prepare(completion, present != completion)
        if present is not None and present != completion and present.segments <= completion.segments:
            self.folder.remove(layout.COMPLETE)  # outdated by an extension, or by a shard that was quarantined before
        if present != completion:
            self.folder.publish(layout.COMPLETE, completion.to_bytes())
        return completion

    def completion(self) -> layout.Completion | None:
        """The totals of a finished dataset. None: it is unfinished, or is being extended."""
        completion = self._read_completion()
        return completion if completion is not None and completion.segments == len(self.segments()) else None

    def _read_completion(self) -> layout.Completion | None:
        content = self.folder.read_or_none(layout.COMPLETE)
        return None if content is None else layout.parse(layout.Completion, content, self.folder.where(layout.COMPLETE))

    def digest(self) -> str:
        """SHA-256 over the seals in order. It names the content of the dataset."""
        return _digest_of_seals(self.seals(self.state().sealed))

    def table(self, shard: layout.Shard) -> pa.Table:
        """The rows of a shard (schema `tars.TABLE_SCHEMA`); raises DatasetError if they are not what was sealed."""
        where = self.folder.where(shard.table)
        if (content := self.folder.read_or_none(shard.table)) is None:
            raise DatasetError(f"{where}: gone; look with `synthforge verify {self.folder.address}`")
        if hashlib.sha256(content).hexdigest() != self.seal(shard).table_sha256:
            raise DatasetError(f"{where}: is not what was sealed; look with `synthforge verify {self.folder.address}`")
        try:
            return pq.read_table(io.BytesIO(content))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{where}: is not a table ({str(error).splitlines()[0]}); remove the shard's files and run again") from error

    def failures(self, shard: layout.Shard) -> pa.Table:
        """The samples that were left out of a sealed shard, with reasons (schema `tars.FAILURES_SCHEMA`)."""
        left_out = self.seal(shard).left_out
        try:
            table = pq.read_table(io.BytesIO(self.folder.read(shard.failures))) if left_out else FAILURES_SCHEMA.empty_table()
        except (FileNotFoundError, pa.ArrowException, OSError) as error:
            raise DatasetError(f"{self.folder.where(shard.failures)}: gone or damaged, so why samples were left out is unknown") from error
        return table.filter(pc.is_in(table["key"], pa.array(left_out, pa.string())))

    @property
    def _has_numbers(self) -> bool:
        """Whether keys are sample numbers. A curated set has the keys of its pools."""
        return self.manifest.kind != "curated"

    def shard_of(self, key: str) -> layout.Shard:
        """The shard of a key; raises RequestError for a key that this dataset can't have."""
        address = self.folder.address
        if not self._has_numbers:
            wanted = {key, key.zfill(9)}
            for shard in self.state().sealed:
                if wanted & set(self.table(shard).column("key").to_pylist()):
                    return shard
            raise RequestError(f"{address}: has no sample {key!r}; decisions.parquet has the decision for each sample of the pool")
        if re.fullmatch(r"\d{1,18}", key):
            for segment in self.segments():
                if segment.first_sample <= int(key) < segment.end_sample:
                    return segment.shard(segment.first_shard + (int(key) - segment.first_sample) // segment.samples_per_shard)
        raise RequestError(f"{address}: has no sample {key!r}; keys go from {layout.key_of(0)} to {layout.key_of(self.num_samples - 1)}")

    def sample(self, key: str) -> tuple[dict[str, Any], dict[str, bytes]]:
        """Read one sample: its row of the table, and its members (`image`, `cls`, `txt`, `json`) as bytes."""
        shard = self.shard_of(key)
        where = self.folder.where(shard.tar)
        key = key.zfill(9) if key.isdigit() else key
        try:
            table = self.table(shard)
        except FileNotFoundError as error:
            raise RequestError(f"{where}: not made yet; {key} will be in it") from error
        rows = table.filter(pc.equal(table["key"], key)).to_pylist()
        if not rows:
            why = ""
            with suppress(DatasetError, IndexError):  # shards of schema 1 have no table of failures
                why = f" ({', '.join(self.failures(shard).filter(pc.field('key') == key)['reasons'].to_pylist()[0])})"
            raise RequestError(f"{where}: {key} was rejected in every attempt{why} and left out")
        (row,) = rows
        try:
            members = {name: self.folder.read_range(shard.tar, row[f"{name}_offset"], row[f"{name}_size"]) for name in MEMBERS}
        except (FileNotFoundError, StorageFailed) as error:
            raise DatasetError(f"{where}: gone or torn; look with `synthforge verify {self.folder.address}`") from error
        return row, members


def remove_dataset(folder: Folder) -> None:
    """Remove a dataset in any state: seals first, then the rest, and the manifest last.

    A kill in between leaves no seal without its tar. What it leaves can be removed again.
    """
    names = sorted(folder.list(), reverse=True)  # later extensions before earlier ones
    patterns = (r"train-\d+\.json", r"train-\d+\..*", r"extension-\d+\.json")
    files = [name for pattern in patterns for name in names if re.fullmatch(pattern, name)]
    for name in dict.fromkeys([layout.COMPLETE, *layout.SIDE_FILES, *files, layout.MANIFEST]):
        folder.remove(name)


def differences(before: dict[str, Any], after: dict[str, Any], path: str = "") -> list[str]:
    """The changes between two nested mappings, as `path: old -> new`."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        where, old, new = f"{path}{key}", before.get(key), after.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += differences(old, new, f"{where}.")
        elif old != new:
            changes.append(f"{where}: {'added' if old is None else 'removed' if new is None else f'{_short(old)} -> {_short(new)}'}")
    return changes


def import_shard(folder: Folder, manifest: layout.Manifest, write: Callable[[Path], object]) -> DatasetFolder:
    """Write a small dataset of one shard.

    Args:
        write: writes the tar to a path.
    """
    if folder.list():
        raise PlaceError(f"{folder.address}: not empty; choose a new folder")
    dataset = DatasetFolder.create(folder, manifest)
    shard = manifest.segment.shard(0)
    with folder.scratch(shard.tar) as path:
        write(path)
        dataset.commit(shard, path, lambda shard, table: None)
    dataset.complete()
    return dataset


def _has_rows(content: bytes, table: pa.Table) -> bool:
    """Whether a parquet file has the rows of a table."""
    try:
        return bool(pq.read_table(io.BytesIO(content)).equals(table))
    except (pa.ArrowException, OSError):
        return False


def _digest_of_seals(seals: list[layout.Seal]) -> str:
    return hashlib.sha256(b"".join(seal.to_bytes() for seal in seals)).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
