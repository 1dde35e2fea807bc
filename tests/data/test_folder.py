"""The dataset folder, one suite over every store: create-only publishing, adoption, extension, completion, reading."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from synthforge.data.audit import status, verify
from synthforge.data.folder import DatasetFolder, remove_dataset
from synthforge.data.layout import Manifest, Segment, Shard, key_of
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, index_tar, table_bytes, write_tar
from synthforge.errors import DatasetError, PlaceError, RequestError


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3')}/pool" if request.param == "s3" else str(tmp_path / "pool")


def manifest(num: int = 25, per_shard: int = 10, plan: str = "p") -> Manifest:
    return Manifest(
        kind="pool",
        classes=["a", "b"],
        image_format="png",
        plan_digest=plan,
        recipe={"plan": plan},
        generator=None,
        segment=Segment(first_sample=0, num_samples=num, first_shard=0, samples_per_shard=per_shard),
    )


def samples(shard: Shard, fill: bytes = b"x", skip: int = 0) -> list[EncodedSample]:
    return [
        EncodedSample(
            key_of(i), fill * (i + 1), "png", i % 2, f"text {i}", {"class": "ab"[i % 2], "seed": 2**63 + i, "guidance": 1.5, "attempts": []}
        )
        for i in shard.samples[skip:]
    ]


def accept(shard: Shard, table: pa.Table) -> None:
    pass


def fill(dataset: DatasetFolder, tmp_path: Path, only: int | None = None) -> None:
    for shard in dataset.state().missing[:only]:
        write_tar(tmp_path / "made.tar", samples(shard))
        dataset.commit(shard, tmp_path / "made.tar", accept)


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
        assert dataset.commit(shard, tmp_path / "made.tar", accept).missing == [key_of(shard.first_sample)]
    completion = dataset.complete()
    assert completion is not None
    assert (completion.samples, completion.missing) == (22, 3)
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


def test_damage_is_found_and_named(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    fill(dataset, tmp_path)
    dataset.complete()
    shard = next(dataset.shards())
    whole = dataset.folder.read(shard.tar)
    for damaged, word in ((whole[:5000], "bytes, sealed were"), (whole[:600] + b"?" + whole[601:], "not those that were sealed")):
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


def test_torn_tars_are_refused(tmp_path: Path) -> None:
    shard = manifest().segment.shard(0)
    write_tar(tmp_path / "x.tar", samples(shard))
    whole = (tmp_path / "x.tar").read_bytes()
    index_tar(tmp_path / "x.tar", "x")
    for length in (0, 100, 512, 1300, 5000, len(whole) - 1, len(whole) - 512, 10240):
        (tmp_path / "torn.tar").write_bytes(whole[:length])
        with pytest.raises(DatasetError, match=r"torn|not one sample"):
            index_tar(tmp_path / "torn.tar", "torn")


def test_equal_samples_give_equal_bytes(tmp_path: Path) -> None:
    shard = manifest().segment.shard(1)
    for name in ("one", "two"):
        write_tar(tmp_path / name, samples(shard))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    tables = [index_tar(tmp_path / name, name) for name in ("one", "two")]
    assert table_bytes(tables[0]) == table_bytes(tables[1])


def test_the_tar_is_plain_webdataset(tmp_path: Path) -> None:
    import stat
    import tarfile

    shard = manifest().segment.shard(0)
    write_tar(tmp_path / "x.tar", samples(shard))
    with tarfile.open(tmp_path / "x.tar") as tar:
        members = tar.getmembers()
    assert [member.name for member in members[:5]] == ["000000000.png", "000000000.cls", "000000000.txt", "000000000.json", "000000001.png"]
    assert {(member.mtime, member.uid, member.gid, stat.S_IMODE(member.mode)) for member in members} == {(0, 0, 0, 0o644)}
    assert (tmp_path / "x.tar").read_bytes()[257:263] == b"ustar\0"


def test_newer_schemas_and_damaged_manifests_are_refused(place: str) -> None:
    folder = Folder(place)
    folder.publish("dataset.json", manifest().to_bytes().replace(b'"schema_version": 2', b'"schema_version": 3'))
    with pytest.raises(DatasetError, match="newer synthforge"):
        DatasetFolder.open(place)
    for damaged in (b"{", b"[]", b'{"schema_version": 1}'):
        folder.replace("dataset.json", damaged)
        with pytest.raises(DatasetError, match=r"damaged or not a synthforge file"):
            DatasetFolder.open(place)
    with pytest.raises(DatasetError, match=r"no dataset\.json"):
        DatasetFolder.open(f"{place}/elsewhere")


def test_removal_takes_seals_first_and_everything(place: str, tmp_path: Path) -> None:
    dataset = DatasetFolder.create(Folder(place), manifest())
    fill(dataset, tmp_path)
    dataset.complete()
    dataset.extend(5, 5)
    remove_dataset(dataset.folder)
    assert dataset.folder.list() == {}


def test_create_only_publishing_keeps_what_is_there(place: str, tmp_path: Path) -> None:
    folder = Folder(place)
    assert folder.publish("a", b"first") is True
    assert folder.publish("a", b"second") is False
    assert folder.read("a") == b"first"
    large = tmp_path / "large"
    large.write_bytes(b"l" * 3_000_000)
    assert folder.publish("b", large)
    assert not folder.publish("b", large)
    assert folder.list() == {"a": 5, "b": 3_000_000}
    assert folder.read_range("b", 10, 5) == b"lllll"
    folder.remove("a")
    folder.remove("a")
    assert not folder.exists("a")
    with pytest.raises(FileNotFoundError):
        folder.read("a")


def test_stores_without_create_only_writing_need_a_promise() -> None:
    with pytest.raises(PlaceError, match="no create-only writing"):
        Folder("memory://x").require_writable()
    promised = Folder("memory://x", single_writer=True)
    promised.require_writable()
    assert promised.publish("a", b"1")
    assert not promised.publish("a", b"2")


def test_unknown_stores_and_places_that_are_files(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="not an address"):
        Folder("nonsense://x")
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match="a folder is needed"):
        Folder(str(tmp_path / "file")).require_writable()


def test_litter_of_the_dead_is_swept_and_of_the_living_is_not(tmp_path: Path) -> None:
    from synthforge.data.storage import TEMPORARY, writer_name

    host = writer_name().rpartition("-")[0]
    (tmp_path / f"{TEMPORARY}{host}-999999999-aa-train-000000.tar").write_bytes(b"half")
    (tmp_path / f"{TEMPORARY}{writer_name()}-bb-train-000001.tar").write_bytes(b"half")
    (tmp_path / f"{TEMPORARY}elsewhere.1234-77-cc-train-000002.tar").write_bytes(b"half")
    folder = Folder(str(tmp_path))
    assert folder.sweep() == 1
    assert len(list(tmp_path.iterdir())) == 2
    assert folder.list() == {}


def test_heartbeats_tell_who_lives(place: str) -> None:
    import json
    import time

    from synthforge.data.writers import Heartbeat, live_writers

    folder = Folder(place)
    log = folder.within("_log")
    old = {"writer": "elsewhere.00-1", "shards": [3], "images": 1, "images_per_second": 2.0, "started": 0.0}
    log.replace("writer-elsewhere.00-1-aa.json", json.dumps(old | {"beat": time.time() - 1000}).encode())
    log.replace("writer-elsewhere.00-2-bb.json", json.dumps(old | {"writer": "elsewhere.00-2", "beat": time.time()}).encode())
    with Heartbeat(folder) as heartbeat:
        heartbeat.tell(images=10, rate=3.0)
        heartbeat.claim(5)
        heartbeat.claim(6)
        assert sorted(shard for beat in live_writers(log) for shard in beat.shards) == [3, 5, 6]
        assert heartbeat.claimed_by_others() == {3}
        heartbeat.drop(5)
        assert [beat.writer for beat in heartbeat.others()] == ["elsewhere.00-2"]
    assert [beat.writer for beat in live_writers(log)] == ["elsewhere.00-2"]
    assert "writer-elsewhere.00-1-aa.json" not in log.list()  # the dead are cleared away by the next writer
