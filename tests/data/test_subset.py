"""Some images of a set become a folder of their own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from synthforge.data.image_table import Table
from synthforge.data.reading import read_labelled
from synthforge.data.subset import write_subset
from synthforge.errors import DatasetError


def images(place: Path, *formats: str) -> Table:
    """A folder of images by class, of these formats in turn."""
    for number in range(6):
        folder = place / "real" / str(number % 2)
        folder.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8))
        image.save(folder / f"{number}.{formats[number % len(formats)]}")
    return Table.open(str(place / "real"), place / "cache")


def test_the_bytes_are_those_of_the_set_and_stay(tmp_path: Path) -> None:
    table, place = images(tmp_path, "png"), tmp_path / "subset"
    rows = np.array([4, 1])
    labels = table.class_indices(["0", "1"])
    write_subset(table, rows, labels[rows], place, classes=["0", "1"], parts={"fit": (0, 2)}, origin="here")
    write_subset(table, rows[:1], labels[rows[:1]], place, classes=["0", "1"], parts={"fit": (0, 1)}, origin="here")
    files = {row: members.image for row, members in table.samples(rows)}
    found = read_labelled(str(place))["fit"].examples
    assert [(one.class_name, one.data) for one in found] == [(str(labels[row]), files[row]) for row in rows.tolist()]


def test_images_of_several_formats_become_png(tmp_path: Path) -> None:
    table, place = images(tmp_path, "png", "webp"), tmp_path / "subset"
    rows = np.arange(6)
    write_subset(table, rows, table.class_indices(["0", "1"]), place, classes=["0", "1"], parts={"fit": (0, 6)}, origin="here")
    found = read_labelled(str(place))["fit"].examples
    assert {Image.open(io.BytesIO(one.data)).format for one in found} == {"PNG"}


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    images(tmp_path, "png")
    (tmp_path / "real" / "0" / "4.png").write_bytes(b"\x89PNG\r\n\x1a\n no image")
    table = Table.open(str(tmp_path / "real"), tmp_path / "cache")
    with pytest.raises(DatasetError, match=r"real/0/4.png: .*; remove or replace it"):
        table.require_readable(np.arange(len(table)))
