"""What can't be opened is named."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from synthforge.data.collection import Collection
from synthforge.errors import DatasetError
from tests.data.sets import image_folder


def test_what_cannot_be_opened_is_named(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    (tmp_path / "empty").mkdir()
    for place, hint in (("nowhere", "check the path"), ("empty", "images need a sub-folder for each class"), ("*.tar", "check the path")):
        with pytest.raises(
            DatasetError, match=rf"no dataset folder, WebDataset tars, folder of images by class or `datasets` there; {hint}"
        ):
            opened(tmp_path / place)
    folder = image_folder(tmp_path / "bad", 2)
    (folder / "cat" / "001.png").rename(folder / "cat" / os.fsdecode(b"\xff.png"))
    with pytest.raises(DatasetError, match="its name is not UTF-8; rename it"):
        opened(folder)


def test_remote_sets_of_others_are_refused(s3: str, opened: Callable[..., Collection]) -> None:
    for address in (f"{s3}/tars", f"{s3}/x-{{0..3}}.tar"):
        with pytest.raises(DatasetError, match=r"no dataset.json there, and sets of other programs are read from disk only"):
            opened(address)
