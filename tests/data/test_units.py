"""Which files a path stands for, and what their labels, captions and image formats are."""

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
from synthforge.errors import DatasetError
from tests.data.sets import IMAGES, check_contract, column, images_of, labelled, raw_tar


@pytest.mark.parametrize(
    "pattern", ["", "x-*.tar", "x-{00..02}.tar", "x-{00,01,02}.tar", "x-0[0-2].tar", "x-{00..09}.tar"], ids=lambda text: text or "folder"
)
def test_patterns(tmp_path: Path, pattern: str, opened: Callable[..., Collection]) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"x-{shard:02d}.tar", labelled(range(5)))
    found = opened(tmp_path / pattern)
    check_contract(found)
    assert [block.name for block in found.blocks] == ["x-00.tar", "x-01.tar", "x-02.tar"]
    assert found.num_samples == 15
    assert opened(tmp_path / "x-01.tar").num_samples == 5


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("x-{00..02}.tar", None),
        ("x-*.tar", None),
        ("x-{00..05}.tar", "{0}/x-{{00..05}}.tar: 3 of the 6 files that it spells out are missing, the first is {0}/x-03.tar"),
        ("x-{02,07}.tar", "{0}/x-{{02,07}}.tar: 1 of the 2 files that it spells out are missing, the first is {0}/x-07.tar"),
        ("{x,y}-0{0..2}.tar", "{0}/{{x,y}}-0{{0..2}}.tar: 3 of the 6 files that it spells out are missing, the first is {0}/y-00.tar"),
    ],
)
def test_files_that_braces_spell_out_and_are_not_there_are_told(
    tmp_path: Path, pattern: str, told: str | None, opened: Callable[..., Collection]
) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"x-{shard:02d}.tar", labelled(range(5)))
    assert opened(tmp_path / pattern).problems == ([told.format(tmp_path)] if told else [])


def test_tables_that_braces_spell_out_and_are_not_there_are_told(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    cells = [{"bytes": IMAGES[i], "path": None} for i in range(6)]
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"] * 3}), tmp_path / "x-0.parquet")
    (problem,) = opened(tmp_path / "x-{0..3}.parquet").problems
    assert problem == f"{tmp_path}/x-{{0..3}}.parquet: 3 of the 4 files that it spells out are missing, the first is {tmp_path}/x-1.parquet"


def test_a_name_of_brackets_is_no_pattern(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    (tmp_path / "[old] {1,2}").mkdir()
    raw_tar(tmp_path / "[old] {1,2}" / "a.tar", labelled(range(5)))
    assert opened(tmp_path / "[old] {1,2}" / "a.tar").num_samples == opened(tmp_path / "[old] {1,2}").num_samples == 5


def test_labels_and_captions_in_json_and_none_at_all(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    records = [
        b'{"label": 3, "caption": "three"}',
        b'{"class": "dog", "prompt": "a dog", "caption": "no", "strength": 0.25, "guidance": 2, "seed": 7, "source": "s"}',
        b'{"cls": "\\ud800 owl"}',
        b'{"label": true, "seed": -1, "strength": 1' + b"0" * 400 + b"}",
        b"[]",
        b"{",
    ]
    raw_tar(tmp_path / "j.tar", [(f"{i}.{ext}", data) for i, r in enumerate(records) for ext, data in (("png", IMAGES[i]), ("json", r))])
    found = opened(tmp_path)
    check_contract(found)
    assert column(found, "class") == ["3", "dog", "? owl", None, None, None]
    assert column(found, "prompt") == ["three", "a dog", None, None, None, None]
    assert [column(found, name)[1] for name in ("strength", "guidance", "seed", "source")] == [0.25, 2.0, 7, "s"]
    assert (column(found, "seed")[3], column(found, "strength")[3]) == (None, None)
    raw_tar(tmp_path / "j.tar", {"a.png": IMAGES[0], "b.png": IMAGES[1]})
    with pytest.raises(DatasetError, match=r"2 images and no label; each needs a .cls"):
        opened(tmp_path)


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
