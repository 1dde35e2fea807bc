"""Indices of units: made once, and anew for what changed; keys of samples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synthforge.data import foreign, unit_index as module
from synthforge.data.collection import Collection
from synthforge.data.opening import open_collection
from synthforge.errors import DatasetError
from synthforge.progress import Reporter
from tests.data.sets import IMAGES, images_of, keys_of, labelled, raw_tar


def test_keys_differ_where_names_differ() -> None:
    names = ["a/b", "a~b", "a b", "a_b", "a.b", "a/b/", "/a/b", "a/../b", "ä", "a" * 90, "a" * 91, "b" + "a" * 90, "", "a\udc80", "a/b#2"]
    keys = [module._key_of_name(name) for name in names]
    assert len(set(keys)) == len(names)
    assert all(0 < len(key) <= 90 and set(key).isdisjoint("./ #") for key in keys)
    assert (keys[0], keys[3]) == ("a~b", "a_b")


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
