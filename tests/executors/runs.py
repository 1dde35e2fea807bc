"""Runs of an executor in tests, and what became of its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from synthforge.executors.inline import InlineExecutor
from synthforge.executors.local import LocalExecutor
from synthforge.executors.protocol import Failed, Finished, Terms
from tests.contracts.works import SIZE, Squares

EXECUTORS: dict[str, Callable[..., Any]] = {
    "inline": lambda work, **options: InlineExecutor(work),
    "local-1": lambda work, **options: LocalExecutor(work, 1, **options),
    "local-3": lambda work, **options: LocalExecutor(work, 3, **options),
}


UNITS = list(range(12))


class Ran:
    """What came of one run, and what was told on the way."""

    def __init__(self) -> None:
        self.finished: dict[int, Finished[int, Any]] = {}
        self.failed: dict[int, Failed[int]] = {}
        self.progress: list[int] = []
        self.tries: list[tuple[int, str, int]] = []

    def run(self, executor: Any, feed: Iterator[int | None], tries: int = 3, on_try_failed: Callable[..., None] | None = None) -> Ran:
        def failed(*told: Any) -> None:
            self.tries.append(told)
            if on_try_failed is not None:
                on_try_failed(*told)

        for outcome in executor.run(feed, Terms(tries, lambda unit: SIZE, self.progress.append, failed)):
            assert outcome.unit not in self.finished | self.failed
            if isinstance(outcome, Finished):
                assert outcome.receipt[0] == outcome.unit**2
                self.finished[outcome.unit] = outcome
            else:
                self.failed[outcome.unit] = outcome
        assert sum(self.progress) == SIZE * len(self.finished)
        return self

    def check(self, failed: set[int]) -> None:
        """Every unit came out, these as failures."""
        assert set(self.failed) == failed
        assert set(self.finished) == set(UNITS) - failed


def ran(kind: str, work: Squares, tries: int = 3, **options: Any) -> Ran:
    with EXECUTORS[kind](work, **options) as executor:
        executor.open()
        return Ran().run(executor, iter(UNITS), tries)


def outcomes_of(executor: Any, units: list[int], on_progress: Callable[[int], None] = lambda num: None) -> Any:
    return executor.run(iter(units), Terms(1, lambda unit: SIZE, on_progress, lambda *told: None))


def pids_of(work: Squares) -> list[int]:
    return [int(line.split()[1]) for line in work.read("opened")]


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.02)


def no_worker_left(work: Squares) -> bool:
    return not any(is_running(pid) for pid in pids_of(work) if pid != os.getpid())


def program(work: Squares, faults: str, chatter: str = "") -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.contracts.works", work.folder, faults, chatter],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Where the tests themselves run in the background, interrupts are ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        cwd=Path(__file__).parents[2],
    )
