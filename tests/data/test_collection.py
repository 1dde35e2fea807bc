"""Collections: every kind of set, written by the library it comes from, read block by block through the index."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.data import collection as module
from synthforge.data import foreign
from synthforge.data.collection import Collection, open_collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import Manifest, Segment, Shard, key_of
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.errors import DatasetError
from synthforge.progress import Reporter
from tests.data.sets import IMAGES, check_contract, column, image_folder, images_of, keys_of, labelled, raw_tar

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


def test_keys_differ_where_names_differ() -> None:
    names = ["a/b", "a~b", "a b", "a_b", "a.b", "a/b/", "/a/b", "a/../b", "ä", "a" * 90, "a" * 91, "b" + "a" * 90, "", "a\udc80", "a/b#2"]
    keys = [module._key_of_name(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(0 < len(key) <= 90 and set(key).isdisjoint("./ #") for key in keys)
    assert (keys[0], keys[3]) == ("a~b", "a_b")


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
