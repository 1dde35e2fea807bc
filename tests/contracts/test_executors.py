"""One suite over every executor; what only processes can do (die, hang, print) over those that have some."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from synthforge.errors import DatasetError, ModelError, RecipeError, RequestError, ShardFailed, StorageFailed, WorkError
from synthforge.executors.array import Part, parse_part, part_from_slurm
from synthforge.executors.inline import InlineExecutor
from synthforge.executors.local import LocalExecutor
from synthforge.executors.messages import Raised
from synthforge.executors.process import end_early, start_early
from synthforge.executors.protocol import Failed, Finished
from synthforge.executors.running import Workers
from synthforge.progress import Reporter
from tests.contracts.works import ALWAYS, SIZE, FirstOnly, Losing, OnlyOnce, Placed, Squares

EXECUTORS: dict[str, Callable[..., Any]] = {
    "inline": lambda work, **options: InlineExecutor(work),
    "local-1": lambda work, **options: LocalExecutor(work, 1, **options),
    "local-3": lambda work, **options: LocalExecutor(work, 3, **options),
}
each = pytest.mark.parametrize("kind", EXECUTORS)
each_local = pytest.mark.parametrize("kind", ["local-1", "local-3"])
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

        for outcome in executor.run(feed, tries=tries, size=lambda unit: SIZE, on_progress=self.progress.append, on_try_failed=failed):
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
    return executor.run(iter(units), tries=1, size=lambda unit: SIZE, on_progress=on_progress, on_try_failed=lambda *told: None)


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


@pytest.fixture
def work(tmp_path: Path) -> Squares:
    return Squares(str(tmp_path))


def no_worker_left(work: Squares) -> bool:
    return not any(is_running(pid) for pid in pids_of(work) if pid != os.getpid())


# Lists of units, one after another


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
        outcomes = executor.run(feed(), tries=3, size=lambda unit: SIZE, on_progress=lambda num: None, on_try_failed=lambda *told: None)
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


def test_a_worker_that_hangs_before_its_first_report_is_given_three_times_as_long(work: Squares) -> None:
    work.faults = {"begin": ("hang", 1)}
    notes: list[str] = []
    ran("local-1", work, deadline_seconds=0.3, note=notes.append).check(set())
    assert notes[0].startswith("worker 1 of 1 died: reported nothing for 0.9 s: taken for hung")


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


# Processes that were started early


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


def test_workers_are_the_processes_that_were_started_early(early: list[int], work: Squares) -> None:
    with LocalExecutor(work, 2) as executor:
        executor.open()
        Ran().run(executor, iter(UNITS)).check(set())
        wait_for(lambda: len(pids_of(work)) == 2)
    assert len(early) == 3 and set(pids_of(work)) < set(early)


def test_of_those_started_early_none_is_left_beside_the_workers(early: list[int], work: Squares) -> None:
    with Workers(work, 2, Reporter()) as workers:
        finished, failed = workers.run(UNITS, task="squares", size=lambda unit: SIZE, name=str)
        assert sum(is_running(pid) for pid in early) == 2
    assert len(finished) == len(UNITS) and not failed


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


def test_an_interrupt_ends_workers_quietly(work: Squares) -> None:
    process = program(work, "0")
    wait_for(lambda: work.read("fault-0"))
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGINT
    assert err.count("Traceback") == 1  # the caller's own
    assert no_worker_left(work)


@pytest.mark.parametrize(
    "error", [RecipeError(["a", "b"]), DatasetError("x"), RequestError("y"), ShardFailed("z", is_final=True), Placed("here", "wrong")]
)
def test_errors_travel_whole(error: Any) -> None:
    arrived = pickle.loads(pickle.dumps(Raised.of(error))).error()
    assert type(arrived) is type(error) and str(arrived) == str(error) and vars(arrived) == vars(error)


# Parts of an array


def test_parts_are_disjoint_and_together_everything() -> None:
    parts = [parse_part(f"{number}/3") for number in (1, 2, 3)]
    assert [sum(part.has(index) for part in parts) for index in range(20)] == [1] * 20
    assert parse_part("2/8") == Part(2, 8) and str(parse_part("2/8")) == "2/8"
    assert [index for index in range(20) if Part(2, 8).has(index)] == [1, 9, 17]
    assert all(parse_part("1/1").has(index) for index in range(5))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0/4", "parts count from 1, so the first is 1/4"),
        ("5/4", "there are only 4 parts; the last is 4/4"),
        ("1/0", "there are no parts of 0"),
        ("-1/4", "give number and count, such as 2/8"),
        ("2of8", "give number and count"),
        ("٢/٨", "give number and count"),
        ("2/8\n", "give number and count"),
        ("", "give number and count"),
        ("slurm", "start it with sbatch --array or srun"),
    ],
)
def test_a_part_that_makes_no_sense_is_refused(text: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_part(text, {})
    assert str(caught.value).startswith(f"--part {text}: ") and words in str(caught.value)


def slurm(task: object = None, low: int = 0, count: int = 8, step: int | None = None, **others: object) -> dict[str, str]:
    array = {} if task is None else {"ID": task, "MIN": low, "COUNT": count} | ({} if step is None else {"STEP": step})
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in array.items()} | {
        f"SLURM_{name}": str(value) for name, value in others.items()
    }


@pytest.mark.parametrize(
    ("environ", "part"),
    [
        (slurm(0), Part(1, 8)),
        (slurm(7), Part(8, 8)),
        (slurm(1, low=1), Part(1, 8)),
        (slurm(8, low=1, step=1), Part(8, 8)),
        (slurm(7, low=1, count=4, step=3), Part(3, 4)),
        (slurm(PROCID=0, NTASKS=4, STEP_ID=0), Part(1, 4)),
        (slurm(PROCID=3, NTASKS=4), Part(4, 4)),
        (slurm(PROCID=1, NTASKS=16, STEP_NUM_TASKS=2, STEP_ID=0), Part(2, 2)),
        (slurm(PROCID=0, NTASKS=1), Part(1, 1)),
        (slurm(2, low=1, count=4, PROCID=1, NTASKS=3, STEP_ID=0), Part(5, 12)),
        (slurm(2, low=1, count=4, PROCID=0, NTASKS=3), Part(2, 4)),  # in the batch script, which runs once
        (slurm(2, low=1, count=4, PROCID=0), Part(2, 4)),
    ],
)
def test_slurm_says_the_part(environ: dict[str, str], part: Part) -> None:
    assert part_from_slurm(environ) == part == parse_part("slurm", environ)


def test_slurm_parts_cover_an_array_of_steps() -> None:
    parts = [
        part_from_slurm(slurm(task, low=2, count=3, step=2, PROCID=process, NTASKS=2, STEP_ID=0))
        for task in (2, 4, 6)
        for process in (0, 1)
    ]
    assert parts == [Part(number, 6) for number in range(1, 7)]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (slurm(5, low=1, count=3), "not evenly spaced; use sbatch --array=1-3"),
        (slurm(4, low=1, count=4, step=2), "not evenly spaced"),
        (slurm("x"), "SLURM_ARRAY_TASK_ID is 'x', not a number"),
        ({"SLURM_ARRAY_TASK_ID": "1"}, "SLURM_ARRAY_TASK_MIN is ''"),
        (slurm(PROCID=0, NTASKS=4), "this is its batch script; start it with srun"),
        (slurm(PROCID=4, NTASKS=4), "SLURM_PROCID is 4 of 4"),
    ],
)
def test_slurm_variables_that_make_no_sense_are_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        part_from_slurm(environ)
    assert words in str(caught.value) and "\n" not in str(caught.value)
