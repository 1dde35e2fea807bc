"""One suite over every executor; what only processes can do (die, hang, print) over those that have some."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from synthforge.errors import ModelError, RecipeError, StorageFailed, WorkError
from synthforge.executors.protocol import Failed, Terms
from tests.contracts.works import ALWAYS, SIZE, Losing, Squares
from tests.executors.runs import EXECUTORS, UNITS, Ran, no_worker_left, outcomes_of, pids_of, ran

each = pytest.mark.parametrize("kind", EXECUTORS)


each_local = pytest.mark.parametrize("kind", ["local-1", "local-3"])


@pytest.fixture
def work(tmp_path: Path) -> Squares:
    return Squares(str(tmp_path))


# Every executor


@each
def test_every_unit_comes_out_once_with_its_receipt(kind: str, work: Squares) -> None:
    with EXECUTORS[kind](work) as executor:
        facts = executor.open()
        assert str(facts["pid"]) in " ".join(work.read("opened"))
        Ran().run(executor, iter(UNITS)).check(set())
        assert sorted(map(int, work.read("taken"))) == UNITS
        Ran().run(executor, iter(UNITS)).check(set())  # and once more, with the same workers
    used = {line.split("/")[0] for line in work.read("opened")}
    assert len(work.read("opened")) == len(used)
    assert set(work.read("closed")) <= used and len(work.read("closed")) == len(set(work.read("closed"))) >= 1


@each
def test_fewer_units_than_workers_and_none(kind: str, work: Squares) -> None:
    with EXECUTORS[kind](work) as executor:
        executor.open()
        assert list(Ran().run(executor, iter([7])).finished) == [7]
        assert not Ran().run(executor, iter([])).finished


@each
def test_a_failed_unit_is_tried_again(kind: str, work: Squares) -> None:
    work.faults = {4: ("fail", 2)}
    result = ran(kind, work)
    result.check(set())
    assert result.finished[4].tries == 3
    assert result.tries == [(4, "unit 4 failed", 1), (4, "unit 4 failed", 2)]
    assert result.finished[5].tries == 1


@pytest.mark.parametrize("kind", ["inline", "local-1"])
def test_a_failed_unit_waits_for_the_others(kind: str, work: Squares) -> None:
    work.faults = {0: ("fail", 1)}
    ran(kind, work)
    taken = list(map(int, work.read("taken")))
    assert taken.count(0) == 2 and set(taken[:-1]) == set(UNITS)


@each
def test_a_unit_that_always_fails_comes_out_as_failed(kind: str, work: Squares) -> None:
    work.faults = {0: ("fail", ALWAYS), 11: ("fail", ALWAYS)}
    result = ran(kind, work, tries=2)
    result.check({0, 11})
    assert result.failed[11] == Failed(11, "unit 11 failed", 2)
    assert Counter(unit for unit, _, _ in result.tries) == {0: 2, 11: 2}


@each
def test_a_final_failure_is_not_tried_again(kind: str, work: Squares) -> None:
    work.faults = {3: ("hopeless", ALWAYS)}
    result = ran(kind, work)
    result.check({3})
    assert result.failed[3] == Failed(3, "unit 3 is hopeless", 1)
    assert result.tries == [(3, "unit 3 is hopeless", 1)]


@each
@pytest.mark.parametrize("culprit", ["on_try_failed", "feed", "work"])
def test_what_is_raised_stops_everything(kind: str, work: Squares, culprit: str) -> None:
    work.faults = {2: ("storage" if culprit == "work" else "fail", ALWAYS)}

    def feed() -> Iterator[int]:
        yield from range(4)
        if culprit == "feed":
            raise StorageFailed("disk full")
        yield from range(4, 1000)

    def on_try_failed(unit: int, reason: str, number: int) -> None:
        if culprit == "on_try_failed":
            raise StorageFailed("disk full")

    with EXECUTORS[kind](work) as executor:
        executor.open()
        with pytest.raises(StorageFailed, match=r"^disk full$"):
            Ran().run(executor, feed(), on_try_failed=on_try_failed)
        assert no_worker_left(work)
    assert len(work.read("taken")) < 50


@each
@pytest.mark.parametrize(
    ("fault", "error"),
    [("request", ModelError("no such model; give another")), ("recipe", RecipeError(["first: wrong", "second: wrong too"]))],
)
def test_what_opening_raises_is_raised_with_type_and_message(kind: str, work: Squares, fault: str, error: Exception) -> None:
    work.faults = {"open": (fault, ALWAYS)}
    with EXECUTORS[kind](work) as executor:
        with pytest.raises(type(error)) as caught:
            executor.open()
        assert str(caught.value) == str(error) and vars(caught.value) == vars(error)
        assert no_worker_left(work)


@each
def test_what_closing_raises_is_raised_unless_something_else_is(kind: str, work: Squares) -> None:
    work.faults = {"close": ("storage", ALWAYS)}
    with pytest.raises(StorageFailed):
        ran(kind, work)

    def fail_within() -> None:
        with EXECUTORS[kind](work) as executor:
            executor.open()
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fail_within()
    assert no_worker_left(work)


@each
def test_a_feed_that_has_nothing_now_is_asked_again_later(kind: str, work: Squares) -> None:
    asked: list[float] = []

    def feed() -> Iterator[int | None]:
        yield from (0, 1)
        for _ in range(3):
            asked.append(time.monotonic())
            # Nothing that is finished is held back while there is nothing new.
            assert len(asked) == 1 or set(result.finished) == {0, 1}
            yield None
        yield from range(2, 12)

    result = Ran()
    with EXECUTORS[kind](work) as executor:
        executor.open()
        result.run(executor, feed())
    result.check(set())
    assert all(0.45 < later - earlier < 5 for earlier, later in pairwise(asked))


@each
def test_the_feed_is_drawn_only_as_workers_want_units(kind: str, work: Squares) -> None:
    drawn = 0

    def feed() -> Iterator[int]:
        nonlocal drawn
        for unit in range(1000):
            drawn += 1
            yield unit

    with EXECUTORS[kind](work) as executor:
        executor.open()
        outcomes = executor.run(feed(), Terms(3, lambda unit: SIZE, lambda num: None, lambda *told: None))
        assert drawn == 0
        for done in range(1, 10):
            next(outcomes)
            workers = 3 if kind == "local-3" else 1
            assert drawn <= done + workers * work.depth
        outcomes.close()
        assert no_worker_left(work)


@each
def test_a_stream_that_loses_units_is_a_bug_that_shows(kind: str, work: Squares) -> None:
    losing = Losing(work.folder)
    with EXECUTORS[kind](losing) as executor:
        executor.open()
        if kind == "inline":
            with pytest.raises(RuntimeError, match="ended before its units did"):
                Ran().run(executor, iter(UNITS))
        else:
            result = Ran().run(executor, iter(UNITS), tries=1)
            assert "RuntimeError: Stream.run ended before its units did" in result.failed[0].reason


# Processes that die and hang


@each_local
@pytest.mark.parametrize("fault", ["kill", "exit", "bug"])
def test_a_worker_that_dies_once_costs_nothing(kind: str, work: Squares, fault: str) -> None:
    work.faults = {5: (fault, 1)}
    notes: list[str] = []
    result = ran(kind, work, tries=2, note=notes.append)
    result.check(set())
    if kind == "local-1":  # it had others in flight, so nobody is blamed
        assert not result.tries
    assert min(result.progress) < 0
    words = {"kill": "killed by signal 9 (SIGKILL)", "exit": "exited with status 3", "bug": "ZeroDivisionError: division"}
    assert len(notes) == 1 and words[fault] in notes[0] and "by nothing" not in notes[0]


@each_local
def test_a_unit_that_always_kills_fails_alone(kind: str, work: Squares) -> None:
    work.faults = {5: ("kill", ALWAYS), 6: ("exit", 1)}
    result = ran(kind, work, tries=2)
    result.check({5})
    assert result.failed[5].tries == 2
    assert result.failed[5].reason == "its worker died: killed by signal 9 (SIGKILL), often because memory ran out"
    assert 2 <= len(work.read("fault-5")) <= 3  # at most one death besides its own tries
    assert {unit for unit, _, _ in result.tries} <= {5, 6}


@each_local
def test_neighbours_of_units_that_always_kill_never_fail(kind: str, work: Squares) -> None:
    work.faults = dict.fromkeys((1, 4, 8), ("exit", ALWAYS))
    result = ran(kind, work, tries=1)
    result.check({1, 4, 8})
    assert all(outcome.tries == 1 for outcome in result.finished.values())


@each_local
def test_a_suspect_runs_alone(kind: str, work: Squares) -> None:
    work.faults = {5: ("kill", 2), 3: ("fail", 1)}
    result = ran(kind, work)
    result.check(set())
    assert {unit for unit, _, _ in result.tries} <= {3, 5}
    first, second = work.read("fault-5")
    assert second == ""  # nothing else was in flight
    if kind == "local-1":
        assert first == "6,7"
        assert [told for told in result.tries if told[0] == 5] == [(5, result.tries[-1][1], 1)]


@each_local
@pytest.mark.parametrize("times", [1, ALWAYS])
def test_a_hung_worker_is_killed(kind: str, work: Squares, times: int) -> None:
    work.faults = {5: ("hang", times)}
    result = ran(kind, work, tries=2, deadline_seconds=0.6)
    result.check(set() if times == 1 else {5})
    if times > 1:
        assert "taken for hung; raise execution.deadline_seconds if it is only slow" in result.failed[5].reason
    assert no_worker_left(work)


@each_local
def test_a_worker_that_waits_is_not_hung(kind: str, work: Squares) -> None:
    notes: list[str] = []

    def feed() -> Iterator[int | None]:
        yield 0
        limit = time.monotonic() + 1.2
        while time.monotonic() < limit:
            yield None
        yield 1

    with EXECUTORS[kind](work, deadline_seconds=0.2, note=notes.append) as executor:
        executor.open()
        assert set(Ran().run(executor, feed()).finished) == {0, 1}
    assert not notes


@each_local
def test_while_the_caller_is_busy_or_suspended_workers_are_not_silent(kind: str, work: Squares) -> None:
    work.seconds = 0.8
    notes: list[str] = []
    seen: list[int] = []

    def suspend(num: int) -> None:
        seen.append(num)
        if len(seen) == 1:  # as when all of a machine is suspended
            for pid in pids_of(work):
                os.kill(pid, signal.SIGSTOP)
            time.sleep(2.5)
            for pid in pids_of(work):
                os.kill(pid, signal.SIGCONT)

    with EXECUTORS[kind](work, deadline_seconds=2.2, note=notes.append) as executor:
        executor.open()
        assert len(list(outcomes_of(executor, [0, 1], suspend))) == 2
    assert not notes


@each_local
def test_workers_that_only_die_while_opening_stop_the_run(kind: str, work: Squares) -> None:
    work.faults = {"open": ("exit", ALWAYS)}
    with (
        EXECUTORS[kind](work) as executor,
        pytest.raises(WorkError, match="no worker could begin: 3 died in a row, the last exited with status 3"),
    ):
        executor.open()
    assert no_worker_left(work) and len(work.read("fault-open")) >= 1


@each_local
def test_dying_twice_while_opening_is_forgiven(kind: str, work: Squares) -> None:
    work.faults = {"open": ("kill", 2)}
    ran(kind, work).check(set())


@each_local
def test_opening_may_not_take_for_ever(kind: str, work: Squares) -> None:
    work.faults = {"open": ("hang", ALWAYS)}
    with EXECUTORS[kind](work, opening_seconds=0.7) as executor, pytest.raises(WorkError, match=r"did not open within 0\.7 s"):
        executor.open()
    assert no_worker_left(work)


# Processes that outlive, print, are interrupted


def fail_amid(executor: Any) -> None:
    executor.open()
    for _ in outcomes_of(executor, UNITS):
        raise KeyError("mine")


@each_local
def test_no_worker_outlives_the_context(kind: str, work: Squares) -> None:
    with pytest.raises(KeyError), EXECUTORS[kind](work) as executor:
        fail_amid(executor)
    assert no_worker_left(work)
