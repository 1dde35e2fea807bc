"""Decode, resize, encode and mark images, in the same way for real and synthetic ones.

Arrays are uint8 of shape (height, width, channels), with 1 channel (grey) or 3 (RGB), unless said otherwise.
Encoding is deterministic for one build of Pillow: no timestamps, and no text but the marking.
Not covered: video, more than 8 bits (reduced on decoding), transparency (put on black).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps, PngImagePlugin, UnidentifiedImageError

from synthforge.errors import DatasetError

Uint8 = NDArray[np.uint8]
ImageFormat = Literal["png", "jpg", "webp"]

EXTENSIONS: tuple[ImageFormat, ...] = ("png", "jpg", "webp")
READABLE = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
MAX_PIXELS = 80_000_000
"""Larger images are refused: a small file can unfold to gigabytes."""

_DIGITAL_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{_DIGITAL_SOURCE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def decode(data: bytes, channels: int | None = None) -> Uint8:
    """Decode an image file.

    Args:
        channels: 1 or 3. None: grey images stay grey, and all others become RGB.
    Raises: DatasetError for anything that is not a readable image.
    """
    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise DatasetError(f"image of {opened.width} x {opened.height} pixels: larger than {MAX_PIXELS:,} pixels is refused")
            ImageOps.exif_transpose(opened, in_place=True)
            image: Image.Image = opened
            if channels is None:
                grey = image.mode in {"1", "L", "LA", "I", "F"} or image.mode.startswith("I;")
                channels = 1 if grey else 3
            if image.mode.startswith("I"):  # 16 bits: PIL's own conversion clips instead of scaling
                image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
            mode = "L" if channels == 1 else "RGB"
            array = np.asarray(image if image.mode == mode else image.convert(mode))
    except Image.DecompressionBombError as error:
        raise DatasetError(f"image larger than {MAX_PIXELS:,} pixels: such images are refused") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise DatasetError(f"not a readable image ({type(error).__name__})") from error
    return array.reshape(array.shape[0], array.shape[1], channels)


def resize(image: Uint8, resolution: int) -> Uint8:
    """Scale the shorter side to `resolution` (bicubic, antialiased) and crop the square in the middle."""
    height, width, channels = image.shape
    if height == width == resolution:
        return image
    square = ImageOps.fit(_to_pil(image), (resolution, resolution), Image.Resampling.BICUBIC)
    return np.asarray(square).reshape(resolution, resolution, channels)


def encode(image: Uint8, image_format: ImageFormat, quality: int, marking: bool) -> bytes:
    """Encode one image.

    Args:
        quality: 1 to 100, for jpg and webp; png is lossless.
        marking: add XMP metadata with IPTC DigitalSourceType `trainedAlgorithmicMedia`.
    """
    picture, buffer = _to_pil(image), io.BytesIO()
    xmp = {"xmp": _XMP.encode()} if marking else {}
    if image_format == "png":
        info = PngImagePlugin.PngInfo()
        if marking:
            info.add_itxt("XML:com.adobe.xmp", _XMP)
        picture.save(buffer, "PNG", pnginfo=info)
    elif image_format == "jpg":
        picture.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, **xmp)
    else:
        picture.save(buffer, "WEBP", quality=quality, **xmp)
    return buffer.getvalue()


def is_blank(images_NHWC: Uint8) -> NDArray[np.bool_]:
    """Whether each image of a batch has a single colour; shape (N,)."""
    blank: NDArray[np.bool_] = (images_NHWC == images_NHWC[:, :1, :1, :]).all(axis=(1, 2, 3))
    return blank


def contact_sheet(rows: Mapping[str, Sequence[Uint8]], tile: int = 64, title: str = "") -> Uint8:
    """One RGB picture with a labelled row of images for each class.

    Each image is scaled smoothly to `tile` pixels, since a digit of 8 pixels is hard to read as squares.
    """
    gap, margin = 3, 12
    font = ImageFont.load_default(size=max(12, tile // 4))
    columns = max((len(images) for images in rows.values()), default=0)
    label_width = int(max((font.getlength(label) for label in rows), default=0)) + 2 * margin
    top = margin + (int(font.getbbox(title)[3]) + margin if title else 0)
    width = max(label_width + columns * (tile + gap) + margin, int(font.getlength(title)) + 2 * margin)
    sheet = Image.new("RGB", (width, top + len(rows) * (tile + gap) + margin), (250, 250, 248))
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((margin, margin), title, fill=(30, 30, 30), font=font)
    for row, (label, images) in enumerate(rows.items()):
        y = top + row * (tile + gap)
        draw.text((margin, y + tile // 2), label, fill=(30, 30, 30), font=font, anchor="lm")
        for column, image in enumerate(images):
            scaled = ImageOps.contain(_to_pil(image).convert("RGB"), (tile, tile), Image.Resampling.BICUBIC)
            sheet.paste(scaled, (label_width + column * (tile + gap), y))
    return np.asarray(sheet)


def _to_pil(image: Uint8) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
