"""Sets of other programs: names of labels, and digests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from synthforge.data.collection import Collection
from synthforge.errors import DatasetError
from tests.data.sets import column, labelled, raw_tar


def test_labels_by_number_get_names(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    raw_tar(tmp_path / "a.tar", labelled(range(6)))
    plain = opened(tmp_path)
    assert plain.classes == ["0", "1"]
    named = opened(tmp_path, classes=["cat", "dog", "owl"])
    assert (named.classes, column(named, "class")) == (["cat", "dog", "owl"], ["cat", "dog"] * 3)
    assert named.digest != plain.digest
    assert named.blocks == plain.blocks
    with pytest.raises(DatasetError, match=r"there is a label '1', but the 1 classes that are named"):
        opened(tmp_path, classes=["cat"])
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {}, "label_names": ["x", "y"]}))
    assert column(opened(tmp_path), "class") == ["x", "y"] * 3
    (tmp_path / "classes.txt").write_text("hen\ncow\n")
    assert column(opened(tmp_path), "class") == ["hen", "cow"] * 3


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
