"""Run work in this process: the executor for one device, and the easiest to debug. A crash ends the caller too."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any, TypeVar

from synthforge.errors import SynthforgeError
from synthforge.executors.protocol import Executor, Finished, Outcome, Place, Stream, Terms, U, Work
from synthforge.executors.queue import InFlight, Queue, Task

R = TypeVar("R")


class InlineExecutor(Executor[U, R]):
    """An executor whose only worker is this process."""

    def __init__(self, work: Work[U, R]) -> None:
        self._work = work
        self._stream: Stream[U, R] | None = None

    def open(self) -> Any:
        self._stream = self._work.open(Place(0, 1))
        return self._stream.describe()

    def run(self, feed: Iterator[U | None], terms: Terms[U]) -> Iterator[Outcome[U, R]]:
        assert self._stream is not None, "call open() first"
        queue = Queue(feed, terms.tries, terms.on_try_failed)
        while not queue.is_over:
            queue.wait()
            in_flight: InFlight[U, Task[U]] = InFlight(lambda: (task.unit, task) if (task := queue.take(alone=True)) else None)
            with closing(self._stream.run(in_flight.units(), terms.on_progress)) as results:
                for unit, result in results:
                    task = in_flight.settle(unit)
                    if not isinstance(result, SynthforgeError):
                        yield Finished(unit, result, task.failures + 1)
                    elif failed := queue.fail(task, str(result), getattr(result, "is_final", False)):
                        yield failed
            in_flight.check_end()

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def abandon(self) -> None:
        with suppress(SynthforgeError):
            self.close()
