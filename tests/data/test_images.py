"""Decoding, resizing, encoding and marking."""

from __future__ import annotations

import io
import sys
from contextlib import suppress

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from synthforge.data.images import FORMATS, Uint8, contact_sheet, decode, encode, format_of, is_blank, resize, turned_upright
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


# Formats

WRITABLE = {
    "png": "PNG",
    "jpg": "JPEG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "avif": "AVIF",
    "jp2": "JPEG2000",
    "ppm": "PPM",
    "heic": "HEIF",
}
"""Our names of formats, and Pillow's."""
pillow_heif.register_heif_opener()


def written(image: Image.Image, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.mark.parametrize(("ours", "pillows"), WRITABLE.items())
def test_formats_are_told_by_content(ours: str, pillows: str) -> None:
    data = written(Image.fromarray(picture()), pillows)
    assert format_of(data[:32]) == ours
    assert decode(data).shape == (16, 16, 3)


def test_every_format_is_covered() -> None:
    assert FORMATS.keys() == WRITABLE.keys()


def test_heic_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DatasetError, match=r"install what reads it with `pip install 'synthforge\[heic\]'`"):
        decode(written(Image.fromarray(picture()), "HEIF"))


@pytest.mark.parametrize("pillows", ["EPS", "DDS", "TGA", "ICO", "PCX", "PDF"])
def test_no_other_format_reaches_a_decoder(pillows: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """EPS would start Ghostscript."""

    def start(*args: object, **options: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", start)
    monkeypatch.setattr("os.system", start)
    data = written(Image.fromarray(picture()), pillows)
    with pytest.raises(DatasetError, match="not a readable image"):
        decode(data)


def test_eps_that_is_called_png_is_refused() -> None:
    assert format_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n") is None


@pytest.mark.parametrize("ours", WRITABLE)
@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("seed", range(3))
def test_damage_gives_pixels_or_one_error(ours: str, at: float, seed: int) -> None:
    data = bytearray(written(Image.fromarray(picture(size=32)), WRITABLE[ours]))
    rng = np.random.default_rng(seed)
    place = int(len(data) * at)
    data[place : place + 8] = rng.bytes(8)
    for damaged in (bytes(data), bytes(data[:place])):
        with suppress(DatasetError):  # any other error fails the test
            assert decode(damaged).dtype == np.uint8


# Orientation


def with_tags(orientation: int, **odd: object) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return written(Image.fromarray(np.arange(10 * 20 * 3, dtype=np.uint8).reshape(20, 10, 3)), "JPEG", quality=100, exif=exif, **odd)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_turns_as_pillow_would(orientation: int) -> None:
    from PIL import ImageOps

    data = with_tags(orientation)
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data), wanted)


@pytest.mark.parametrize(("tag", "kind", "value"), [(0x0128, 2, b"abc\0"), (0x011A, 2, b"xyz\0"), (0x011A, 3, b"\x01\x00")])
def test_an_odd_tag_does_not_hide_the_photograph(tag: int, kind: int, value: bytes) -> None:
    """XResolution or ResolutionUnit of a wrong type, beside Orientation 6."""
    value = value.ljust(4, b"\0")[:4]
    count = len(value) if kind == 2 else 1
    entries = [(0x0112, 3, 1, b"\x06\0\0\0"), (tag, kind, count, value)]
    ifd = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little")
    for number, of_kind, num, content in sorted(entries):
        ifd += number.to_bytes(2, "little") + of_kind.to_bytes(2, "little") + num.to_bytes(4, "little") + content
    exif = b"Exif\0\0" + ifd + b"\0\0\0\0"
    data = written(Image.fromarray(np.zeros((20, 10, 3), np.uint8)), "JPEG", exif=exif)
    assert decode(data).shape == (10, 20, 3)


def test_turned_files_lie_upright_for_readers_that_ignore_exif() -> None:
    profile = b"profile" * 20
    data = with_tags(6, icc_profile=profile)
    turned = turned_upright(data)
    assert turned is not None
    plain = Image.open(io.BytesIO(turned))
    assert plain.size == (20, 10)
    assert plain.info["icc_profile"] == profile
    assert plain.quantization == Image.open(io.BytesIO(data)).quantization  # type: ignore[attr-defined]
    assert np.abs(np.asarray(plain).astype(int) - decode(data)).mean() < 2
    assert turned_upright(turned) is None
    assert turned_upright(with_tags(1)) is None


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_turning_without_loss_keeps_the_marking(image_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    marked = Image.open(io.BytesIO(encode(picture(), "png", 100, marking=True)))
    if image_format == "PNG":
        from PIL import PngImagePlugin

        info = PngImagePlugin.PngInfo()
        info.add_itxt("XML:com.adobe.xmp", marked.info["XML:com.adobe.xmp"])
        data = written(marked, "PNG", exif=exif, pnginfo=info)
    else:
        data = written(marked, "WEBP", exif=exif, lossless=True, xmp=marked.info["XML:com.adobe.xmp"].encode())
    turned = turned_upright(data)
    assert turned is not None
    assert is_marked(turned)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(turned)).convert("RGB")), picture()[::-1, ::-1])


# Transparency


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_images_lie_on_white(mode: str) -> None:
    """A black icon on transparent black is an icon; hidden colours do not show."""
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[..., 0] = 200 if mode == "RGBA" else 0
    pixels[2:4, 2:4] = (0, 0, 0, 255)
    image = Image.fromarray(pixels)
    data = written(image.convert(mode) if mode != "P" else image.quantize(4), "PNG")
    got = decode(data, 3)
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[2, 2].tolist() == [0, 0, 0]
    assert not is_blank(got[None])[0]


def test_grey_with_transparency_stays_grey() -> None:
    assert decode(written(Image.new("LA", (4, 4), (7, 0)), "PNG")).flatten().tolist() == [255] * 16
