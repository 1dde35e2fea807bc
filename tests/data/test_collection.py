"""Collections: every kind of set, written by the library it comes from, read block by block through the index."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pickle
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthforge.data import collection as module
from synthforge.data import foreign
from synthforge.data.collection import ROWS_SCHEMA, Collection, open_collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import encode
from synthforge.data.layout import Manifest, Segment, Shard, key_of
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.data.units import Members
from synthforge.errors import DatasetError
from synthforge.progress import Reporter


def image(value: int, kind: Any = "png") -> bytes:
    ramp = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    return encode(ramp + np.uint8(value), kind, 95, marking=False)


IMAGES = [image(value) for value in range(60)]


@pytest.fixture
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Collection]:
    """Open with one cache for the whole test."""
    cache = tmp_path_factory.mktemp("cache")

    def open_it(place: object, **options: Any) -> Collection:
        return open_collection(str(place), cache, **options)

    return open_it


def raw_tar(path: Path, entries: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in entries.items() if isinstance(entries, Mapping) else entries:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def labelled(numbers: range, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{i:03d}.{ext}": data for i in numbers for ext, data in (("png", IMAGES[i]), ("cls", b"%d" % (i % 2)))}


def keys_of(collection: Collection) -> list[str]:
    return [key for block in collection.blocks for key in collection.rows(block)["key"].to_pylist()]


def column(collection: Collection, name: str) -> list[Any]:
    return [value for block in collection.blocks for value in collection.rows(block)[name].to_pylist()]


def images_of(collection: Collection) -> list[bytes]:
    return [data for block in collection.blocks for data in collection.images(block)]


def check_contract(collection: Collection) -> None:
    """What holds for a collection of any kind."""
    names = [block.name for block in collection.blocks]
    assert len(set(names)) == len(names)
    assert pickle.loads(pickle.dumps(collection.blocks)) == collection.blocks
    parts = collection.part()
    assert list(parts) == names
    for block in collection.blocks:
        rows = collection.rows(block)
        assert rows.schema.equals(ROWS_SCHEMA)
        assert rows.num_rows == block.num_samples == len(parts[block.name]) > 0
        assert set(parts[block.name]) <= {"fit", "validation"}
        images = list(collection.images(block))
        assert [hashlib.sha256(data).hexdigest() for data in images] == rows["image_sha256"].to_pylist()
        asked = [block.num_samples - 1, *range(block.num_samples), 0]
        found = list(collection.samples(block, asked))
        assert [row for row, _ in found] == asked
        assert [members.image for _, members in found] == [images[row] for row in asked]
        assert [members.extension for _, members in found] == rows["extension"].take(asked).to_pylist()
        assert list(collection.samples(block, [])) == []
        assert {name for name in rows["class"].to_pylist() if name is not None} <= set(collection.classes)
    keys = keys_of(collection)
    assert len(set(keys)) == len(keys) == collection.num_samples
    assert all(key and len(key) <= 90 and not set(key) & set("./\\ \0\n") for key in keys)


# Dataset folders


def pool(place: str, tmp_path: Path, *, shards: int = 3, parts: dict[str, tuple[int, int]] | None = None) -> DatasetFolder:
    segment = Segment(first_sample=0, num_samples=25, first_shard=0, samples_per_shard=10)
    manifest = Manifest(
        kind="real" if parts else "pool",
        classes=["a", "b"],
        image_format="png",
        plan_digest="p",
        recipe={},
        generator=None,
        segment=segment,
        parts=parts or {},
    )
    dataset = DatasetFolder.create(Folder(place), manifest)
    for shard in dataset.state().missing[:shards]:
        write_tar(tmp_path / "made.tar", samples_of(shard))
        dataset.commit(shard, tmp_path / "made.tar", lambda shard, table: None)
    return dataset


def samples_of(shard: Shard) -> Iterator[EncodedSample]:
    for i in shard.samples:
        started = {"source": f"x/{i}.png", "source_sha256": f"{i:064x}", "strength": 0.5} if i % 3 == 0 and i < 20 else {}
        yield EncodedSample(
            key_of(i), IMAGES[i], "png", i % 2, f"text {i}", {"class": "ab"[i % 2], "seed": 2**63 + i, "guidance": 1.5, **started}
        )


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3')}/pool" if request.param == "s3" else str(tmp_path / "pool")


def test_dataset_folder_on_any_store(place: str, tmp_path: Path, opened: Callable[..., Collection]) -> None:
    dataset = pool(place, tmp_path)
    found = opened(place)
    check_contract(found)
    assert (found.kind, found.classes, found.problems, found.num_samples) == ("dataset folder", ["a", "b"], [], 25)
    assert [block.digest for block in found.blocks] == [seal.tar_sha256 for seal in dataset.seals(list(dataset.shards()))]
    assert images_of(found) == IMAGES[:25]
    first = found.rows(found.blocks[0]).to_pylist()[3]
    assert first == {
        "key": "000000003",
        "class": "b",
        "prompt": "text 3",
        "source": "x/3.png",
        "source_sha256": f"{3:064x}",
        "strength": 0.5,
        "guidance": 1.5,
        "seed": 2**63 + 3,
        "image_sha256": hashlib.sha256(IMAGES[3]).hexdigest(),
        "extension": "png",
    }
    assert column(found, "source_sha256") == [f"{i:064x}" if i % 3 == 0 and i < 20 else None for i in range(25)]
    ((row, members),) = found.samples(found.blocks[1], [4])
    record = json.loads(members.json or b"")
    assert (row, members.image, members.extension, members.cls, members.txt) == (4, IMAGES[14], "png", b"0", b"text 14")
    assert (record["class"], record["seed"]) == ("a", 2**63 + 14)
    assert opened(place).digest == found.digest


def test_little_of_a_remote_shard_is_read_without_fetching_it(
    s3: str, tmp_path: Path, opened: Callable[..., Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    pool(f"{s3}/pool", tmp_path)
    found = opened(f"{s3}/pool")
    fetched: list[str] = []
    download = Folder._download
    monkeypatch.setattr(Folder, "_download", lambda self, name, target: (fetched.append(name), download(self, name, target)))
    assert list(found.images(found.blocks[0])) == IMAGES[:10]
    assert fetched == ["train-000000.tar"]
    monkeypatch.setattr(module, "REQUEST_BYTES", 8192)  # as if the shard were large
    assert [members.image for _, members in found.samples(found.blocks[0], [9, 2])] == [IMAGES[9], IMAGES[2]]
    assert fetched == ["train-000000.tar"]
    list(found.images(found.blocks[0]))
    assert len(fetched) == 2


def test_source_hashes_are_read_once(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    pool(str(tmp_path / "pool"), tmp_path)
    found = opened(tmp_path / "pool")
    wanted = column(found, "source_sha256")
    for tar in (tmp_path / "pool").glob("*.tar"):
        tar.unlink()
    assert column(opened(tmp_path / "pool"), "source_sha256") == wanted
    with pytest.raises(DatasetError, match=r"train-000001.tar: gone or torn; look with `synthforge verify"):
        list(found.images(found.blocks[1]))


def test_unfinished_pool_says_what_is_missing(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    dataset = pool(str(tmp_path / "pool"), tmp_path, shards=0)
    with pytest.raises(DatasetError, match="no finished shard there yet"):
        opened(tmp_path / "pool")
    pool(str(tmp_path / "pool"), tmp_path, shards=1)
    dataset.quarantine(dataset.state().missing[-1], "no memory", 3)
    few = opened(tmp_path / "pool")
    assert few.num_samples == 10
    assert [problem.partition(": ")[2] for problem in few.problems] == [
        "given up, and left out",
        "1 of 3 shards are not made yet, and left out",
    ]
    pool(str(tmp_path / "pool"), tmp_path)
    assert opened(tmp_path / "pool").digest != few.digest
    with pytest.raises(DatasetError, match=r"did you mean .*/pool\?"):
        opened(tmp_path)


def test_parts_of_a_reference_are_those_of_its_manifest(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    pool(str(tmp_path / "real"), tmp_path, parts={"fit": (0, 13), "validation": (13, 25)})
    found = opened(tmp_path / "real")
    assert np.concatenate(list(found.part().values())).tolist() == ["fit"] * 13 + ["validation"] * 12
    digits = opened("builtin:digits/reference")
    told = read_labelled("builtin:digits/reference")
    assert {name: int((np.concatenate(list(digits.part().values())) == name).sum()) for name in told} == {"fit": 800, "validation": 200}
    assert digits.classes == told["fit"].classes


# WebDataset


def test_tars_of_the_webdataset_library(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    import webdataset

    with webdataset.ShardWriter(str(tmp_path / "s-%03d.tar"), maxcount=7, verbose=0) as writer:
        for i in range(20):
            picture = ("jpg", image(i, "jpg")) if i % 2 else ("webp", image(i, "webp"))
            writer.write(
                {"__key__": f"{i:05d}", picture[0]: picture[1], "cls": i % 3, "txt": f"picture {i}", "json": {"seed": i, "z": [1]}}
            )
    found = opened(tmp_path)
    check_contract(found)
    assert (found.kind, found.classes, found.problems) == ("webdataset", ["0", "1", "2"], [])
    assert [(block.name, block.num_samples) for block in found.blocks] == [("s-000.tar", 7), ("s-001.tar", 7), ("s-002.tar", 6)]
    assert keys_of(found)[:8] == [f"s-000~{i:05d}" for i in range(7)] + ["s-001~00007"]
    assert column(found, "prompt")[5] == "picture 5"
    assert column(found, "seed") == list(range(20))
    found_members = [members for _, members in found.samples(found.blocks[0], [1, 0])]
    assert [(one.extension, one.cls, one.txt) for one in found_members] == [("jpg", b"1", b"picture 1"), ("webp", b"0", b"picture 0")]
    assert json.loads(found_members[0].json or b"") == {"seed": 1, "z": [1]}
    assert found_members[0].image == image(1, "jpg")


@pytest.mark.parametrize(
    "pattern", ["", "x-*.tar", "x-{00..02}.tar", "x-{00,01,02}.tar", "x-0[0-2].tar", "x-{00..09}.tar"], ids=lambda text: text or "folder"
)
def test_patterns(tmp_path: Path, pattern: str, opened: Callable[..., Collection]) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"x-{shard:02d}.tar", labelled(range(5)))
    found = opened(tmp_path / pattern)
    check_contract(found)
    assert [block.name for block in found.blocks] == ["x-00.tar", "x-01.tar", "x-02.tar"]
    assert found.num_samples == 15
    assert opened(tmp_path / "x-01.tar").num_samples == 5


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("x-{00..02}.tar", None),
        ("x-*.tar", None),
        ("x-{00..05}.tar", "3 of the 6 files that it spells out are missing, the first is {}/x-03.tar"),
        ("x-{02,07}.tar", "1 of the 2 files that it spells out are missing, the first is {}/x-07.tar"),
        ("{x,y}-0{0..2}.tar", "3 of the 6 files that it spells out are missing, the first is {}/y-00.tar"),
    ],
)
def test_files_that_braces_spell_out_and_are_not_there_are_told(
    tmp_path: Path, pattern: str, told: str | None, opened: Callable[..., Collection]
) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"x-{shard:02d}.tar", labelled(range(5)))
    assert opened(tmp_path / pattern).problems == ([told.format(tmp_path)] if told else [])


def test_tables_that_braces_spell_out_and_are_not_there_are_told(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    cells = [{"bytes": IMAGES[i], "path": None} for i in range(6)]
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"] * 3}), tmp_path / "x-0.parquet")
    (problem,) = opened(tmp_path / "x-{0..3}.parquet").problems
    assert problem == f"3 of the 4 files that it spells out are missing, the first is {tmp_path}/x-1.parquet"


def test_a_name_of_brackets_is_no_pattern(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    (tmp_path / "[old] {1,2}").mkdir()
    raw_tar(tmp_path / "[old] {1,2}" / "a.tar", labelled(range(5)))
    assert opened(tmp_path / "[old] {1,2}" / "a.tar").num_samples == opened(tmp_path / "[old] {1,2}").num_samples == 5


def test_labels_by_number_get_names(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    raw_tar(tmp_path / "a.tar", labelled(range(6)))
    plain = opened(tmp_path)
    assert plain.classes == ["0", "1"]
    named = opened(tmp_path, classes=["cat", "dog", "owl"])
    assert (named.classes, column(named, "class")) == (["cat", "dog", "owl"], ["cat", "dog"] * 3)
    assert named.digest != plain.digest
    assert named.blocks == plain.blocks
    with pytest.raises(DatasetError, match=r"label '1' is none of the 1 classes"):
        opened(tmp_path, classes=["cat"])
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {}, "label_names": ["x", "y"]}))
    assert column(opened(tmp_path), "class") == ["x", "y"] * 3
    (tmp_path / "classes.txt").write_text("hen\ncow\n")
    assert column(opened(tmp_path), "class") == ["hen", "cow"] * 3


def test_labels_and_captions_in_json_and_none_at_all(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    records = [
        b'{"label": 3, "caption": "three"}',
        b'{"class": "dog", "prompt": "a dog", "caption": "no", "strength": 0.25, "guidance": 2, "seed": 7, "source": "s"}',
        b'{"cls": "\\ud800 owl"}',
        b'{"label": true, "seed": -1, "strength": 1' + b"0" * 400 + b"}",
        b"[]",
        b"{",
    ]
    raw_tar(tmp_path / "j.tar", [(f"{i}.{ext}", data) for i, r in enumerate(records) for ext, data in (("png", IMAGES[i]), ("json", r))])
    found = opened(tmp_path)
    check_contract(found)
    assert column(found, "class") == ["3", "dog", "? owl", None, None, None]
    assert column(found, "prompt") == ["three", "a dog", None, None, None, None]
    assert [column(found, name)[1] for name in ("strength", "guidance", "seed", "source")] == [0.25, 2.0, 7, "s"]
    assert (column(found, "seed")[3], column(found, "strength")[3]) == (None, None)
    raw_tar(tmp_path / "j.tar", {"a.png": IMAGES[0], "b.png": IMAGES[1]})
    with pytest.raises(DatasetError, match=r"2 images and no label; each needs a .cls"):
        opened(tmp_path)


def test_equal_names_in_two_tars_and_twice_in_one(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    entries = [
        ("a.png", IMAGES[0]),
        ("a.cls", b"0"),
        ("b/c.png", IMAGES[1]),
        ("b/c.cls", b"1"),
        ("a.png", IMAGES[2]),
        ("a.cls", b"1"),
        ("a.png", IMAGES[6]),
        ("a.cls", b"0"),
    ]
    raw_tar(tmp_path / "a.tar", entries)
    raw_tar(tmp_path / "a-b.tar", {"c.png": IMAGES[3], "c.cls": b"0", "a.png": IMAGES[4], "a.cls": b"0"})
    (tmp_path / "a").mkdir()
    raw_tar(tmp_path / "a" / "b.tar", {"c.png": IMAGES[5], "c.cls": b"0"})
    found = opened(tmp_path / "{a,a-b,a/b}.tar")
    check_contract(found)
    assert [block.name for block in found.blocks] == ["a.tar", "a-b.tar", "a/b.tar"]
    assert images_of(found) == [IMAGES[i] for i in (0, 1, 2, 6, 3, 4, 5)]
    assert keys_of(found)[:2] == ["a~a", "a~b~c"]


def test_keys_differ_where_names_differ() -> None:
    names = ["a/b", "a~b", "a b", "a_b", "a.b", "a/b/", "/a/b", "a/../b", "ä", "a" * 90, "a" * 91, "b" + "a" * 90, "", "a\udc80", "a/b#2"]
    keys = [module._key_of_name(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(0 < len(key) <= 90 and set(key).isdisjoint("./ #") for key in keys)
    assert (keys[0], keys[3]) == ("a~b", "a_b")


def test_members_are_data_never_paths(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    (tmp_path / "in").mkdir()
    secret = tmp_path / "secret.png"
    secret.write_bytes(IMAGES[9])
    with tarfile.open(tmp_path / "in" / "evil.tar", "w") as tar:
        for name, kind, target in (
            ("s.png", tarfile.SYMTYPE, str(secret)),
            ("h.png", tarfile.LNKTYPE, "../../escape.png"),
            ("d.png", tarfile.CHRTYPE, ""),
            ("f.png", tarfile.FIFOTYPE, ""),
            ("dir.png", tarfile.DIRTYPE, ""),
            ("p.png", tarfile.GNUTYPE_SPARSE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
        for name, data in {**{f"{k}.cls": b"0" for k in "shdfp"}, "../../escape.png": IMAGES[1], "../../escape.cls": b"0"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, data in {
            "/abs.png": IMAGES[2],
            "/abs.cls": b"1",
            "long/" * 40 + "x.y.png": IMAGES[3],
            "n.PNG": IMAGES[4],
            "n.cls": b"0",
        }.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    before = sorted(path for path in tmp_path.rglob("*"))
    found = opened(tmp_path / "in")
    check_contract(found)
    assert images_of(found) == [IMAGES[1], IMAGES[2], IMAGES[4]]  # x.y.png is the extension "y.png", as webdataset has it
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert found.problems == [f"{tmp_path}/in/evil.tar: 6 of 9 samples have no image and are left out"]


def test_hidden_members_do_not_part_a_sample(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    raw_tar(
        tmp_path / "mac.tar", [entry for name, data in labelled(range(3)).items() for entry in ((f"./._{name}", b"x"), (f"./{name}", data))]
    )
    found = opened(tmp_path)
    check_contract(found)
    assert (images_of(found), column(found, "class"), found.problems) == (IMAGES[:3], ["0", "1", "0"], [])


def test_a_member_of_negative_size_ends_the_tar(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    whole = raw_tar(tmp_path / "a.tar", labelled(range(3))).read_bytes()
    member = tarfile.TarInfo("evil.png")
    header = bytearray(member.tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = b"\xff" + (2**88 - 4096).to_bytes(11, "big")  # base-256 for -4096
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    end = max(offset for offset in range(0, len(whole), 512) if whole[offset : offset + 512].strip(b"\0")) + 512
    (tmp_path / "a.tar").write_bytes(whole[:end] + bytes(header) + whole[end:])
    found = opened(tmp_path)
    assert found.num_samples == 3
    assert "torn" in found.problems[0]


@pytest.mark.parametrize("kept", range(0, 13 * 512, 256))
def test_torn_tar_gives_the_whole_samples_before_the_tear(tmp_path: Path, kept: int, opened: Callable[..., Collection]) -> None:
    raw_tar(tmp_path / "whole.tar", labelled(range(10)))
    torn = raw_tar(tmp_path / "torn.tar", {f"{i}.{ext}": d for i in range(3) for ext, d in (("png", IMAGES[i]), ("cls", b"1"))})
    torn.write_bytes(torn.read_bytes()[:kept])
    found = opened(tmp_path)
    check_contract(found)
    # Each sample takes four blocks and is whole with the first byte of the last; the first one alone has no neighbour to be like.
    num = sum(kept > 2048 * sample + 1536 for sample in range(3))
    num = 0 if kept < 2048 + 512 else num
    assert found.num_samples == 10 + num
    assert images_of(found) == IMAGES[:num] + IMAGES[:10]
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{torn}: torn or not a tar (")
    assert found.problems[0].endswith("nothing of it is used" if num == 0 else f"the {num} whole samples before the tear are used")
    with pytest.raises(DatasetError, match="torn or not a tar"):
        read_labelled(str(torn))


def test_empty_tar_alone_and_beside_others(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    raw_tar(tmp_path / "empty.tar", {})
    (tmp_path / "text.tar").write_text("this is no tar")
    with pytest.raises(DatasetError, match=r"webdataset without a single image \(.*empty.tar: an empty tar\); check the path"):
        opened(tmp_path)
    raw_tar(tmp_path / "full.tar", labelled(range(4)))
    found = opened(tmp_path)
    check_contract(found)
    assert ([block.name for block in found.blocks], len(found.problems)) == (["full.tar"], 2)


def test_tar_in_disguise_is_read_though_compressed(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    plain = raw_tar(tmp_path / "a.tar", labelled(range(8))).read_bytes()
    (tmp_path / "a.tar").write_bytes(gzip.compress(plain))
    found = opened(tmp_path)
    check_contract(found)
    assert images_of(found) == IMAGES[:8]


def test_blocks_of_a_large_tar(tmp_path: Path, opened: Callable[..., Collection], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign.Tar, "block_samples", 4)
    raw_tar(tmp_path / "a.tar", labelled(range(10)))
    found = opened(tmp_path)
    check_contract(found)
    assert [(block.name, block.num_samples) for block in found.blocks] == [("a.tar 0-3", 4), ("a.tar 4-7", 4), ("a.tar 8-9", 2)]
    assert images_of(found) == IMAGES[:10]


def test_img2dataset_output(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    """Its layout: tars of .jpg .txt .json, and beside each a parquet of all urls, failed ones too, and stats, written last."""
    for shard in range(2):
        entries: list[tuple[str, bytes]] = []
        rows = []
        for i in range(6):
            key = f"{shard:05d}{i:04d}"
            failed = i == 2
            row = {
                "url": f"http://x/{i}.jpg",
                "caption": f"caption {i}",
                "key": key,
                "status": "failed_to_download" if failed else "success",
            }
            rows.append(row)
            if not failed:
                entries += [(f"{key}.jpg", image(i, "jpg")), (f"{key}.txt", row["caption"].encode())]
                entries.append((f"{key}.json", json.dumps({**row, "label": "cat" if i % 2 else "dog", "error_message": None}).encode()))
        raw_tar(tmp_path / f"{shard:05d}.tar", entries)
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{shard:05d}.parquet")
        (tmp_path / f"{shard:05d}_stats.json").write_text(json.dumps({"count": 6, "successes": 5}))
    found = opened(tmp_path)
    check_contract(found)
    assert (found.kind, found.classes, found.num_samples, found.problems) == ("webdataset", ["cat", "dog"], 10, [])
    assert column(found, "prompt")[:3] == ["caption 0", "caption 1", "caption 3"]
    (tmp_path / "00001_stats.json").unlink()
    (problem,) = opened(tmp_path).problems
    assert problem == f"{tmp_path}/00001.tar: has no 00001_stats.json beside it, so img2dataset has not finished it"


# Formats


def misnamed() -> dict[str, tuple[bytes, str]]:
    """Suffix to a file under it and the format that it has: a CMYK JPEG, an animated GIF and others, as they come from the web."""
    from PIL import Image

    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 255)]

    def saved_as(kind: str, mode: str = "RGB", **options: Any) -> bytes:
        buffer = io.BytesIO()
        frames[0].convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return {
        "0.png": (saved_as("JPEG", "CMYK"), "jpg"),
        "1.png": (saved_as("GIF", "P", save_all=True, append_images=frames[1:]), "gif"),
        "2.png": (saved_as("WEBP"), "webp"),
        "3.jpg": (saved_as("PNG"), "png"),
        "4.jpg": (saved_as("BMP"), "bmp"),
        "5.webp": (saved_as("TIFF"), "tif"),
        "6.jpeg": (saved_as("JPEG"), "jpg"),
        "7.ppm": (saved_as("PPM"), "ppm"),
        "8.png": (b"no image at all", "png"),
        "9.webp": (b"", "webp"),
    }


@pytest.mark.parametrize("how", ["folder", "tar", "table"])
def test_the_format_is_that_of_the_bytes(tmp_path: Path, how: str, opened: Callable[..., Collection]) -> None:
    files = {name: data for name, (data, _) in misnamed().items() if data or how == "folder"}
    if how == "folder":
        (tmp_path / "a").mkdir()
        for name, data in files.items():
            (tmp_path / "a" / name).write_bytes(data)
    elif how == "tar":
        raw_tar(
            tmp_path / "a.tar", [entry for name, data in files.items() for entry in ((name, data), (f"{name.partition('.')[0]}.cls", b"a"))]
        )
    else:
        cells = [{"bytes": data, "path": name} for name, data in files.items()]
        pq.write_table(pa.table({"image": cells, "label": ["a"] * len(cells)}), tmp_path / "a.parquet")
    found = opened(tmp_path)
    check_contract(found)
    assert column(found, "extension") == [misnamed()[name][1] for name in files]
    assert images_of(found) == list(files.values())


# Folders of images


def image_folder(place: Path, per_class: int, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for index in range(per_class):
            (place / name / f"{index:03d}.png").write_bytes(IMAGES[10 * number + index])
    return place


def test_image_folder_has_the_parts_of_a_reference(
    tmp_path: Path, opened: Callable[..., Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(foreign, "FILES_BLOCK", 8)
    image_folder(tmp_path, 10)
    (tmp_path / "cat" / ".hidden.png").write_bytes(b"")
    (tmp_path / "dog" / "notes.txt").write_text("no image")
    (tmp_path / "dog" / "sub").mkdir()
    (tmp_path / "dog" / "sub" / "x.JPG").write_bytes(image(50, "jpg"))
    (tmp_path / "dog" / "001.jpg").write_bytes(image(51, "jpg"))
    found = opened(tmp_path)
    check_contract(found)
    assert [(block.name, block.num_samples) for block in found.blocks] == [("images 0-7", 8), ("images 8-15", 8), ("images 16-21", 6)]
    assert keys_of(found)[0] == "cat~000"
    assert keys_of(found)[-1] == "dog~sub~x"
    whole = read_labelled(str(tmp_path))
    parts = np.concatenate(list(found.part().values()))
    for part, wanted in whole.items():
        assert [sha for sha, where in zip(column(found, "image_sha256"), parts, strict=True) if where == part] == [
            example.sha256 for example in wanted.examples
        ]


def test_named_parts(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    image_folder(tmp_path / "train", 4)
    only = opened(tmp_path)
    assert (only.num_samples, keys_of(only)[0]) == (8, "train~cat~000")
    image_folder(tmp_path / "val", 3)
    found = opened(tmp_path)
    check_contract(found)
    assert {name: set(part) for name, part in found.part().items()} == {"train/images 0-7": {"fit"}, "val/images 0-5": {"validation"}}
    image_folder(tmp_path / "val" / "x", 1, ("owl",))
    with pytest.raises(DatasetError, match="class 'x' of the validation part has no images in the fit part"):
        opened(tmp_path)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DatasetError, match="has val but no fit or train folder beside it"):
        opened(tmp_path)


def test_parts_of_tars_and_tables_in_folders(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    for folder, numbers in (("train", range(6)), ("validation", range(6, 10))):
        (tmp_path / "tars" / folder).mkdir(parents=True)
        raw_tar(tmp_path / "tars" / folder / "0.tar", labelled(numbers))
    found = opened(tmp_path / "tars")
    check_contract(found)
    assert np.concatenate(list(found.part().values())).tolist() == ["fit"] * 6 + ["validation"] * 4
    flat = opened(tmp_path / "tars" / "*" / "0.tar")
    assert [block.digest for block in flat.blocks] == [block.digest for block in found.blocks]
    assert flat.digest != found.digest


def test_what_cannot_be_opened_is_named(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    (tmp_path / "empty").mkdir()
    for place, hint in (("nowhere", "check the path"), ("empty", "images need a sub-folder for each class"), ("*.tar", "check the path")):
        with pytest.raises(
            DatasetError, match=rf"no dataset folder, WebDataset tars, folder of images by class or `datasets` there; {hint}"
        ):
            opened(tmp_path / place)
    folder = image_folder(tmp_path / "bad", 2)
    (folder / "cat" / "001.png").rename(folder / "cat" / os.fsdecode(b"\xff.png"))
    with pytest.raises(DatasetError, match="its name is not UTF-8; rename it"):
        opened(folder)


def test_remote_sets_of_others_are_refused(s3: str, opened: Callable[..., Collection]) -> None:
    for address in (f"{s3}/tars", f"{s3}/x-{{0..3}}.tar"):
        with pytest.raises(DatasetError, match=r"no dataset.json there, and sets of others are read from disk only"):
            opened(address)


# Hugging Face `datasets`


def hub_set(num: int = 20) -> Any:
    import datasets

    features = datasets.Features(
        {
            "caption": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "seed": datasets.Value("int64"),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": IMAGES[i] if i % 5 else image(i, "jpg"), "path": f"{i}.png"} for i in range(num)],
            "label": [None if i == 3 else -1 if i == 4 else i % 2 for i in range(num)],
            "caption": [f"caption {i}" for i in range(num)],
            "seed": list(range(num)),
        },
        features=features,
    )


def saved(data: Any, place: Path, how: str) -> Path:
    place.mkdir()
    if how == "disk":
        data.save_to_disk(place, num_shards=3)
    elif how == "parquet":
        for number in range(2):
            data.shard(2, number, contiguous=True).to_parquet(place / f"train-{number:05d}-of-00002.parquet", batch_size=4)
    else:
        (place / "data").mkdir()
        data.to_parquet(place / "data" / "train-00000-of-00001.parquet")
    return place


@pytest.fixture
def quiet() -> Iterator[None]:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["disk", "parquet", "hub"])
def test_sets_of_the_datasets_library(tmp_path: Path, how: str, opened: Callable[..., Collection]) -> None:
    found = opened(saved(hub_set(), tmp_path / "set", how))
    check_contract(found)
    assert (found.kind, found.classes, found.num_samples, found.problems) == ("datasets", ["cat", "dog"], 20, [])
    assert images_of(found) == [IMAGES[i] if i % 5 else image(i, "jpg") for i in range(20)]
    assert column(found, "class")[:7] == ["cat", "dog", "cat", None, None, "dog", "cat"]
    assert column(found, "seed") == list(range(20))
    members = [one for _, one in found.samples(found.blocks[0], [1, 0])]
    assert members == [Members(IMAGES[1], "png", txt=b"caption 1"), Members(image(0, "jpg"), "jpg", txt=b"caption 0")]
    stem = {"disk": "data-00000-of-00003", "parquet": "train-00000-of-00002", "hub": "train-00000-of-00001"}[how]
    assert keys_of(found)[:2] == [f"{stem}~0", f"{stem}~1"]


@pytest.mark.usefixtures("quiet")
def test_splits_are_parts(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    import datasets

    data = hub_set()
    datasets.DatasetDict({"train": data, "validation": data.select([1, 2]), "test": data.select([0])}).save_to_disk(tmp_path / "both")
    found = opened(tmp_path / "both")
    check_contract(found)
    assert np.concatenate(list(found.part().values())).tolist() == ["fit"] * 20 + ["validation"] * 2
    assert images_of(found)[20:] == IMAGES[1:3]
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "one")
    assert np.concatenate(list(opened(tmp_path / "one").part().values())).tolist().count("validation") == 2  # of 9 and 9
    saved(data, tmp_path / "files", "parquet")
    data.select([5, 6]).to_parquet(tmp_path / "files" / "test-00000-of-00001.parquet")
    parts = opened(tmp_path / "files").part()
    assert {name: set(part) for name, part in parts.items()} == {
        "train-00000-of-00002.parquet": {"fit"},
        "train-00001-of-00002.parquet": {"fit"},
        "test-00000-of-00001.parquet": {"validation"},
    }


def test_parquet_of_other_makers(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    cells = [{"bytes": IMAGES[i], "path": None} if i != 2 else None for i in range(6)]
    pq.write_table(pa.table({"img": cells, "label": ["a", "b"] * 3, "prompt": ["p"] * 6}), tmp_path / "x.parquet", row_group_size=4)
    found = opened(tmp_path / "x.parquet")
    check_contract(found)
    assert images_of(found) == [IMAGES[i] for i in (0, 1, 3, 4, 5)]
    assert column(found, "class") == ["a", "b", "b", "a", "b"]
    assert found.problems == [f"{tmp_path}/x.parquet: 1 of 6 rows hold no image and are left out"]
    pq.write_table(pa.table({"img": cells, "number": [1] * 6}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="5 images and no label; a column of ClassLabel"):
        opened(tmp_path)
    pq.write_table(pa.table({"number": [1] * 6}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="no dataset folder"):
        opened(tmp_path)


@pytest.mark.usefixtures("quiet")
def test_torn_tables_are_told(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    place = saved(hub_set(), tmp_path / "disk", "disk")
    last = place / "data-00002-of-00003.arrow"
    last.write_bytes(last.read_bytes()[:-700])
    found = opened(place)
    check_contract(found)
    assert found.num_samples == 14
    assert str(last) in found.problems[0]
    place = saved(hub_set(), tmp_path / "files", "parquet")
    last = place / "train-00001-of-00002.parquet"
    last.write_bytes(last.read_bytes()[:-700])
    found = opened(place)
    check_contract(found)
    assert (found.num_samples, "not a whole parquet file" in found.problems[0]) == (10, True)


# The index


@pytest.fixture
def walks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the units that were walked."""
    walked: list[str] = []
    make = module._make_index

    def counting(path: Path, unit: Any) -> Any:
        walked.append(unit.name)
        return make(path, unit)

    monkeypatch.setattr(module, "_make_index", counting)
    return walked


