"""Decoding, resizing, encoding and marking."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from synthforge.data.images import Uint8, contact_sheet, decode, encode, is_blank, resize
from synthforge.errors import DatasetError
from tests.data.sets import is_marked


def picture(channels: int = 3, size: int = 16) -> Uint8:
    return np.random.default_rng(0).integers(0, 256, (size, size, channels), dtype=np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("marking", [True, False])
def test_round_trip_and_marking(channels: int, image_format: str, marking: bool) -> None:
    image = picture(channels)
    data = encode(image, image_format, 95, marking)  # type: ignore[arg-type]
    assert data == encode(image, image_format, 95, marking)  # type: ignore[arg-type]
    assert is_marked(data) is marking
    back = decode(data, channels)  # type: ignore[arg-type]
    assert back.shape == image.shape
    if image_format == "png":
        assert np.array_equal(back, image)


def test_decoding_keeps_grey_grey_and_honours_orientation() -> None:
    assert decode(encode(picture(1), "png", 95, marking=False)).shape == (16, 16, 1)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 20)).save(buffer, "JPEG", exif=exif)
    assert decode(buffer.getvalue()).shape == (10, 20, 3)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16)).save(buffer, "PNG")
    assert decode(buffer.getvalue()).flatten().tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "data", [b"", b"no image", encode(picture(), "png", 95, marking=False)[:60], encode(picture(), "jpg", 95, marking=False)[:300]]
)
def test_what_is_no_image(data: bytes) -> None:
    with pytest.raises(DatasetError, match="not a readable image"):
        decode(data)


def test_a_bomb_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    with pytest.raises(DatasetError, match="larger than"):
        decode(buffer.getvalue())


def test_resize_cuts_the_middle_square() -> None:
    image = np.zeros((10, 30, 3), dtype=np.uint8)
    image[:, 10:20] = 200
    assert resize(image, 10).min() > 150
    assert resize(image, 10) is not image
    assert resize(image[:, :10], 10).shape == (10, 10, 3)


def test_blank() -> None:
    batch = np.zeros((3, 4, 4, 3), dtype=np.uint8)
    batch[1] = 255
    batch[2, 0, 0, 1] = 1
    assert is_blank(batch).tolist() == [True, True, False]


def test_contact_sheet_has_a_row_for_each_class() -> None:
    one = contact_sheet({"cat": [picture()] * 3, "dog": [picture(1)] * 2}, tile=32)
    more = contact_sheet({"cat": [picture()] * 3, "dog": [picture(1)] * 2, "owl": []}, tile=32)
    assert one.shape[2] == 3
    assert more.shape[0] == one.shape[0] + 35
