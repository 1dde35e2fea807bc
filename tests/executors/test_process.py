"""Processes that are started early, and interrupts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from synthforge.executors.local import LocalExecutor
from tests.contracts.works import Squares
from tests.executors.runs import UNITS, Ran, is_running, no_worker_left, pids_of, program, wait_for


def test_workers_are_the_processes_that_were_started_early(early: list[int], work: Squares) -> None:
    with LocalExecutor(work, 2) as executor:
        executor.open()
        Ran().run(executor, iter(UNITS)).check(set())
        wait_for(lambda: len(pids_of(work)) == 2)
    assert len(early) == 3 and set(pids_of(work)) < set(early)


def test_one_that_died_before_it_was_wanted_is_replaced(early: list[int], work: Squares) -> None:
    notes: list[str] = []
    for pid in early:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(is_running, early)))
    with LocalExecutor(work, 2, note=notes.append) as executor:
        executor.open()
        Ran().run(executor, iter(UNITS)).check(set())
    assert not notes


def test_a_command_that_fails_does_not_wait_for_those_started_early() -> None:
    code = (
        "from synthforge.executors.process import start_early\n"
        "if __name__ == '__main__':\n"
        "    start_early(2, ['tests.contracts.slow_import'])\n"
        "    raise SystemExit('failed')\n"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.stderr == "failed\n" and time.monotonic() - began < 20


def test_an_interrupt_ends_workers_quietly(work: Squares) -> None:
    process = program(work, "0")
    wait_for(lambda: work.read("fault-0"))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1  # the caller's own
    assert no_worker_left(work)
