"""Local workers: starting, sharing out units, deaths."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import pytest

from synthforge.errors import ModelError
from synthforge.executors.local import LocalExecutor
from tests.contracts.works import FirstOnly, OnlyOnce, Squares
from tests.executors.runs import UNITS, Ran, no_worker_left, pids_of, ran, wait_for


def test_a_worker_that_hangs_before_its_first_report_is_given_three_times_as_long(work: Squares) -> None:
    work.faults = {"begin": ("hang", 1)}
    notes: list[str] = []
    ran("local-1", work, deadline_seconds=0.3, note=notes.append).check(set())
    assert notes[0].startswith("worker 1 of 1 died: reported nothing for 0.9 s: taken for hung")


def test_an_error_while_a_worker_is_opened_again_is_raised(work: Squares) -> None:
    gone = OnlyOnce(work.folder, {0: ("kill", 1)})
    with LocalExecutor(gone, 1) as executor:
        executor.open()
        with pytest.raises(ModelError, match="the model is gone; put it back"):
            Ran().run(executor, iter(UNITS))
    assert no_worker_left(work)


def test_a_place_where_workers_only_die_is_left_empty(work: Squares) -> None:
    notes: list[str] = []
    crippled = FirstOnly(work.folder, seconds=0.15)
    with LocalExecutor(crippled, 2, note=notes.append) as executor:
        assert executor.open()["worker"] == 0
        Ran().run(executor, iter(UNITS)).check(set())
    assert [note for note in notes if "going on without it" in note] == [
        "worker 2 of 2 died 3 times before it did anything; going on without it"
    ]


def test_work_begins_when_the_first_worker_is_open(work: Squares) -> None:
    work.opening = {0: 60, 1: 60}
    began = time.monotonic()
    with LocalExecutor(work, 3) as executor:
        assert executor.open()["worker"] == 2
        Ran().run(executor, iter(UNITS)).check(set())
    assert time.monotonic() - began < 10
    assert no_worker_left(work)


def test_units_are_shared_out_on_demand(work: Squares) -> None:
    work.seconds, work.depth = 0.1, 1
    with LocalExecutor(work, 3) as executor:
        executor.open()
        wait_for(lambda: len(work.read("opened")) == 3)
        result = Ran().run(executor, iter(UNITS))
    by_worker = Counter(outcome.receipt[1] for outcome in result.finished.values())
    assert len(by_worker) == 3 and max(by_worker.values()) <= 8


def test_a_worker_killed_from_outside_while_it_waits_is_replaced(work: Squares) -> None:
    with LocalExecutor(work, 1) as executor:
        executor.open()
        Ran().run(executor, iter(UNITS)).check(set())
        os.kill(pids_of(work)[0], signal.SIGKILL)
        result = Ran().run(executor, iter(UNITS))
        result.check(set())
        assert len(pids_of(work)) == 2
