"""Units that wait for a worker, their failed tries, and which unit is blamed when a worker dies.

A worker may die with several units in flight, and then it is unknown which of them killed it. No unit is blamed.
Each becomes a suspect, and a suspect runs alone in its worker. If that worker dies too, the suspect has failed a try.
So a unit that kills its worker fails after `tries` more deaths, and disturbs other units at most once.
A unit that was only in flight beside it never fails for that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from synthforge.executors.protocol import Failed, U

FEED_SECONDS = 0.5
"""Time until a feed that had nothing is asked again."""

T = TypeVar("T")


@dataclass(eq=False)
class Task(Generic[U]):
    """A unit on its way to an outcome."""

    unit: U
    failures: int = 0
    """Number of failed tries."""
    is_suspect: bool = False
    """Whether it was in flight when a worker died. A suspect runs alone."""


class Queue(Generic[U]):
    """The waiting units of one run, in this order: units to try at once, the feed, units that have failed a try."""

    def __init__(self, feed: Iterator[U | None], tries: int, on_try_failed: Callable[[U, str, int], None]) -> None:
        self._feed = feed
        self._tries = tries
        self._on_try_failed = on_try_failed
        self._first: deque[Task[U]] = deque()
        self._again: deque[Task[U]] = deque()
        self._has_ended = False
        self._ask_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether no unit waits and the feed has ended. A failed try may still add a unit."""
        return self._has_ended and not self._first and not self._again

    def take(self, alone: bool) -> Task[U] | None:
        """The next unit. None: there is none now.

        Args:
            alone: whether the worker has nothing else in flight. Only then it may get a suspect.
        """
        return _first_fit(self._first, alone) or self._fresh() or _first_fit(self._again, alone)

    def put_back(self, task: Task[U]) -> None:
        """Take back a unit that never reached its worker."""
        self._first.appendleft(task)

    def fail(self, task: Task[U], reason: str, is_final: bool = False) -> Failed[U] | None:
        """Count a failed try. Returns the outcome if it was the last one. None: the unit waits again."""
        task.failures += 1
        self._on_try_failed(task.unit, reason, task.failures)
        if is_final or task.failures >= self._tries:
            return Failed(task.unit, reason, task.failures)
        self._again.append(task)
        return None

    def blame(self, tasks: list[Task[U]], reason: str) -> Failed[U] | None:
        """Handle the death of a worker with these units in flight. Returns the outcome if a lone unit has failed."""
        for task in tasks:
            task.is_suspect = True
        if len(tasks) == 1:
            return self.fail(tasks[0], reason)
        self._first.extend(tasks)
        return None

    def wait(self) -> None:
        """Sleep until there may be something to take."""
        if not self._first and not self._again and not self._has_ended:
            time.sleep(max(0.0, self._ask_at - time.monotonic()))

    def _fresh(self) -> Task[U] | None:
        if self._has_ended or time.monotonic() < self._ask_at:
            return None
        try:
            unit = next(self._feed)
        except StopIteration:
            self._has_ended = True
            return None
        if unit is None:
            self._ask_at = time.monotonic() + FEED_SECONDS
            return None
        return Task(unit)


def _first_fit(tasks: deque[Task[U]], alone: bool) -> Task[U] | None:
    task = next((task for task in tasks if alone or not task.is_suspect), None)
    if task is not None:
        tasks.remove(task)
    return task


class InFlight(Generic[U, T]):
    """The units that one call of `Stream.run` has taken and not yet yielded, each with a label.

    Args:
        take: gives the next unit with its label. None: there is none now.
    """

    def __init__(self, take: Callable[[], tuple[U, T] | None]) -> None:
        self._take = take
        self._has_ended = False
        self._pairs: list[tuple[U, T]] = []

    def units(self) -> Iterator[U]:
        """The units for `Stream.run`, until there is none now."""
        while pair := self._take():
            self._pairs.append(pair)
            yield pair[0]
        self._has_ended = True

    def settle(self, unit: U) -> T:
        """The label of a unit that was yielded. Of equal units, the first that was taken counts."""
        for index, (other, label) in enumerate(self._pairs):
            if other == unit:
                del self._pairs[index]
                return label
        raise RuntimeError(f"Stream.run yielded a unit that it does not have: {unit!r}")

    def check_end(self) -> None:
        """Raise RuntimeError if the stream ended early: units would be lost, or it would be called for ever."""
        if self._pairs or not self._has_ended:
            raise RuntimeError(f"Stream.run ended before its units did, with {len(self._pairs)} of them in flight")
