"""Lists of units, one after another, in workers that stay open."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from synthforge.errors import ModelError
from synthforge.executors.running import Workers
from synthforge.progress import Reporter
from tests.contracts.works import ALWAYS, SIZE, Squares
from tests.executors.runs import UNITS, no_worker_left, pids_of, wait_for


def squared(workers: Workers[int, Any], units: list[int]) -> None:
    finished, failed = workers.run(units, task="squares", size=lambda unit: SIZE, name=str)
    assert {one.unit: one.receipt[0] for one in finished} == {unit: unit**2 for unit in units}
    assert not failed


def test_workers_stay_for_the_next_list_and_more_come_if_it_wants_more(work: Squares) -> None:
    with Workers(work, 2, Reporter()) as workers:
        assert not work.read("opened")
        squared(workers, [3])
        assert pids_of(work) == [os.getpid()]
        squared(workers, UNITS)
        wait_for(lambda: len(pids_of(work)) == 3)  # the first to open may have done all the units by itself
        two = pids_of(work)[1:]
        assert len(set(two)) == 2 and os.getpid() not in two
        squared(workers, [5])
        squared(workers, UNITS)
        assert pids_of(work)[1:] == two
    assert no_worker_left(work)


def test_what_stands_beside_is_done_by_idle_workers_until_the_last_unit_is_done(work: Squares) -> None:
    slow, beside = Squares(work.folder, seconds=0.4, depth=1), list(range(100, 200))
    with Workers(slow, 2, Reporter()) as workers:
        squared(workers, [1, 2])
        wait_for(lambda: len(pids_of(work)) == 2)
        finished, failed = workers.run([3], task="squares", size=lambda unit: SIZE * (unit < 100), name=str, beside=beside)
        done = [one.unit for one in finished]
        assert 3 in done and not failed
        assert 1 <= len(set(done) & set(beside)) <= 6
        assert all(one.receipt[0] == one.unit**2 for one in finished)
        squared(workers, [4, 5])


def test_of_what_stands_beside_nothing_is_done_after_a_failure(work: Squares) -> None:
    beside = list(range(100, 200))
    slow = Squares(work.folder, dict.fromkeys(beside, ("fail", ALWAYS)), seconds=0.4, depth=1)
    with Workers(slow, 2, Reporter()) as workers:
        workers.run([1, 2], task="squares", size=lambda unit: SIZE, name=str)
        wait_for(lambda: len(pids_of(work)) == 2)
        finished, failed = workers.run([3, 4, 5], task="squares", size=lambda unit: SIZE * (unit < 100), name=str, beside=beside)
    assert {one.unit for one in finished} == {3, 4, 5}
    assert len(failed) <= 2


def test_one_worker_does_nothing_that_stands_beside(work: Squares) -> None:
    with Workers(Squares(work.folder, depth=1), 1, Reporter()) as workers:
        finished, _ = workers.run([1, 2], task="squares", size=lambda unit: SIZE, name=str, beside=[100])
    assert [one.unit for one in finished] == [1, 2]


class Shown(Reporter):
    """Whether a bar is left standing."""

    is_on = False

    def begin(self, task: str, total: int, done: int = 0, unit: str = "images") -> None:
        self.is_on = True

    def end(self) -> None:
        self.is_on = False


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_leaves_no_worker_and_no_bar(tmp_path: Path, workers: int) -> None:
    work, shown = Squares(str(tmp_path), {UNITS[2]: ("request", ALWAYS)}), Shown()
    with pytest.raises(ModelError), Workers(work, workers, shown) as started:
        squared(started, UNITS)
    assert not shown.is_on
    assert no_worker_left(work)
