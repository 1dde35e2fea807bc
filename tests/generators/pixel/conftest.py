"""Fixtures of this folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.generators.pixel.made import BUILTIN


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN, tmp_path / "model"))
