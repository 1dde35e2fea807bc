"""Tables of images over one collection or several."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthforge.data.image_table import Table
from synthforge.data.opening import open_collection
from synthforge.errors import DatasetError
from tests.data.sets import IMAGES, labelled, raw_tar


def table(tmp_path: Path, *places: str) -> Table:
    return Table.of([open_collection(str(tmp_path / place), tmp_path / "cache") for place in places])


@pytest.fixture
def two(tmp_path: Path) -> Table:
    """Two tars of six images in a folder, and a folder of one tar with four."""
    for name, numbers in (("a/0", range(6)), ("a/1", range(6, 12)), ("b/0", range(12, 16))):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        raw_tar(tmp_path / f"{name}.tar", labelled(numbers))
    return table(tmp_path, "a", "b")


def test_rows_say_where_each_image_stands(two: Table) -> None:
    assert len(two) == 16
    assert [column.tolist() for column in two.places] == [
        [0] * 12 + [1] * 4,
        [0] * 6 + [1] * 6 + [0] * 4,
        [*range(6), *range(6), *range(4)],
    ]
    assert [block.name for _, block in two.blocks()] == ["0.tar", "1.tar", "0.tar"]
    assert np.isnan(two.numbers("strength")).all()


def test_keys_of_several_collections_begin_with_their_names(two: Table, tmp_path: Path) -> None:
    keys = two.keys()
    assert (keys[0], keys[15]) == ("a-0~000", "b-0~015")
    assert len(set(keys)) == 16
    assert table(tmp_path, "b").keys()[0] == "0~012"


def test_equal_names_are_numbered(two: Table, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "b").rename(tmp_path / "c" / "a")
    assert table(tmp_path, "a", "c/a").names == ["a", "a_2"]


def test_whole_samples_come_with_their_rows(two: Table) -> None:
    rows = np.array([15, 3, 7, 0])
    found = {row: members.image for row, members in two.samples(rows)}
    assert found == {row: IMAGES[row] for row in rows.tolist()}


def test_classes_are_aligned_by_name(two: Table) -> None:
    assert two.class_indices(["1", "0"]).tolist() == [1, 0] * 8
    assert two.class_indices(["1"]).tolist() == [-1, 0] * 8


def test_missing_labels_and_broken_images_are_named(two: Table, tmp_path: Path) -> None:
    two.require_labels("a")
    two.require_readable(np.arange(16))
    (tmp_path / "bad").mkdir()
    raw_tar(tmp_path / "bad" / "0.tar", {"0.png": b"broken", "0.cls": b"1", "1.png": IMAGES[0]})
    bad = table(tmp_path, "bad")
    with pytest.raises(DatasetError, match="mine: 1 of 2 images have no label"):
        bad.require_labels("mine")
    with pytest.raises(DatasetError, match=r"bad/0.tar:0: not a readable image"):
        bad.require_readable(np.arange(2))


def test_the_fit_part_is_in_the_order_of_the_rows(two: Table) -> None:
    parts = [collection.part()[block.name].tolist() for collection, block in two.blocks()]
    assert two.fit.tolist() == [part == "fit" for block in parts for part in block]
    assert 0 < two.fit[:12].sum() < 12
