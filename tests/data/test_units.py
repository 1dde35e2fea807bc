"""The format of an image is told by its bytes."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthforge.data.collection import Collection
from tests.data.sets import check_contract, column, images_of, raw_tar


def misnamed() -> dict[str, tuple[bytes, str]]:
    """Suffix to a file under it and the format that it has: a CMYK JPEG, an animated GIF and others, as they come from
    the web."""
    from PIL import Image

    frames = [Image.fromarray(np.full((8, 8), value, np.uint8)) for value in (0, 255)]

    def saved_as(kind: str, mode: str = "RGB", **options: Any) -> bytes:
        buffer = io.BytesIO()
        frames[0].convert(mode).save(buffer, kind, **options)
        return buffer.getvalue()

    return {
        "0.png": (saved_as("JPEG", "CMYK"), "jpg"),
        "1.png": (saved_as("GIF", "P", save_all=True, append_images=frames[1:]), "gif"),
        "2.png": (saved_as("WEBP"), "webp"),
        "3.jpg": (saved_as("PNG"), "png"),
        "4.jpg": (saved_as("BMP"), "bmp"),
        "5.webp": (saved_as("TIFF"), "tif"),
        "6.jpeg": (saved_as("JPEG"), "jpg"),
        "7.ppm": (saved_as("PPM"), "ppm"),
        "8.png": (b"no image at all", "png"),
        "9.webp": (b"", "webp"),
    }


@pytest.mark.parametrize("how", ["folder", "tar", "table"])
def test_the_format_is_that_of_the_bytes(tmp_path: Path, how: str, opened: Callable[..., Collection]) -> None:
    files = {name: data for name, (data, _) in misnamed().items() if data or how == "folder"}
    if how == "folder":
        (tmp_path / "a").mkdir()
        for name, data in files.items():
            (tmp_path / "a" / name).write_bytes(data)
    elif how == "tar":
        raw_tar(
            tmp_path / "a.tar", [entry for name, data in files.items() for entry in ((name, data), (f"{name.partition('.')[0]}.cls", b"a"))]
        )
    else:
        cells = [{"bytes": data, "path": name} for name, data in files.items()]
        pq.write_table(pa.table({"image": cells, "label": ["a"] * len(cells)}), tmp_path / "a.parquet")
    found = opened(tmp_path)
    check_contract(found)
    assert column(found, "extension") == [misnamed()[name][1] for name in files]
    assert images_of(found) == list(files.values())
