"""Small images embedded in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from synthforge.arrays import Ints
from synthforge.data.image_table import Table
from synthforge.data.units import Members
from synthforge.errors import DatasetError

SIDE = 64
"""Side of an image in the page, in pixels. Small images are enlarged without smoothing."""
QUALITY = 80


@dataclass(frozen=True)
class Strip:
    """Several images side by side in one file."""

    uri: str
    alt: str
    columns: int
    rows: int
    side: int
    """Side of each image, in pixels."""
    gap: int
    """Pixels between two images."""

    @property
    def width(self) -> int:
        return self.columns * (self.side + self.gap) - self.gap

    @property
    def height(self) -> int:
        return self.rows * (self.side + self.gap) - self.gap


def strip(table: Table, rows: Sequence[int], alt: str) -> Strip | None:
    """Images of a table side by side in one picture; None for no images.

    Unreadable images are grey. Row -1 leaves a place empty.
    """
    wanted = np.asarray(rows, np.int64)
    if not (wanted >= 0).any():
        return None
    found = {row: _thumbnail(members, SIDE) for row, members in table.samples(np.unique(wanted[wanted >= 0]))}
    empty = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    return sheet([found.get(row, empty) for row in wanted.tolist()], alt, len(wanted), SIDE, gap=4)


def sheet(images: Sequence[Image.Image], alt: str, columns: int, side: int, gap: int = 0) -> Strip:
    """Square images of one size in one file, on a transparent background."""
    found = Strip(uri="", alt=alt, columns=columns, rows=-(-len(images) // columns), side=side, gap=gap)
    whole = Image.new("RGBA", (found.width, found.height), (0, 0, 0, 0))
    for place, image in enumerate(images):
        whole.paste(image, (place % columns * (side + gap), place // columns * (side + gap)))
    buffer = io.BytesIO()
    whole.save(buffer, "WEBP", quality=QUALITY, method=4)
    return replace(found, uri="data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode())


def thumbnails(table: Table, rows: Ints, side: int) -> list[Image.Image]:
    """The images of these rows as squares of `side` pixels, in order."""
    found = {row: _thumbnail(members, side) for row, members in table.samples(np.unique(rows))}
    return [found[row] for row in rows.tolist()]


def _thumbnail(members: Members, side: int) -> Image.Image:
    """An image fitted into a square; small images are enlarged without smoothing."""
    try:
        pixels = members.pixels(3)
    except DatasetError:
        return Image.new("RGB", (side, side), (128, 128, 128))
    image = Image.fromarray(pixels)
    longer = max(image.size)
    scale = side / longer
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    fitted = image.resize(size, Image.Resampling.NEAREST if longer * 2 <= side else Image.Resampling.LANCZOS)
    square = Image.new("RGB", (side, side), (128, 128, 128))
    square.paste(fitted, ((side - fitted.width) // 2, (side - fitted.height) // 2))
    return square
