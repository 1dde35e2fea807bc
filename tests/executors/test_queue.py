"""Units that wait: order, failed tries, suspects, and units in flight."""

from __future__ import annotations

import time

import pytest

from synthforge.executors.protocol import Failed
from synthforge.executors.queue import InFlight, Queue

Tries = list[tuple[int, str, int]]


def queue_of(*units: int | None, tries: int = 2) -> tuple[Queue[int], Tries]:
    noted: Tries = []
    return Queue(iter(units), tries, lambda *told: noted.append(told)), noted


def take(queue: Queue[int], alone: bool = True) -> int | None:
    task = queue.take(alone)
    return None if task is None else task.unit


def test_failed_units_come_after_the_feed_and_those_put_back_before_it() -> None:
    queue, noted = queue_of(1, 2, 3)
    first, second = queue.take(True), queue.take(True)
    assert first is not None and second is not None
    assert queue.fail(first, "bad") is None
    queue.put_back(second)
    assert [take(queue) for _ in range(4)] == [2, 3, 1, None]
    assert queue.is_over
    assert noted == [(1, "bad", 1)]


def test_the_last_try_or_a_final_failure_is_the_outcome() -> None:
    queue, _ = queue_of(1, 2)
    task, other = queue.take(True), queue.take(True)
    assert task is not None and other is not None
    assert queue.fail(task, "bad") is None
    assert queue.fail(task, "worse") == Failed(1, "worse", 2)
    assert queue.fail(other, "never", is_final=True) == Failed(2, "never", 1)


def test_of_several_in_flight_none_is_blamed_but_each_runs_alone() -> None:
    queue, noted = queue_of(1, 2, 3)
    tasks = [task for task in (queue.take(True), queue.take(True)) if task is not None]
    assert queue.blame(tasks, "died") is None
    assert noted == []
    assert take(queue, alone=False) == 3  # the suspects wait for a worker of their own
    assert take(queue, alone=False) is None
    suspect = queue.take(True)
    assert suspect is not None and suspect.unit == 1
    assert queue.blame([suspect], "died again") is None
    assert noted == [(1, "died again", 1)]


def test_a_feed_with_nothing_is_asked_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthforge.executors.queue.FEED_SECONDS", 0.05)
    queue, _ = queue_of(None, 7)
    assert take(queue) is None and not queue.is_over
    began = time.monotonic()
    queue.wait()
    assert time.monotonic() - began > 0.02
    assert take(queue) == 7


def test_units_in_flight_are_settled_once() -> None:
    pairs = iter([(1, "first"), (1, "second")])
    in_flight: InFlight[int, str] = InFlight(lambda: next(pairs, None))
    units = in_flight.units()
    assert [next(units), next(units)] == [1, 1]
    assert [in_flight.settle(1), in_flight.settle(1)] == ["first", "second"]
    with pytest.raises(RuntimeError, match="yielded a unit that it does not have: 1"):
        in_flight.settle(1)
    with pytest.raises(RuntimeError, match="ended before its units did"):
        in_flight.check_end()
    assert list(units) == []
    in_flight.check_end()
