"""Dataset folders as collections, on disk and on S3."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from synthforge.data import sealed_collection as module
from synthforge.data.collection import Collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import Manifest, Segment, Shard, key_of
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.errors import DatasetError
from tests.data.sets import IMAGES, check_contract, column, images_of


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
