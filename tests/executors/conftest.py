"""Fixtures for executors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from synthforge.executors.process import end_early, start_early
from tests.contracts.works import Squares
from tests.executors.runs import is_running


@pytest.fixture
def work(tmp_path: Path) -> Squares:
    return Squares(str(tmp_path))


@pytest.fixture
def early() -> Iterator[list[int]]:
    """The processes that are started early in a test; none is left after it."""
    before = set(psutil.Process().children())
    start_early(3, ["no_such_module", "tests.contracts.works"])
    started = [child for child in psutil.Process().children() if child not in before]
    pids = [child.pid for child in started if "spawn_main" in " ".join(child.cmdline())]
    yield pids
    end_early()
    assert not any(is_running(pid) for pid in pids)
