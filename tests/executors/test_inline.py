"""Work in this process: no other process, and units one after another."""

from __future__ import annotations

import os

import psutil
import pytest

from synthforge.executors.inline import InlineExecutor
from tests.contracts.works import ALWAYS, Squares
from tests.executors.runs import UNITS, Ran, outcomes_of, pids_of


def test_everything_happens_in_this_process(work: Squares) -> None:
    before = psutil.Process().children()
    with InlineExecutor(work) as executor:
        assert executor.open()["pid"] == os.getpid()
        Ran().run(executor, iter(UNITS)).check(set())
        assert psutil.Process().children() == before
    assert pids_of(work) == [os.getpid()]


def test_a_bug_in_the_work_is_the_callers() -> None:
    class Broken:
        def open(self, place: object) -> object:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), InlineExecutor(Broken()) as executor:  # type: ignore[arg-type]
        executor.open()


def test_a_unit_of_work_fails_without_stopping_others(work: Squares) -> None:
    work.faults = {1: ("fail", ALWAYS)}
    with InlineExecutor(work) as executor:
        executor.open()
        assert sorted(outcome.unit for outcome in outcomes_of(executor, [0, 1, 2])) == [0, 1, 2]
