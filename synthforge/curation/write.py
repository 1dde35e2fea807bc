"""The curated dataset folder: the pool's bytes, a decision for every image, and the gap."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from synthforge.curation.choice import Choice
from synthforge.curation.request import CurationRequest
from synthforge.curation.result import CurateResult
from synthforge.curation.sides import Sides
from synthforge.data.folder import Check, DatasetFolder, remove_dataset
from synthforge.data.images import contact_sheet, decode, encode
from synthforge.data.layout import COMPLETE, LOG, MANIFEST, Completion, Manifest, Segment, Shard
from synthforge.data.sidefiles import write_side_files
from synthforge.data.storage import Folder, in_words, resolve
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.data.units import Members
from synthforge.errors import DatasetError, RequestError, SynthforgeError, WorkError
from synthforge.progress import Reporter
from synthforge.recipe.curation import DECISIONS, GAP

Ints = NDArray[np.int64]

_AT_ONCE = 64
"""Samples in memory while shards are written."""
_SHOWN = 12
"""Images in a row of the contact sheet."""
_LOCK = f"{LOG}/curate.lock"
_PATIENCE = 2.0
"""Seconds that a run waits for another one which writes into the same folder."""


def require_free(folder: Folder) -> None:
    """Fail if something other than a curated set is in the folder's place."""
    if not folder.exists(MANIFEST):
        if strangers := sorted(folder.list()):
            raise RequestError(f"{folder.address}: holds {strangers[0]} but no {MANIFEST}, so it is no dataset of ours; use another folder")
        return
    manifest = DatasetFolder.open(folder.address).manifest
    if manifest.kind != "curated":
        raise RequestError(f"{folder.address}: is a dataset of kind {manifest.kind}, which is not overwritten; use another folder")


def require_same(folder: Folder, digest: str) -> None:
    """Fail if the curated set that is there came of other inputs or settings."""
    if folder.exists(MANIFEST) and DatasetFolder.open(folder.address).manifest.plan_digest != digest:
        raise RequestError(
            f"{folder.address}: was curated from other pools or with other settings; replace it with --reselect, or use another folder"
        )


def write(
    folder: Folder,
    sides: Sides,
    choice: Choice,
    result: CurateResult,
    request: CurationRequest,
    reporter: Reporter,
    *,
    reselect: bool = False,
) -> str | None:
    """Write the curated set; what an equal run has written already stays. The contact sheet's path, if there is one.

    On a disk one run writes at a time; on a remote store shards of another selection are noticed, not prevented.

    Args:
        reselect: replace what is there, also if it claims to be this very set and is not.
    Raises: RequestError if another run writes there, or another set is there and must not be replaced; WorkError if what is there
        claims to be this set and is not.
    """
    manifest, keys = _manifest(sides, choice, result.digest), sides.pool.keys()
    with _alone(folder):
        folder.sweep()
        expected = _Expected(manifest, keys[choice.kept].tolist(), sides.output_class_N[choice.kept].tolist())
        _make_room(folder, expected, reselect, reporter)
        dataset = DatasetFolder.create(folder, manifest)
        _write_shards(dataset, sides, choice, expected, keys=keys, reporter=reporter)

        def side_files(completion: Completion, is_new: bool) -> None:
            folder.replace(DECISIONS, _parquet(decisions(sides, choice, keys)))
            folder.replace(GAP, result.to_bytes())
            write_side_files(
                dataset,
                completion,
                name=request.name,
                licence=request.licence,
                tags=request.tags,
                only_missing=not is_new and not reselect,
            )

        kept = {**dict.fromkeys(sides.output_classes, 0), **{name: report.kept for name, report in choice.per_class.items()}}
        dataset.complete(lambda num, gone: kept, side_files)
        return _draw(folder, sides, choice)


@contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """Keep other runs from writing into the folder, on a disk; the lock of a run that was killed is free."""
    if folder.path is None:
        yield
        return
    path = folder.path / _LOCK  # in the folder of telemetry, which is no part of the set
    lock = FileLock(path, timeout=_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise RequestError(f"{folder.address}: another curate is writing there; wait for it, or use another folder") from error
    except OSError as error:
        raise in_words(error, folder.address) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Expected:
    """What the shards have to hold, in the order of the curated set."""

    manifest: Manifest
    keys: list[str]
    labels: list[int]

    def check(self, error: Callable[[str], SynthforgeError], where: Callable[[str], str]) -> Check:
        """A check of a shard's rows that raises an error of this kind."""

        def check(shard: Shard, table: pa.Table) -> None:
            wanted = slice(shard.first_sample, shard.first_sample + shard.num_samples)
            found = table.column("key").to_pylist(), table.column("class_index").to_pylist()
            if found != (self.keys[wanted], self.labels[wanted]):
                raise error(f"{where(shard.tar)}: was written from another selection")

        return check


def _make_room(folder: Folder, expected: _Expected, reselect: bool, reporter: Reporter) -> None:
    """Leave in the folder what belongs to this set, or nothing; it is looked at again, since another run may have been here meanwhile."""
    require_free(folder)
    if not folder.exists(MANIFEST):
        return
    if not reselect:
        require_same(folder, expected.manifest.plan_digest)
    dataset = DatasetFolder.open(folder.address)
    if dataset.manifest.plan_digest != expected.manifest.plan_digest:
        _remove(folder)
        return
    try:
        _require_agreement(dataset, expected, reselect)
    except (DatasetError, FileNotFoundError) as error:
        if not reselect:
            raise WorkError(f"{folder.address}: what is there is not this set ({error}); write it again with --reselect") from error
        reporter.note(f"what is there is not this set, and is written again: {error}")
        _remove(folder)


def _require_agreement(dataset: DatasetFolder, expected: _Expected, reselect: bool) -> None:
    """Raise DatasetError if shards that are there are not those of this set.

    Cheap: tables are read, tars only if they have no seal yet; `verify` is what reads every byte.
    """
    folder, manifest, wanted = dataset.folder, dataset.manifest, expected.manifest
    if manifest.classes != wanted.classes or dataset.num_samples != len(expected.keys):
        raise DatasetError(f"{folder.where(MANIFEST)}: tells of other classes or another number of images")
    if reselect and manifest.to_bytes() != wanted.to_bytes():  # such as another size of shards
        raise DatasetError(f"{folder.where(MANIFEST)}: was written with other settings")
    check = expected.check(DatasetError, folder.where)
    listing, state = folder.list(), dataset.state()
    owned = {shard.stem for shard in dataset.shards()}
    if strays := sorted(name for name in listing if name.startswith("train-") and name.partition(".")[0] not in owned):
        raise DatasetError(f"{folder.where(strays[0])}: is of another set")
    for shard, seal in zip(state.sealed, dataset.seals(state.sealed), strict=True):
        if listing.get(shard.tar) != seal.bytes:
            raise DatasetError(f"{folder.where(shard.tar)}: is gone or not of the size that was sealed")
        check(shard, dataset.table(shard))
    for shard in state.orphaned:
        dataset.adopt(shard, check)
    if reselect and (alone := [shard.table for shard in state.missing if shard.table in listing]):
        raise DatasetError(f"{folder.where(alone[0])}: has lost its tar")  # a new one need not match it
    dataset.completion()  # raises if it can't be read


def _remove(folder: Folder) -> None:
    """Remove a curated set, the manifest last: without it, a folder in which something is left would not be ours to write into."""
    for name in (COMPLETE, DECISIONS, GAP):
        folder.remove(name)
    remove_dataset(folder)


def _write_shards(
    dataset: DatasetFolder, sides: Sides, choice: Choice, expected: _Expected, *, keys: NDArray[np.object_], reporter: Reporter
) -> None:
    """Write the shards that are not there."""
    folder, names = dataset.folder, sides.pool.strings("class")
    check = expected.check(lambda problem: WorkError(f"{problem}; write the set again with --reselect"), folder.where)
    reporter.begin("writing", len(choice.kept))
    for shard in dataset.shards():
        rows = choice.kept[shard.first_sample : shard.first_sample + shard.num_samples]
        if not folder.exists(shard.seal):
            with folder.scratch(shard.tar) as path:
                write_tar(path, _encoded(sides, rows, keys, names))
                dataset.commit(shard, path, check)
        reporter.advance(len(rows))
    reporter.end()


def _manifest(sides: Sides, choice: Choice, digest: str) -> Manifest:
    if not len(choice.kept):
        raise RequestError("nothing is selected: ask for at least one image with selection.size")
    (extension,) = set(sides.pool.strings("extension")[choice.kept])  # Sides has seen to it
    manifests = [DatasetFolder.open(one.address).manifest for one in sides.pool.collections if one.kind == "dataset folder"]
    generators = [manifest.generator for manifest in manifests if manifest.generator is not None]
    marked = len(manifests) == len(sides.pool.collections) and all(one.recipe.get("output", {}).get("marking") for one in manifests)
    return Manifest(
        kind="curated",
        classes=sides.output_classes,
        image_format=extension,
        plan_digest=digest,
        recipe={**sides.settings, "output": {"marking": marked}},
        generator=generators[0]
        if len(generators) == 1 == len(sides.pool.collections)
        else {"class": "several or unknown", "pools": generators},
        segment=Segment(first_sample=0, num_samples=len(choice.kept), first_shard=0, samples_per_shard=sides.config.samples_per_shard),
        parents=[*sides.settings["pools"], sides.settings["reference"]],
    )


def _encoded(sides: Sides, rows: Ints, keys: NDArray[np.object_], names: NDArray[np.object_]) -> Iterator[EncodedSample]:
    """Samples in the order of the curated set; some are in memory at a time."""
    for start in range(0, len(rows), _AT_ONCE):
        chunk = rows[start : start + _AT_ONCE]
        found = dict(sides.pool.samples(chunk))
        for row in chunk.tolist():
            members = found[row]
            extension = "jpg" if members.extension == "jpeg" else members.extension
            yield EncodedSample(
                key=keys[row],
                image=members.image,
                extension=extension,
                class_index=int(sides.output_class_N[row]),
                text=members.txt.decode("utf-8", "replace") if members.txt is not None else names[row],
                record=_record(members, names[row]),
            )


def _record(members: Members, class_name: str) -> dict[str, Any]:
    """The sample's record; one of ours comes out byte for byte as it was."""
    try:
        record = json.loads(members.json) if members.json is not None else {}
    except ValueError:
        record = {}
    return {**(record if isinstance(record, dict) else {"record": record}), "class": class_name}


def decisions(sides: Sides, choice: Choice, keys: NDArray[np.object_]) -> pa.Table:
    """One row for each image of the pools, kept or not, with the reason and every score."""
    rows = sides.pool.rows
    collection, block = rows.column("collection").to_numpy(), rows.column("block").to_numpy()
    shards = [sides.pool.collections[number].blocks[index].name for number, index in zip(collection, block, strict=True)]
    columns: dict[str, Any] = {
        "pool": [sides.pool.names[number] for number in collection],
        "key": sides.pool.strings("key"),
        "curated_key": _masked(keys, choice.rank_N >= 0),
        "shard": shards,
        "class": sides.pool.strings("class"),
        "kept": choice.rank_N >= 0,
        "reason": choice.reason_N,
        "rank": pa.array(choice.rank_N, mask=choice.rank_N < 0),
        "weight": choice.weight_N,
    }
    for name, values in choice.scores.items():
        if name == "duplicate_of":
            columns[name] = _masked(keys[np.maximum(values, 0)], values >= 0)
        elif values.dtype.kind == "f":
            columns[name] = pa.array(values, mask=~np.isfinite(values) | ~sides.usable)
        else:
            columns[name] = values
    return pa.table({name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()})


def _masked(values: NDArray[np.object_], there: NDArray[np.bool_]) -> pa.Array:
    return pa.array(values, pa.string(), mask=~there)


def _parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def _draw(folder: Folder, sides: Sides, choice: Choice) -> str | None:
    """Real, kept and dropped images side by side, beside the curated set on a local disk; None elsewhere."""
    if folder.path is None:
        return None
    real_images = _pictures(sides.real, _spread(np.flatnonzero(sides.fit), sides.real_class))
    rows = {"real": real_images, "kept": _pictures(sides.pool, _spread(choice.kept, sides.pool_class))}
    for report in choice.gates:
        for reason, number in report.dropped.items():
            if number:
                rows[reason] = _pictures(sides.pool, np.flatnonzero(choice.reason_N == reason)[:_SHOWN])
    path = Path(folder.path).with_name(f"{Path(folder.path).name}-sheet.png")
    try:
        path.write_bytes(encode(contact_sheet(rows, title="real, kept, and dropped by each gate"), "png", 100, marking=False))
    except OSError:
        return None  # the set is whole; a picture beside it is a courtesy
    return str(path)


def _spread(rows: Ints, class_N: Ints) -> Ints:
    """Some rows of as many classes as there is room for, the first of each first."""
    order = np.argsort(class_N[rows], kind="stable")
    starts = [group[0] for group in np.split(order, np.flatnonzero(np.diff(class_N[rows][order])) + 1) if len(group)]
    chosen = list(dict.fromkeys([*starts, *range(len(rows))]))[:_SHOWN]
    return rows[sorted(chosen, key=lambda place: class_N[rows[place]])]


def _pictures(table: Any, rows: Ints) -> list[Any]:
    found = {row: decode(members.image) for row, members in table.samples(rows)}
    return [found[row] for row in rows.tolist()]


def weights_of(address: str, key_N: NDArray[np.object_]) -> NDArray[np.float64] | None:
    """Importance weights of a curated set's images, float64 (N,); None if curation gave none, or it is another kind of set."""
    folder = Folder(resolve(address))
    if not folder.exists(DECISIONS):
        return None
    with folder.fetched(DECISIONS) as path:
        rows = pq.read_table(path, columns=["curated_key", "weight"]).to_pylist()
    weight = {row["curated_key"]: row["weight"] for row in rows if row["curated_key"] is not None}
    weight_N = np.array([weight.get(key, 1.0) for key in key_N], np.float64)
    return None if (weight_N == 1).all() else weight_N
