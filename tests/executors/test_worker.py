"""A worker's own process: what it prints, and when it leaves."""

from __future__ import annotations

import json
import os
import signal

from synthforge.executors.local import LocalExecutor
from tests.contracts.works import Squares
from tests.executors.runs import UNITS, is_running, no_worker_left, outcomes_of, pids_of, program, wait_for


def test_what_workers_print_stays_out_of_standard_output(work: Squares) -> None:
    process = program(work, "", "chatter")
    out, err = process.communicate(timeout=30)
    assert json.loads(out) == [unit**2 for unit in range(6)]
    assert "chatter print" in err and "chatter write" in err


def test_workers_leave_when_their_parent_is_killed(work: Squares) -> None:
    process = program(work, "0")
    wait_for(lambda: len(work.read("opened")) == 2 and work.read("fault-0"))
    assert all(is_running(pid) for pid in pids_of(work))
    process.kill()
    process.communicate(timeout=20)
    wait_for(lambda: no_worker_left(work), 5)


def test_an_interrupt_is_left_to_the_caller(work: Squares) -> None:
    work.seconds = 0.1
    notes: list[str] = []
    with LocalExecutor(work, 1, note=notes.append) as executor:
        executor.open()
        outcomes = list(outcomes_of(executor, UNITS[:4], lambda num: os.kill(pids_of(work)[0], signal.SIGINT)))
    assert len(outcomes) == 4 and not notes
