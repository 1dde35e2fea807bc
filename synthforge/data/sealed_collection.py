"""A dataset folder as a collection, on disk or remote. It is read by its seals, which name the content."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.data.collection import ROWS_SCHEMA, Block, Collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.labels import as_name
from synthforge.data.layout import digest_of
from synthforge.data.read_config import Reading
from synthforge.data.storage import replace_file
from synthforge.data.tars import MEMBERS, read_exactly
from synthforge.data.unit_index import INDEX_VERSION, index_path
from synthforge.data.units import Location, Members
from synthforge.errors import DatasetError

REQUEST_BYTES = 1 << 20
"""One request to a remote store takes about as long as reading this many more bytes."""


class SealedCollection(Collection):
    """The sealed shards of a dataset folder. Other shards may still be in work."""

    kind = "dataset folder"

    def __init__(self, dataset: DatasetFolder, cache: Path, reading: Reading) -> None:
        state = dataset.state()
        self.address = dataset.folder.address
        if not state.sealed:
            raise DatasetError(f"{self.address}: no finished shard there yet; run `synthforge generate` to the end")
        seals = dataset.seals(state.sealed)
        self.classes = [as_name(name) for name in dataset.manifest.classes]
        self.reading, sealed = reading, list(zip(state.sealed, seals, strict=True))
        self.blocks = [Block(shard.tar, seal.tar_sha256, seal.samples, reading.decoder) for shard, seal in sealed]
        self.problems = [f"{dataset.folder.where(shard.tar)}: given up, and left out" for shard in state.quarantined]
        if missing := len(state.unfinished):
            total = len(state.sealed) + len(state.quarantined) + missing
            self.problems.append(f"{self.address}: {missing} of {total} shards are not made yet, and left out")
        self.losses = []
        self.digest = digest_of([self.classes, [block.digest for block in self.blocks], dataset.manifest.parts])
        self._dataset, self._cache = dataset, cache
        self._shards = {shard.tar: (shard, seal) for shard, seal in sealed}

    def rows(self, block: Block) -> pa.Table:
        table = self._table(block)
        num = table.num_rows
        hashes = self._source_hashes(block, table) if table["source"].null_count < num else pa.nulls(num, pa.string())
        own = {
            "class": pa.array(map(as_name, table["class"].to_pylist()), pa.string()),
            "source_sha256": hashes,
            "extension": pa.repeat(self._dataset.manifest.image_format, num),
        }
        return pa.table([own[name] if name in own else table[name] for name in ROWS_SCHEMA.names], schema=ROWS_SCHEMA)

    def locations(self, block: Block) -> Iterator[Location]:
        where = self._dataset.folder.where(block.name)
        return (Location(f"{where}:{key}", key) for key in self._table(block)["key"].to_pylist())

    def _table(self, block: Block) -> pa.Table:
        shard, seal = self._shards[block.name]
        if seal.tar_sha256 != block.digest:
            raise DatasetError(f"{self._dataset.folder.where(block.name)}: has changed meanwhile; run again")
        return self._dataset.table(shard)

    def _source_hashes(self, block: Block, table: pa.Table) -> pa.Array:
        """SHA-256 of the real image that each sample was started from. Only the records have it, so it is cached."""
        path = index_path(self._cache, digest_of([INDEX_VERSION, "sources", block.digest]))
        with suppress(OSError, pa.ArrowException):
            return pq.read_table(path).column("source_sha256")
        spans = list(zip(table["json_offset"].to_pylist(), table["json_size"].to_pylist(), strict=True))
        values = [json.loads(content).get("source_sha256") for content in self._spans(block, spans)]
        hashes = pa.table({"source_sha256": pa.array(values, pa.string())})
        replace_file(path, lambda temporary: pq.write_table(hashes, temporary, compression="zstd"))
        return hashes.column("source_sha256")

    def _read(self, block: Block, rows: Sequence[int] | None, whole: bool) -> Iterator[Members]:
        table = self._table(block)
        members = MEMBERS if whole else MEMBERS[:1]
        first, last = members[0], members[-1]
        columns = [f"{name}_{what}" for name in members for what in ("offset", "size")]
        wanted = (table if rows is None else table.take(pa.array(rows, pa.int64()))).select(columns).to_pylist()
        spans = [(row[f"{first}_offset"], row[f"{last}_offset"] + row[f"{last}_size"] - row[f"{first}_offset"]) for row in wanted]
        for row, (start, _), content in zip(wanted, spans, self._spans(block, spans), strict=True):
            found = {name: content[row[f"{name}_offset"] - start :][: row[f"{name}_size"]] for name in members}
            image, extension = found.pop("image"), self._dataset.manifest.image_format
            yield Members(image, extension, cls=found.get("cls"), txt=found.get("txt"), json=found.get("json"))

    def _spans(self, block: Block, spans: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Pieces of a shard's tar, by offset and size. A remote tar is fetched whole where that is quicker."""
        folder, (shard, seal) = self._dataset.folder, self._shards[block.name]
        try:
            if folder.path is None and sum(size + REQUEST_BYTES for _, size in spans) < seal.bytes:
                for start, size in spans:
                    yield folder.read_range(shard.tar, start, size)
                return
            with folder.fetched(shard.tar) as path, path.open("rb") as tar:
                for start, size in spans:
                    yield read_exactly(tar, start, size)
        except (FileNotFoundError, EOFError) as error:
            raise DatasetError(f"{folder.where(shard.tar)}: gone or torn; look with `synthforge verify {self.address}`") from error

    def _named_parts(self) -> dict[str, NDArray[np.str_]] | None:
        parts = self._dataset.manifest.parts
        if not parts:
            return None
        first, end = parts.get("validation", (0, 0))
        keys = {block.name: np.array(self._table(block)["key"].to_pylist(), dtype=np.int64) for block in self.blocks}
        return {name: np.where((first <= keys_N) & (keys_N < end), "validation", "fit") for name, keys_N in keys.items()}