def test_index_is_made_once_and_anew_for_what_changed(tmp_path: Path, opened: Callable[..., Collection], walks: list[str]) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"{shard}.tar", labelled(range(5 * shard, 5 * shard + 5)))
    told: list[str] = []

    class Told(Reporter):
        def begin(self, task: str, total: int, done: int = 0, unit: str = "images") -> None:
            told.append(f"{task} {total} {unit}")

        def advance(self, num: int) -> None:
            told.append(str(num))

    first = opened(tmp_path, reporter=Told())
    assert (walks, told) == (["0.tar", "1.tar", "2.tar"], ["index 3 files", "1", "1", "1"])
    again = opened(tmp_path, reporter=Told())
    assert len(told) == 4
    assert (len(walks), again.digest, again.blocks, keys_of(again)) == (3, first.digest, first.blocks, keys_of(first))
    os.utime(tmp_path / "1.tar", (1, 1))
    touched = opened(tmp_path)
    assert (walks[3:], touched.digest) == (["1.tar"], first.digest)
    raw_tar(tmp_path / "2.tar", labelled(range(20, 25)))
    changed = opened(tmp_path)
    assert (walks[4:], images_of(changed)[10:]) == (["2.tar"], IMAGES[20:25])
    assert [old == new for old, new in zip(first.blocks, changed.blocks, strict=True)] == [True, True, False]
    with pytest.raises(DatasetError, match=r"2.tar has changed meanwhile; run again"):
        list(first.images(first.blocks[2]))


