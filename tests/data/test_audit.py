"""Damage in a dataset folder is found and named."""

from __future__ import annotations

from pathlib import Path

from synthforge.data.audit import verify
from synthforge.data.folder import DatasetFolder
from synthforge.data.storage import Folder
from tests.data.folders import fill, manifest


def test_damage_is_found_and_named(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    fill(dataset, tmp_path)
    dataset.complete()
    shard = next(dataset.shards())
    whole = dataset.folder.read(shard.tar)
    for damaged, word in ((whole[:5000], "bytes, but"), (whole[:600] + b"?" + whole[601:], "not those that were sealed")):
        dataset.folder.replace(shard.tar, damaged)
        (problem,) = verify(dataset).problems
        assert word in problem
    dataset.folder.remove(shard.tar)
    (problem,) = verify(dataset).problems
    assert "gone" in problem
    dataset.folder.replace(shard.tar, whole)
    dataset.folder.replace(shard.table, b"no parquet")
    (problem,) = verify(dataset).problems
    assert "is not what was sealed" in problem
