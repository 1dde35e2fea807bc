"""Writes the curated dataset folder: the kept images, byte for byte, a decision for every image of the pools, and the
gap."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from synthforge.arrays import Bools, Doubles, Ints
from synthforge.curation.choice import Choice
from synthforge.curation.request import CurationRequest
from synthforge.curation.result import CurateResult
from synthforge.curation.sides import Sides
from synthforge.data.folder import Check, DatasetFolder, remove_dataset
from synthforge.data.images import contact_sheet, encode, turned_upright
from synthforge.data.layout import COMPLETE, DECISIONS, GAP, LOG, MANIFEST, Completion, Manifest, Segment, Shard
from synthforge.data.sidefiles import write_side_files
from synthforge.data.storage import Folder, as_our_error, resolve
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.data.units import Members
from synthforge.errors import DatasetError, RequestError, SynthforgeError, WorkError
from synthforge.progress import Reporter

_AT_ONCE = 64
"""Samples held in memory while shards are written."""
_SHOWN = 12
"""Images in a row of the contact sheet."""
_LOCK = f"{LOG}/curate.lock"
_PATIENCE = 2.0
"""Seconds that a run waits for another run that writes into the same folder."""


def require_free(folder: Folder) -> None:
    """Raise RequestError if the folder holds anything but a curated set."""
    if not folder.exists(MANIFEST):
        if strangers := sorted(folder.list()):
            raise RequestError(
                f"{folder.address}: holds {strangers[0]} but no {MANIFEST}, so it is not a dataset of synthforge; use another folder"
            )
        return
    manifest = DatasetFolder.open(folder.address).manifest
    if manifest.kind != "curated":
        raise RequestError(f"{folder.address}: is a dataset of kind {manifest.kind}, which is not overwritten; use another folder")


def require_same(folder: Folder, digest: str) -> None:
    """Raise RequestError if the folder holds a curated set made from other inputs or settings."""
    if folder.exists(MANIFEST) and DatasetFolder.open(folder.address).manifest.plan_digest != digest:
        raise RequestError(
            f"{folder.address}: was curated from other pools or with other settings; replace it with --reselect, or use another folder"
        )


def write(
    folder: Folder, choice: Choice, result: CurateResult, request: CurationRequest, reporter: Reporter, *, reselect: bool = False
) -> str | None:
    """Write the curated set, and return the path of the contact sheet, if there is one. Shards that are already there
    stay.

    On a disk, one run writes at a time. On a remote store, shards of another selection are detected, but not prevented.

    Args:
        reselect: replace the set that is there, also if its digest is the same but its content is not.
    Raises: RequestError if another run writes there, or another set is there and `reselect` is off; WorkError if the
        set that is there has the same digest but other content, and `reselect` is off.
    """
    sides, keys = choice.gated.sides, choice.gated.sides.pool.keys()
    manifest = _manifest(choice, result.digest)
    with _alone(folder):
        folder.sweep()
        expected = _Expected(manifest, keys[choice.kept].tolist(), sides.output_class_N[choice.kept].tolist())
        _make_room(folder, expected, reselect, reporter)
        dataset = DatasetFolder.create(folder, manifest)
        _write_shards(dataset, choice, expected, keys, reporter)

        def side_files(completion: Completion, is_new: bool) -> None:
            table = io.BytesIO()
            pq.write_table(decisions(choice, keys), table, compression="zstd")
            folder.replace(DECISIONS, table.getvalue())
            folder.replace(GAP, result.to_bytes())
            missing = not is_new and not reselect
            write_side_files(dataset, completion, name=request.name, licence=request.licence, tags=request.tags, only_missing=missing)

        kept = {**dict.fromkeys(sides.output_classes, 0), **{name: report.kept for name, report in choice.per_class.items()}}
        dataset.complete(lambda num, gone: kept, side_files)
        return _write_sheet(folder, choice)


@contextmanager
def _alone(folder: Folder) -> Iterator[None]:
    """On a disk, keep other runs from writing into the folder. The lock of a killed run is free."""
    if folder.path is None:
        yield
        return
    path = folder.path / _LOCK  # in the log folder, which is not part of the set
    lock = FileLock(path, timeout=_PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = lock.acquire()
    except Timeout as error:
        raise RequestError(f"{folder.address}: another curate is writing there; wait for it, or use another folder") from error
    except OSError as error:
        raise as_our_error(error, folder.address) from error
    with held:
        yield


@dataclass(frozen=True)
class _Expected:
    """The content that the shards must have, in the order of the curated set."""

    manifest: Manifest
    keys: list[str]
    labels: list[int]

    def check(self, error: Callable[[str], SynthforgeError], where: Callable[[str], str]) -> Check:
        """A check of a shard's rows that raises this error; `where` turns a file's name into its address."""

        def check(shard: Shard, table: pa.Table) -> None:
            samples = slice(shard.first_sample, shard.first_sample + shard.num_samples)
            keys, labels = table.column("key").to_pylist(), table.column("class_index").to_pylist()
            if (keys, labels) != (self.keys[samples], self.labels[samples]):
                raise error(f"{where(shard.tar)}: was written from another selection")

        return check


def _make_room(folder: Folder, expected: _Expected, reselect: bool, reporter: Reporter) -> None:
    """Keep the files in the folder if they belong to this set, else remove them.

    The folder is checked again here, since another run may have written to it in the meantime.
    """
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
            raise WorkError(f"{folder.address}: does not hold the set it claims to ({error}); write it again with --reselect") from error
        reporter.note(f"the folder does not hold the set it claims to, and is written again: {error}")
        _remove(folder)


def _require_agreement(dataset: DatasetFolder, expected: _Expected, reselect: bool) -> None:
    """Raise DatasetError if the shards in the folder are not those of this set.

    This is cheap: it reads tables, and tars only where a shard has no seal yet. Only `verify` reads every byte.
    """
    folder, manifest = dataset.folder, dataset.manifest
    if manifest.classes != expected.manifest.classes or dataset.num_samples != len(expected.keys):
        raise DatasetError(f"{folder.where(MANIFEST)}: names other classes or another number of images")
    if reselect and manifest.to_bytes() != expected.manifest.to_bytes():  # such as another size of shards
        raise DatasetError(f"{folder.where(MANIFEST)}: was written with other settings")
    check = expected.check(DatasetError, folder.where)
    listing, state = folder.list(), dataset.state()
    owned = {shard.stem for shard in dataset.shards()}
    if strays := sorted(name for name in listing if name.startswith("train-") and name.partition(".")[0] not in owned):
        raise DatasetError(f"{folder.where(strays[0])}: belongs to another set")
    for shard, seal in zip(state.sealed, dataset.seals(state.sealed), strict=True):
        if listing.get(shard.tar) != seal.bytes:
            raise DatasetError(f"{folder.where(shard.tar)}: is missing, or has not the size in its seal")
        check(shard, dataset.table(shard))
    for shard in state.orphaned:
        dataset.adopt(shard, check)
    if reselect and (alone := [shard.table for shard in state.missing if shard.table in listing]):
        raise DatasetError(f"{folder.where(alone[0])}: its tar is missing")  # a new tar need not match it
    dataset.completion()  # raises if it can't be read


def _remove(folder: Folder) -> None:
    """Remove a curated set, the manifest last: `require_free` refuses a folder with files but no manifest."""
    for name in (COMPLETE, DECISIONS, GAP):
        folder.remove(name)
    remove_dataset(folder)


def _write_shards(dataset: DatasetFolder, choice: Choice, expected: _Expected, keys: NDArray[np.object_], reporter: Reporter) -> None:
    """Write the shards that are not there yet."""
    folder = dataset.folder
    check = expected.check(lambda problem: WorkError(f"{problem}; write the set again with --reselect"), folder.where)
    reporter.begin("writing", len(choice.kept))
    for shard in dataset.shards():
        rows = choice.kept[shard.first_sample : shard.first_sample + shard.num_samples]
        if not folder.exists(shard.seal):
            with folder.scratch(shard.tar) as path:
                write_tar(path, _encoded(choice.gated.sides, rows, keys))
                dataset.commit(shard, path, check)
        reporter.advance(len(rows))
    reporter.end()


def _manifest(choice: Choice, digest: str) -> Manifest:
    if not len(choice.kept):
        raise RequestError("nothing is selected: ask for at least one image with selection.size")
    sides = choice.gated.sides
    pools = sides.pool.collections
    (extension,) = set(sides.pool.strings("extension")[choice.kept])  # Sides refuses pools of several formats
    manifests = [DatasetFolder.open(pool.address).manifest for pool in pools if pool.kind == "dataset folder"]
    generators = [manifest.generator for manifest in manifests if manifest.generator is not None]
    is_marked = len(manifests) == len(pools) and all(manifest.recipe.get("output", {}).get("marking") for manifest in manifests)
    several = {"class": "several or unknown", "pools": generators}
    return Manifest(
        kind="curated",
        classes=sides.output_classes,
        image_format=extension,
        plan_digest=digest,
        recipe={**sides.settings, "output": {"marking": is_marked}},
        generator=generators[0] if len(generators) == 1 == len(pools) else several,
        segment=Segment(first_sample=0, num_samples=len(choice.kept), first_shard=0, samples_per_shard=sides.config.samples_per_shard),
        parents=[*sides.settings["pools"], sides.settings["reference"]],
    )


def _encoded(sides: Sides, rows: Ints, keys: NDArray[np.object_]) -> Iterator[EncodedSample]:
    """Samples in the order of the rows, some of which are in memory at a time."""
    names = sides.pool.strings("class")
    for start in range(0, len(rows), _AT_ONCE):
        chunk = rows[start : start + _AT_ONCE]
        samples = dict(sides.pool.samples(chunk))
        for row in chunk.tolist():
            members = samples[row]
            turned = turned_upright(members.image) if sides.config.orientation == "upright" else None
            yield EncodedSample(
                key=keys[row],
                image=turned or members.image,
                extension=members.extension,
                class_index=int(sides.output_class_N[row]),
                text=members.txt.decode("utf-8", "replace") if members.txt is not None else names[row],
                record=_record(members, names[row]) | ({"turned_upright": True} if turned else {}),
            )


def _record(members: Members, class_name: str) -> dict[str, Any]:
    """The record of a sample. Records written by synthforge keep their bytes."""
    try:
        record = json.loads(members.json) if members.json is not None else {}
    except ValueError:
        record = {}
    return {**(record if isinstance(record, dict) else {"record": record}), "class": class_name}


def decisions(choice: Choice, keys: NDArray[np.object_]) -> pa.Table:
    """One row for each image of the pools, kept or not, with the reason and all scores.

    Args:
        keys: the key that each image has, or would have, in the curated set, (N,).
    """
    sides = choice.gated.sides
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
    for name, values in choice.gated.scores.items():
        assert name not in columns, f"a gate's score has the name of a column: {name}"
        if name == "duplicate_of":
            columns[name] = _masked(keys[np.maximum(values, 0)], values >= 0)
        elif values.dtype.kind == "f":
            columns[name] = pa.array(values, mask=~np.isfinite(values) | ~sides.usable)
        else:
            columns[name] = values
    return pa.table({name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()})


def _masked(values: NDArray[np.object_], there: Bools) -> pa.Array:
    return pa.array(values, pa.string(), mask=~there)


def _write_sheet(folder: Folder, choice: Choice) -> str | None:
    """Write a contact sheet of real, kept and dropped images next to a local folder, and return its path; None
    elsewhere."""
    if folder.path is None:
        return None
    sides = choice.gated.sides
    real_images = _pictures(sides.real, _spread(np.flatnonzero(sides.fit), sides.real_class))
    rows = {"real": real_images, "kept": _pictures(sides.pool, _spread(choice.kept, sides.pool_class))}
    for report in choice.gated.reports:
        for reason, number in report.dropped.items():
            if number:
                rows[reason] = _pictures(sides.pool, np.flatnonzero(choice.reason_N == reason)[:_SHOWN])
    path = folder.path.with_name(f"{folder.path.name}-sheet.png")
    try:
        path.write_bytes(encode(contact_sheet(rows, title="real, kept, and dropped by each gate"), "png", 100, marking=False))
    except OSError:
        return None  # the set itself is complete without a picture
    return str(path)


def _spread(rows: Ints, class_N: Ints) -> Ints:
    """Rows to show: the first of each class, as far as there is room, then others; sorted by class."""
    order = np.argsort(class_N[rows], kind="stable")
    starts = [group[0] for group in np.split(order, np.flatnonzero(np.diff(class_N[rows][order])) + 1) if len(group)]
    chosen = list(dict.fromkeys([*starts, *range(len(rows))]))[:_SHOWN]
    return rows[sorted(chosen, key=lambda place: class_N[rows[place]])]


def _pictures(table: Any, rows: Ints) -> list[Any]:
    images = {row: members.pixels() for row, members in table.samples(rows)}
    return [images[row] for row in rows.tolist()]


def weights_of(address: str, key_N: NDArray[np.object_]) -> Doubles | None:
    """Importance weights of a curated set's images, float64 (N,); None if the set has none, or is not a curated set.

    Args:
        key_N: keys of the images in the curated set.
    """
    folder = Folder(resolve(address))
    if not folder.exists(DECISIONS):
        return None
    with folder.fetched(DECISIONS) as path:
        rows = pq.read_table(path, columns=["curated_key", "weight"]).to_pylist()
    weight = {row["curated_key"]: row["weight"] for row in rows if row["curated_key"] is not None}
    weight_N = np.array([weight.get(key, 1.0) for key in key_N], np.float64)
    return None if (weight_N == 1).all() else weight_N