def test_index_that_is_damaged_is_made_anew(tmp_path: Path, walks: list[str]) -> None:
    raw_tar(tmp_path / "a.tar", labelled(range(5)))
    first = open_collection(str(tmp_path), tmp_path / "cache")
    (index,) = (tmp_path / "cache" / "index").iterdir()
    index.write_bytes(index.read_bytes()[:-20])
    assert open_collection(str(tmp_path), tmp_path / "cache").digest == first.digest
    assert len(walks) == 2
    assert [path.name for path in (tmp_path / "cache" / "index").iterdir()] == [index.name]


def test_nothing_is_left_of_a_walk_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = raw_tar(tmp_path / "a.tar", labelled(range(5)))
    walk = foreign.Tar.walk

    def growing(self: foreign.Tar, problems: list[str]) -> Iterator[Any]:
        yield from walk(self, problems)
        tar.write_bytes(tar.read_bytes() + bytes(512))

    monkeypatch.setattr(foreign.Tar, "walk", growing)
    with pytest.raises(DatasetError, match="changed while it was read; run again when nobody writes there"):
        open_collection(str(tmp_path), tmp_path / "cache")
    assert list((tmp_path / "cache" / "index").iterdir()) == []


def test_content_not_place_makes_the_digest(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        raw_tar(tmp_path / name / "a.tar", labelled(range(5)))
    assert opened(tmp_path / "one").digest == opened(tmp_path / "two").digest
    relabelled = {name: b"1" if name.endswith("cls") else data for name, data in labelled(range(5)).items()}
    raw_tar(tmp_path / "two" / "a.tar", relabelled)
    one, two = opened(tmp_path / "one"), opened(tmp_path / "two")
    assert one.blocks == two.blocks
    assert one.digest != two.digest


BIG = 1 << 20


def test_images_of_a_tar_stream(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    """Of sixty images of 1 MB, index, images and samples hold a few at a time."""
    raw_tar(tmp_path / "a.tar", [(f"{i}.{ext}", data) for i in range(60) for ext, data in (("png", bytes([i]) * BIG), ("cls", b"1"))])
    tracemalloc.start()
    try:
        found = opened(tmp_path)
        (block,) = found.blocks
        assert sum(len(data) for data in found.images(block)) == 60 * BIG
        assert sum(len(members.image) for _, members in found.samples(block, range(60))) == 60 * BIG
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * BIG


def test_images_of_a_table_stream(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    """The same for a parquet file, of which a row group is held at a time: pages of large values are as large."""
    cells = [{"bytes": np.random.default_rng(i).bytes(BIG), "path": None} for i in range(60)]
    pq.write_table(pa.table({"image": cells, "label": ["a"] * 60}), tmp_path / "x.parquet", row_group_size=4)
    wanted = [hashlib.sha256(cell["bytes"] or b"").hexdigest() for cell in cells]
    del cells
    before = pa.total_allocated_bytes()
    found = opened(tmp_path)
    (block,) = found.blocks
    hashes, peak = [], 0
    for data in found.images(block):
        hashes.append(hashlib.sha256(data).hexdigest())
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert hashes == wanted
    assert peak < 16 * BIG
