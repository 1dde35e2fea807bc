"""Decode, resize, encode and mark images, in the same way for real and synthetic ones.

Arrays are uint8 of shape (height, width, channels), with 1 channel (grey) or 3 (RGB), unless said otherwise.
The format of a file is told by its first bytes, never by its name. Only formats of `FORMATS` are decoded.
Encoding is deterministic for one build of Pillow: no timestamps, and no text but the marking.
Not covered: video and animation (the first frame is taken), more than 8 bits (reduced on decoding).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps, JpegImagePlugin, PngImagePlugin

from synthforge.data.read_config import WHITE
from synthforge.errors import DatasetError

Uint8 = NDArray[np.uint8]
ImageFormat = Literal["png", "jpg", "webp"]

EXTENSIONS: tuple[ImageFormat, ...] = ("png", "jpg", "webp")
FORMATS: dict[str, tuple[str, ...]] = {
    "png": ("PNG",),
    "jpg": ("JPEG", "MPO"),
    "webp": ("WEBP",),
    "gif": ("GIF",),
    "bmp": ("BMP",),
    "tif": ("TIFF",),
    "avif": ("AVIF",),
    "jp2": ("JPEG2000",),
    "ppm": ("PPM",),
    "heic": ("HEIF",),
}
"""The formats that are read, with Pillow's names of their decoders.

Pillow has more. Some of them start another program (EPS starts Ghostscript), so this is a list of what is allowed.
HEIC needs the extra `heic`.
"""
SUFFIXES = (*FORMATS, "jpeg", "jpe", "jfif", "tiff", "heif", "j2k", "jpx", "pbm", "pgm", "pnm", "dib")
"""Endings of file names that promise an image."""
HEAD_BYTES = 32
"""Bytes at the beginning of a file that tell its format."""
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"GIF8", "gif"),
    (b"BM", "bmp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"II+\0", "tif"),
    (b"MM\0+", "tif"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "jp2"),
    (b"\xff\x4f\xff\x51", "jp2"),
)
_HEIC_BRANDS = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")
MAX_PIXELS = 80_000_000
"""Larger images are refused: a small file can unfold to gigabytes."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF Orientation to what turns the image upright."""

_DIGITAL_SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
_XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{_DIGITAL_SOURCE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def format_of(data: bytes) -> str | None:
    """The format of an image file from its first `HEAD_BYTES` bytes, a key of `FORMATS`. None: none of them."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[4:8] == b"ftyp":
        brands = data[8:HEAD_BYTES]
        if b"avif" in brands or b"avis" in brands:
            return "avif"
        return "heic" if any(brand in brands for brand in _HEIC_BRANDS) else None
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return "ppm"
    return next((name for magic, name in _MAGIC if data.startswith(magic)), None)


def decode(data: bytes, channels: int | None = None, background: str = WHITE) -> Uint8:
    """Decode an image file: turned upright as its EXIF data says, and put on a background if it is transparent. Hidden
    colours would otherwise show.

    Args:
        channels: 1 or 3. None: grey images stay grey, unless they are put on a colour; all others become RGB.
        background: a name or a colour such as `#ff8800`.
    Raises: DatasetError for anything that is not a readable image.
    """
    if (image_format := format_of(data)) is None:
        raise DatasetError("not a readable image (its first bytes are of no known image format)")
    if image_format == "heic":
        _enable_heic()
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS[image_format]) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise DatasetError(f"image of {opened.width} x {opened.height} pixels: larger than {MAX_PIXELS:,} pixels is refused")
            if opened.mode == "F" or (opened.mode == "I" and image_format == "tif"):
                raise DatasetError("has pixels of 32 bits, whose range is not known; convert it to 8 or 16 bits")
            image = _upright(opened)
            grey = image.mode in {"1", "L", "LA", "I", "F"} or image.mode.startswith("I;")
            if image.mode.startswith("I"):  # 16 bits: PIL's own conversion clips instead of scaling
                image = Image.fromarray((np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8))
            elif image.has_transparency_data:
                canvas = Image.new("RGBA", image.size, background)
                canvas.alpha_composite(image.convert("RGBA"))
                image = canvas.convert("RGB")
                grey &= len(set(ImageColor.getrgb(background)[:3])) == 1
            channels = channels or (1 if grey else 3)
            mode = "L" if channels == 1 else "RGB"
            array = np.asarray(image if image.mode == mode else image.convert(mode))
    except DatasetError:
        raise
    except Image.DecompressionBombError as error:
        raise DatasetError(f"image larger than {MAX_PIXELS:,} pixels: such images are refused") from error
    except Exception as error:
        raise DatasetError(f"not a readable image ({image_format}: {type(error).__name__})") from error
    return array.reshape(array.shape[0], array.shape[1], channels)


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its EXIF data says.

    Only the tag Orientation is read. Pillow's own `exif_transpose` writes all tags again, and fails on an odd one.
    """
    image.load()  # a TIFF file is turned by this, and forgets its Orientation then
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    orientation: object = 1
    with suppress(Exception):  # EXIF data that can't be read says nothing
        orientation = image.getexif().get(0x0112, 1)
    return orientation if isinstance(orientation, int) else 1


def is_transparent(data: bytes) -> bool:
    """Whether any pixel of an image file is not opaque. False for a file that can't be read."""
    with suppress(Exception):  # decoding it says what is wrong
        if (image_format := format_of(data)) == "heic":
            _enable_heic()
        with Image.open(io.BytesIO(data), formats=FORMATS[image_format or ""]) as opened:
            if opened.has_transparency_data and opened.width * opened.height <= MAX_PIXELS:
                return bool((np.asarray(opened.convert("RGBA"))[:, :, 3] < 255).any())
    return False


def _enable_heic() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise DatasetError("is HEIC; install what reads it with `pip install 'synthforge[heic]'`, or convert it") from error
    register_heif_opener()


def turned_upright(data: bytes) -> bytes | None:
    """An image file whose pixels lie as its EXIF data says, for readers that ignore it. None: it lies so already.

    JPEG is encoded again with its own quantisation and subsampling; all else without loss. Colour profile and XMP
    (the marking) are kept, other metadata is not.

    Raises: DatasetError if it can't be read.
    """
    image_format = format_of(data)
    if image_format not in EXTENSIONS:
        return None
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS[image_format]) as opened:
            if _orientation(opened) not in _TURNS:
                return None
            kept = {"icc_profile": opened.info.get("icc_profile")}
            if xmp := opened.info.get("xmp"):
                kept["xmp"] = xmp
            if image_format == "jpg":
                kept |= {"qtables": opened.quantization, "subsampling": JpegImagePlugin.get_sampling(opened)}  # type: ignore[attr-defined]
            elif image_format == "webp":
                kept |= {"lossless": True, "exact": True}
            else:
                kept |= {"pnginfo": _png_text(opened)}
            buffer = io.BytesIO()
            _upright(opened).save(buffer, FORMATS[image_format][0], **{name: value for name, value in kept.items() if value is not None})
    except Exception as error:
        raise DatasetError(f"not a readable image ({image_format}: {type(error).__name__})") from error
    return buffer.getvalue()


def _png_text(image: Image.Image) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if xmp := image.info.get("XML:com.adobe.xmp"):
        info.add_itxt("XML:com.adobe.xmp", xmp)
    return info


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
