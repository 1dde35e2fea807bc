"""Labels and captions of foreign sets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synthforge.data.collection import Collection
from synthforge.errors import DatasetError
from tests.data.sets import IMAGES, check_contract, column, raw_tar


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
