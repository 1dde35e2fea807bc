"""Samples to tar, and tar to table: one row per sample with where its members lie, so that any sample is one ranged read.

A tar holds, for each sample, `KEY.png|jpg|webp`, `KEY.cls`, `KEY.txt`, `KEY.json`, adjacent and in this order, in USTAR with
fixed owner, mode and time, so that equal samples give equal bytes. The table is a pure function of the tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq

from synthforge.data.images import EXTENSIONS
from synthforge.errors import DatasetError

MEMBERS = ("image", "cls", "txt", "json")

TABLE_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("class_index", pa.int32(), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("seed", pa.uint64()),
        pa.field("guidance", pa.float64()),
        pa.field("strength", pa.float64()),
        pa.field("source", pa.string()),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
        pa.field("image_sha256", pa.string(), nullable=False),
        *(pa.field(f"{member}_{what}", pa.int64(), nullable=False) for member in MEMBERS for what in ("offset", "size")),
    ]
)


FAILURES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("class", pa.string(), nullable=False),
        pa.field("class_index", pa.int32(), nullable=False),
        pa.field("prompt", pa.string()),
        pa.field("seeds", pa.list_(pa.uint64()), nullable=False),
        pa.field("reasons", pa.list_(pa.string()), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A sample that was rejected in every attempt and left out."""

    key: str
    class_name: str
    class_index: int
    prompt: str
    seeds: list[int]
    reasons: list[str]
    """One for each attempt."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample as it stands in a tar."""

    key: str
    image: bytes
    extension: str
    class_index: int
    text: str
    record: dict[str, Any]
    """At least `class`; for synthetic samples also prompt, seed, guidance, attempts: see the plan."""


def write_tar(path: Path, samples: Iterable[EncodedSample]) -> int:
    """Write a finished tar; the number of samples in it."""
    count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar:
        for sample in samples:
            record = json.dumps(sample.record, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
            for extension, data in (
                (sample.extension, sample.image),
                ("cls", str(sample.class_index).encode()),
                ("txt", sample.text.encode()),
                ("json", record),
            ):
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
            count += 1
    return count


def index_tar(path: Path, where: str) -> pa.Table:
    """The table of a tar that `write_tar` made; raises DatasetError, with `where` in it, if the tar is torn or of another make."""
    columns: dict[str, list[Any]] = {name: [] for name in TABLE_SCHEMA.names}
    try:
        with tarfile.open(path, "r:") as tar:
            handle = cast("IO[bytes]", tar.fileobj)
            members: list[tarfile.TarInfo] = []
            for member in tar:
                members.append(member)
                if len(members) == len(MEMBERS):
                    _add_row(columns, members, handle, where)
                    members = []
            if members:
                raise DatasetError(f"{where}: torn: sample {members[0].name!r} is not whole; {_REMEDY}")
            if _ends_early(path, handle):
                raise DatasetError(f"{where}: torn: the end of the archive is missing; {_REMEDY}")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{where}: torn or not a tar ({error}); {_REMEDY}") from error
    return pa.table(columns, schema=TABLE_SCHEMA)


_REMEDY = "remove this file and run again, and the shard is made anew"


def _ends_early(path: Path, handle: IO[bytes]) -> bool:
    """A whole tar is a multiple of 10,240 bytes and ends in two empty blocks; tarfile itself accepts less."""
    size = path.stat().st_size
    handle.seek(max(0, size - 1024))
    return size % tarfile.RECORDSIZE != 0 or handle.read(1024).strip(b"\0") != b""


def _add_row(columns: dict[str, list[Any]], members: list[tarfile.TarInfo], handle: IO[bytes], where: str) -> None:
    keys, extensions = zip(*(member.name.partition(".")[::2] for member in members), strict=True)
    if len(set(keys)) != 1 or extensions[0] not in EXTENSIONS or extensions[1:] != MEMBERS[1:]:
        raise DatasetError(f"{where}: {members[0].name!r} and its neighbours are not one sample of a synthforge shard; {_REMEDY}")
    contents = []
    for name, member in zip(MEMBERS, members, strict=True):
        handle.seek(member.offset_data)
        data = handle.read(member.size)
        if len(data) != member.size:
            raise DatasetError(f"{where}: torn inside {member.name!r}; {_REMEDY}")
        contents.append(data)
        columns[f"{name}_offset"].append(member.offset_data)
        columns[f"{name}_size"].append(member.size)
    image, cls, text, record_bytes = contents
    try:
        record = json.loads(record_bytes)
        attempts = record.get("attempts", [])
        columns["key"].append(keys[0])
        columns["class"].append(record["class"])
        columns["class_index"].append(int(cls))
        columns["prompt"].append(text.decode())
        for name in ("seed", "guidance", "strength", "source"):
            columns[name].append(record.get(name))
        columns["attempts"].append(len(attempts) + 1)
        columns["reasons"].append([attempt["reason"] for attempt in attempts])
        columns["image_sha256"].append(hashlib.sha256(image).hexdigest())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where}: label or record of {keys[0]!r} is damaged ({error}); {_REMEDY}") from error


def failures_table(failures: Iterable[Failure]) -> pa.Table:
    """One row for each sample that was left out."""
    rows = [(one.key, one.class_name, one.class_index, one.prompt, one.seeds, one.reasons) for one in failures]
    columns = list(zip(*rows, strict=True)) or [()] * len(FAILURES_SCHEMA)
    return pa.table(dict(zip(FAILURES_SCHEMA.names, map(list, columns), strict=True)), schema=FAILURES_SCHEMA)


def table_bytes(table: pa.Table) -> bytes:
    """The table as a parquet file; equal tables give equal bytes with one pyarrow version."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=1 << 20)
    return buffer.getvalue()
