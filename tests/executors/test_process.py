"""Processes of workers: interrupts."""

from __future__ import annotations

import os
import signal

from tests.contracts.works import Squares
from tests.executors.runs import no_worker_left, program, wait_for


def test_an_interrupt_ends_workers_quietly(work: Squares) -> None:
    process = program(work, "0")
    wait_for(lambda: work.read("fault-0"))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1  # the caller's own
    assert no_worker_left(work)
