"""WebDataset tars and folders of images, as other programs write them."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthforge.data import foreign
from synthforge.data.collection import Collection
from synthforge.data.reading import read_labelled
from synthforge.errors import DatasetError
from tests.data.sets import BIG, IMAGES, check_contract, column, image, image_folder, images_of, keys_of, labelled, raw_tar


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
    assert images_of(found) == [IMAGES[1], IMAGES[2], IMAGES[3], IMAGES[4]]  # x.y.png has the extension "y.png", as webdataset has it
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert found.problems == [
        f"{tmp_path}/in/evil.tar: 5 no regular files (links, devices) (first: s.png); left out",
    ]


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
    # Each sample takes four blocks and is whole with the first byte of the last; the first one alone has no neighbour
    # to be like.
    num = sum(kept > 2048 * sample + 1536 for sample in range(3))
    num = 0 if kept < 2048 + 512 else num
    assert found.num_samples == 10 + num
    assert images_of(found) == IMAGES[:num] + IMAGES[:10]
    assert len(found.problems) == 1
    assert found.problems[0].startswith(f"{torn}: torn or not a tar (")
    assert found.problems[0].endswith("none of it is used" if num == 0 else f"the {num} whole samples before the tear are used")
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
    """Its layout: tars of .jpg .txt .json, and beside each a parquet of all urls, failed ones too, and stats, written
    last."""
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
    assert [(block.name, block.num_samples) for block in found.blocks] == [("files 0-7", 8), ("files 8-15", 8), ("files 16-22", 6)]
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
    assert {name: set(part) for name, part in found.part().items()} == {"train/files 0-7": {"fit"}, "val/files 0-5": {"validation"}}
    image_folder(tmp_path / "val" / "x", 1, ("owl",))
    with pytest.raises(DatasetError, match="class 'x' of the validation part has no images in the fit part"):
        opened(tmp_path)
    shutil.rmtree(tmp_path / "train")
    with pytest.raises(DatasetError, match="has val but no train folder beside"):
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
