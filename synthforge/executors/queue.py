"""Units that wait for a worker, their failed tries, and who is to blame when a worker dies.

A worker that dies may have several units in flight, and which one did it is unknown. Such a death counts against none of them; from
then on each is a suspect, which runs alone in its worker. A death of a lone unit is a failed try of that unit. So a unit that kills its
worker takes others down once at most, and has failed after `tries` more deaths, all its own; one that was only near never fails by it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from synthforge.executors.protocol import Failed, U

FEED_SECONDS = 0.5
"""After a feed had nothing, it is asked again so much later."""

T = TypeVar("T")


@dataclass(eq=False)
class Task(Generic[U]):
    """A unit on its way to an outcome."""

    unit: U
    failures: int = 0
    """Tries that failed."""
    is_suspect: bool = False
    """It was in flight when a worker died: it runs alone."""


class Queue(Generic[U]):
    """The units of one run that no worker has: first those to be tried at once, then the feed, then those that failed."""

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
        """Whether there is nothing now and never will be, unless something fails."""
        return self._has_ended and not self._first and not self._again

    def take(self, alone: bool) -> Task[U] | None:
        """The next unit; None if there is none now.

        Args:
            alone: whether the worker has nothing else in flight, and so may have a suspect.
        """
        return _first_fit(self._first, alone) or self._fresh() or _first_fit(self._again, alone)

    def put_back(self, task: Task[U]) -> None:
        """It never reached its worker."""
        self._first.appendleft(task)

    def fail(self, task: Task[U], reason: str, is_final: bool = False) -> Failed[U] | None:
        """Count a failed try; the outcome if it was the last, else the unit waits again."""
        task.failures += 1
        self._on_try_failed(task.unit, reason, task.failures)
        if is_final or task.failures >= self._tries:
            return Failed(task.unit, reason, task.failures)
        self._again.append(task)
        return None

    def blame(self, tasks: list[Task[U]], reason: str) -> Failed[U] | None:
        """The worker of these units died; the outcome if that was the last try of the only one."""
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
    for task in tasks:
        if alone or not task.is_suspect:
            tasks.remove(task)
            return task
    return None


class InFlight(Generic[U, T]):
    """The units that one call of `Stream.run` has taken and not yielded, each with what its giver knows it by."""

    def __init__(self) -> None:
        self.has_ended = False
        """Whether the stream was told that there are no more units."""
        self._units: list[U] = []
        self._labels: list[T] = []

    def add(self, unit: U, label: T) -> U:
        self._units.append(unit)
        self._labels.append(label)
        return unit

    def settle(self, unit: U) -> T:
        """The label of a unit that was yielded."""
        if unit not in self._units:
            raise RuntimeError(f"Stream.run yielded a unit that it does not have: {unit!r}")
        index = self._units.index(unit)
        del self._units[index]
        return self._labels.pop(index)

    def check_end(self) -> None:
        """A stream that ends early would lose units in silence, or be called for ever."""
        if self._units or not self.has_ended:
            raise RuntimeError(f"Stream.run ended before its units did, with {len(self._units)} of them in flight")
