"""The dataset folder, one suite over every store: create-only publishing, adoption, extension, completion, reading."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from synthforge.data.audit import status, verify
from synthforge.data.folder import DatasetFolder, remove_dataset
from synthforge.data.layout import Shard, key_of
from synthforge.data.storage import Folder
from synthforge.data.tars import write_tar
from synthforge.errors import DatasetError, RequestError
from tests.data.folders import accept, fill, manifest, samples


def test_from_nothing_to_complete_and_back(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    assert [shard.num_samples for shard in dataset.shards()] == [10, 10, 5]
    assert dataset.complete() is None
    fill(dataset, tmp_path, only=1)
    assert (len(dataset.state().sealed), len(dataset.state().missing)) == (1, 2)
    assert status(dataset).samples_done == 10
    fill(dataset, tmp_path)
    completion = dataset.complete()
    assert completion is not None
    assert (completion.samples, completion.shard_samples, completion.digest) == (25, [10, 10, 5], dataset.digest())
    audit = verify(DatasetFolder.open(place))
    assert (audit.problems, audit.notes, audit.samples) == ([], [], 25)
    row, members = dataset.sample("13")
    assert members == {"image": b"x" * 14, "cls": b"1", "txt": b"text 13", "json": members["json"]}
    assert (row["key"], row["class"], row["class_index"], row["prompt"], row["seed"], row["guidance"]) == (
        "000000013",
        "b",
        1,
        "text 13",
        2**63 + 13,
        1.5,
    )
    with pytest.raises(RequestError, match="has no sample"):
        dataset.sample("25")
    with pytest.raises(RequestError, match="has no sample"):
        dataset.sample("../../etc/passwd")


def test_the_first_tar_wins_and_is_adopted(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    shard = next(dataset.shards())
    write_tar(tmp_path / "first.tar", samples(shard, b"f"))
    write_tar(tmp_path / "second.tar", samples(shard, b"s"))
    assert dataset.folder.publish(shard.tar, tmp_path / "first.tar")  # and then its writer died
    assert dataset.state().orphaned == [shard]
    seal = dataset.commit(shard, tmp_path / "second.tar", accept)
    assert dataset.sample("0")[1]["image"] == b"f"
    assert seal == dataset.commit(shard, tmp_path / "second.tar", accept) == dataset.seal(shard)
    assert verify(dataset).problems == []


def test_a_tar_of_another_plan_is_not_adopted(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    shard = next(dataset.shards())
    write_tar(tmp_path / "x.tar", samples(shard))
    dataset.folder.publish(shard.tar, tmp_path / "x.tar")

    def refuse(shard: Shard, table: pa.Table) -> None:
        raise DatasetError("not ours")

    with pytest.raises(DatasetError, match="not ours"):
        dataset.adopt(shard, refuse)
    assert dataset.state().orphaned == [shard]


def test_another_plan_is_refused_with_what_changed(place: str) -> None:
    DatasetFolder.create(Folder(place), manifest())
    with pytest.raises(RequestError, match=r"changed since: plan: p -> q;.*--overwrite"):
        DatasetFolder.create(Folder(place), manifest(plan="q"))
    assert DatasetFolder.create(Folder(place), manifest(num=99)).num_samples == 25


def test_extension_appends_a_segment_and_renews_completion(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    fill(dataset, tmp_path)
    before = dataset.complete()
    dataset.extend(12, 8)
    assert dataset.completion() is None
    assert [(shard.first_sample, shard.num_samples) for shard in dataset.shards()][3:] == [(25, 8), (33, 4)]
    fill(dataset, tmp_path)
    after = dataset.complete()
    assert before is not None
    assert after is not None
    assert (after.samples, after.segments) == (37, 2)
    assert dataset.completion() == after
    assert dataset.shard_of("36").index == 4


def test_rejected_samples_are_named_in_the_seal(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    for shard in dataset.state().missing:
        write_tar(tmp_path / "made.tar", samples(shard, skip=1))
        assert dataset.commit(shard, tmp_path / "made.tar", accept).left_out == [key_of(shard.first_sample)]
    completion = dataset.complete()
    assert completion is not None
    assert (completion.samples, completion.left_out) == (22, 3)
    with pytest.raises(RequestError, match="rejected in every attempt"):
        dataset.sample("10")


def test_quarantine_makes_a_dataset_with_holes_that_can_be_mended(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    fill(dataset, tmp_path, only=2)
    last = dataset.state().missing[0]
    dataset.quarantine(last, "it failed", 3)
    holes = dataset.complete()
    assert holes is not None
    assert (holes.quarantined, holes.shard_samples) == ({"train-000002": "it failed"}, [10, 10, 0])
    dataset.release(last)
    fill(dataset, tmp_path)
    mended = dataset.complete()
    assert mended is not None
    assert (mended.quarantined, mended.samples) == ({}, 25)


def test_removal_takes_seals_first_and_everything(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    fill(dataset, tmp_path)
    dataset.complete()
    dataset.extend(5, 5)
    remove_dataset(dataset.folder)
    assert dataset.folder.list() == {}
