"""Fixtures for executors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.works import Squares


@pytest.fixture
def work(tmp_path: Path) -> Squares:
    return Squares(str(tmp_path))
