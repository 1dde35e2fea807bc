"""Small images for the page."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from synthforge.data.image_table import Table
from synthforge.data.opening import open_collection
from synthforge.reporting.pictures import Strip, sheet, strip, thumbnails


def table(tmp_path: Path, *sizes: tuple[int, int]) -> Table:
    """White images of some sizes, in one class."""
    (tmp_path / "set" / "a").mkdir(parents=True)
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (255, 255, 255)).save(tmp_path / "set" / "a" / f"{number}.png")
    return Table.of([open_collection(str(tmp_path / "set"), tmp_path / "cache")])


def pixels(picture: Strip) -> np.ndarray:
    data = base64.b64decode(picture.uri.removeprefix("data:image/webp;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))


def test_images_stand_side_by_side_and_a_place_may_stay_empty(tmp_path: Path) -> None:
    picture = strip(table(tmp_path, (8, 8), (8, 8)), [1, -1, 0], "three places")
    assert picture is not None and picture.alt == "three places"
    assert (picture.width, picture.height) == (3 * 64 + 2 * 4, 64)
    shown = pixels(picture)
    assert shown.shape == (64, 200, 4)
    assert shown[32, [32, 168]].min() > 250 and shown[32, 100, 3] == 0


def test_without_images_there_is_no_picture(tmp_path: Path) -> None:
    assert strip(table(tmp_path, (8, 8)), [-1], "none") is None
    assert strip(table(tmp_path / "more", (8, 8)), [], "none") is None


def test_an_oblong_image_is_fitted_into_a_square(tmp_path: Path) -> None:
    (square,) = thumbnails(table(tmp_path, (100, 50)), np.array([0]), 64)
    assert square.size == (64, 64)
    assert square.getpixel((32, 32)) == (255, 255, 255) and square.getpixel((32, 2)) == (128, 128, 128)


def test_rows_of_a_sheet_are_as_many_as_needed() -> None:
    images = [Image.new("RGB", (8, 8), (255, 0, 0))] * 5
    assert (sheet(images, "", 2, 8).rows, sheet(images, "", 2, 8).height) == (3, 24)
