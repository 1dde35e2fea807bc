"""Write the tar of a shard, and read its table from it.

A tar holds four adjacent members for each sample: `KEY.png|jpg|webp`, `KEY.cls`, `KEY.txt`, `KEY.json`, in this order.
The format is USTAR with a fixed owner, mode and time, so equal samples give equal bytes.
The table has one row per sample, with offset and size of each member. So any sample is one ranged read.
The table is a pure function of the tar.
"""

from __future__ import annotations

import hashlib
import io
import itertools
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
_REMEDY = "remove this file and run again to make the shard anew"

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
        *(TABLE_SCHEMA.field(name) for name in ("key", "class", "class_index", "prompt")),
        pa.field("seeds", pa.list_(pa.uint64()), nullable=False),
        TABLE_SCHEMA.field("reasons"),
    ]
)
"""One row for each sample that is left out because every attempt was rejected, with seed and reason of each attempt."""


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample, ready to be written to a tar."""

    key: str
    image: bytes
    """The encoded image file."""
    extension: str
    """Format of the image: png, jpg or webp."""
    class_index: int
    text: str
    """The prompt, or the name of the class."""
    record: dict[str, Any]
    """Has at least `class`. Synthetic samples have more; see `Sample.record` in generation/plan.py."""


def write_tar(path: Path, samples: Iterable[EncodedSample]) -> int:
    """Write a finished tar. Returns the number of samples in it."""
    count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT, bufsize=1 << 20) as tar:
        for sample in samples:
            record = json.dumps(sample.record, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
            texts = {"cls": str(sample.class_index), "txt": sample.text, "json": record}
            contents = {sample.extension: sample.image} | {name: text.encode() for name, text in texts.items()}
            for extension, data in contents.items():
                member = tarfile.TarInfo(f"{sample.key}.{extension}")
                member.size = len(data)
                member.mode = 0o644
                tar.addfile(member, io.BytesIO(data))
            count += 1
    return count


def read_exactly(file: IO[bytes], offset: int, size: int) -> bytes:
    """`size` bytes from `offset`; raises EOFError if the file ends before."""
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise EOFError("unexpected end of data")
    return data


def index_tar(path: Path, where: str) -> pa.Table:
    """The table of a tar that `write_tar` made, with the columns of `TABLE_SCHEMA`.

    Args:
        where: address of the tar, for messages.
    Raises: DatasetError if the tar is damaged or was not made by `write_tar`.
    """
    rows: list[dict[str, Any]] = []
    try:
        with tarfile.open(path, "r:") as tar:
            handle = cast("IO[bytes]", tar.fileobj)
            all_members = iter(tar)
            while members := list(itertools.islice(all_members, len(MEMBERS))):
                if len(members) < len(MEMBERS):
                    raise DatasetError(f"{where}: torn: sample {members[0].name!r} is incomplete; {_REMEDY}")
                rows.append(_row(members, handle, where))
            if _ends_early(path, handle):
                raise DatasetError(f"{where}: torn: the end of the archive is missing; {_REMEDY}")
    except (tarfile.TarError, EOFError) as error:
        raise DatasetError(f"{where}: torn or not a tar ({error}); {_REMEDY}") from error
    return pa.Table.from_pylist(rows, schema=TABLE_SCHEMA)


def _ends_early(path: Path, handle: IO[bytes]) -> bool:
    """Whether the end of a tar is missing: it must have a multiple of 10,240 bytes and end in two empty blocks.

    Python's tarfile accepts less.
    """
    size = path.stat().st_size
    handle.seek(max(0, size - 1024))
    return size % tarfile.RECORDSIZE != 0 or handle.read(1024).strip(b"\0") != b""


def _row(members: list[tarfile.TarInfo], handle: IO[bytes], where: str) -> dict[str, Any]:
    """The row of the table for the members of one sample."""
    keys, extensions = zip(*(member.name.partition(".")[::2] for member in members), strict=True)
    if len(set(keys)) != 1 or extensions[0] not in EXTENSIONS or extensions[1:] != MEMBERS[1:]:
        raise DatasetError(f"{where}: {members[0].name!r} and its neighbours are not one sample of a synthforge shard; {_REMEDY}")
    row: dict[str, Any] = {}
    for name, member in zip(MEMBERS, members, strict=True):
        row |= {f"{name}_offset": member.offset_data, f"{name}_size": member.size}
    try:
        image, cls, text, content = (read_exactly(handle, member.offset_data, member.size) for member in members)
        record = json.loads(content)
        attempts = record.get("attempts", [])
        row |= {"key": keys[0], "class": record["class"], "class_index": int(cls), "prompt": text.decode()}
        row |= {name: record.get(name) for name in ("seed", "guidance", "strength", "source")}
        row |= {"attempts": len(attempts) + 1, "reasons": [attempt["reason"] for attempt in attempts]}
        return {**row, "image_sha256": hashlib.sha256(image).hexdigest()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(f"{where}: label or record of {keys[0]!r} is damaged ({error}); {_REMEDY}") from error


def table_bytes(table: pa.Table) -> bytes:
    """The table as a parquet file. Equal tables give equal bytes with the same version of pyarrow."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=1 << 20)
    return buffer.getvalue()
