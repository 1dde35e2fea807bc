"""Run work in local processes. A worker that dies or hangs is replaced, and no worker outlives its caller.

One loop without threads waits for all pipes at once and answers the workers.
A worker gets a unit when it asks for one. If there is none, it is told to finish its units in flight.
Only a worker without units in flight is left waiting for an answer.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from typing import Any, TypeVar

from synthforge.errors import SynthforgeError, WorkError
from synthforge.executors.messages import Advanced, Died, Drain, Made, Message, Missed, Opened, Raised, Stop
from synthforge.executors.process import EXIT_SECONDS, Allowance, WorkerProcess, interrupts_blocked
from synthforge.executors.protocol import Executor, Finished, Outcome, Place, Terms, U, Work
from synthforge.executors.queue import Queue

TICK_SECONDS = 0.25
"""Time between looks at the feed and at deadlines while no worker sends anything."""
DEATHS_IN_A_ROW = 3
"""With other workers open, a place is dropped after this many deaths without a unit in flight. With none open, this
many in total stop the run."""
CLOSE_SECONDS = 60.0
"""Time for a worker to close its stream before it is killed."""

R = TypeVar("R")


class LocalExecutor(Executor[U, R]):
    """Workers in spawned processes, which share no state of devices or threads.

    Args:
        workers: number of processes.
        deadline_seconds: a worker with units that reports nothing for this long counts as hung. Before its first report
            it has three times as long.
        opening_seconds: the same while it opens its work.
        note: gets one line for each death.
    """

    def __init__(
        self,
        work: Work[U, R],
        workers: int,
        *,
        deadline_seconds: float = 600.0,
        opening_seconds: float = 1800.0,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._work = work
        self._num_workers = workers
        self._allowance = Allowance(deadline_seconds, opening_seconds)
        self._note = note
        self._pickled_work = b""
        self._workers: list[WorkerProcess[U]] = []
        self._deaths: dict[Place, int] = {}
        """Number of deaths in a row without a unit in flight."""
        self._listened = 0.0

    def allow(self, deadline_seconds: float) -> None:
        """Change the deadline."""
        self._allowance.deadline = deadline_seconds

    def open(self) -> Any:
        self._pickled_work = pickle.dumps(self._work)
        self._listened = time.monotonic()
        try:
            for number in range(self._num_workers):
                self._start(Place(number, self._num_workers))
            while True:
                for worker, message in self._messages():
                    if isinstance(message, Opened):
                        return message.facts
                    if isinstance(message, Died):
                        self._replace(worker, message.reason)
        except BaseException:
            self._end()
            raise

    def run(self, feed: Iterator[U | None], terms: Terms[U]) -> Iterator[Outcome[U, R]]:
        assert self._workers, "call open() first; after an error the executor can't be used again"
        queue = Queue(feed, terms.tries, terms.on_try_failed)
        try:
            while True:
                self._answer_all(queue)
                if queue.is_over and not any(worker.tasks for worker in self._workers):
                    return
                for worker, message in self._messages():
                    yield from self._act(worker, message, queue, terms)
        except BaseException:  # also when the caller stops taking outcomes
            self._end()
            raise

    def close(self) -> None:
        for error in self._end():
            raise error

    def abandon(self) -> None:
        self._end()

    def _start(self, place: Place) -> None:
        with interrupts_blocked():  # so that every started process is in the list
            worker: WorkerProcess[U] = WorkerProcess(place, self._allowance)
            self._workers.append(worker)
        worker.begin(self._pickled_work)

    def _answer_all(self, queue: Queue[U]) -> None:
        for worker in self._workers:
            if not worker.is_waiting:
                continue
            is_alone = not worker.tasks
            has_suspect = any(task.is_suspect for task in worker.tasks.values())
            task = None if has_suspect else queue.take(is_alone)
            if task is not None:
                if worker.give(task):
                    self._deaths.pop(worker.place, None)
                else:
                    queue.put_back(task)
            elif not is_alone:
                worker.answer(Drain())

    def _messages(self) -> Iterator[tuple[WorkerProcess[U], Message]]:
        """At most one message of each worker; waits at most a tick. Raises the SynthforgeError that a worker raised."""
        wait([handle for worker in self._workers for handle in (worker.pipe, worker.process.sentinel)], TICK_SECONDS)
        now = time.monotonic()
        # The time in which this process was busy or suspended does not count as silence of the workers.
        seconds, self._listened = min(now - self._listened, 4 * TICK_SECONDS), now
        for worker in list(self._workers):
            message = worker.receive() or worker.listen_in_vain(seconds)
            if isinstance(message, Raised):
                raise message.error()
            if message is not None:
                yield worker, message

    def _act(self, worker: WorkerProcess[U], message: Message, queue: Queue[U], terms: Terms[U]) -> Iterator[Outcome[U, R]]:
        match message:
            case Advanced(num):
                worker.reported += num
                terms.on_progress(num)
            case Made(number, receipt):
                task = worker.tasks.pop(number)
                worker.reported -= terms.size(task.unit)
                yield Finished(task.unit, receipt, task.failures + 1)
            case Missed(number, reason, is_final):
                if failed := queue.fail(worker.tasks.pop(number), reason, is_final):
                    yield failed
            case Died(reason):
                self._replace(worker, reason)
                if worker.reported:
                    terms.on_progress(-worker.reported)
                if worker.tasks and (failed := queue.blame(list(worker.tasks.values()), f"its worker died: {reason}")):
                    yield failed

    def _replace(self, worker: WorkerProcess[U], reason: str) -> None:
        """Replace a dead or hung worker, unless all workers in its place die; raises WorkError if none can begin."""
        self._workers.remove(worker)
        worker.end(0.0)
        worker.release()
        self._note(f"{worker.name} died: {reason}")
        if not worker.tasks:
            self._deaths[worker.place] = self._deaths.get(worker.place, 0) + 1
            if any(other.is_open for other in self._workers):
                if self._deaths[worker.place] >= DEATHS_IN_A_ROW:
                    del self._deaths[worker.place]
                    self._note(f"{worker.name} died {DEATHS_IN_A_ROW} times before it did anything; going on without it")
                    return
            elif sum(self._deaths.values()) >= DEATHS_IN_A_ROW:
                last = f"{DEATHS_IN_A_ROW} died in a row, the last {reason}"
                raise WorkError(f"no worker could begin: {last}; see what they printed, or try fewer workers")
        self._start(worker.place)

    def _end(self) -> list[SynthforgeError]:
        """End every worker. Those without units close their streams first. Returns the errors of that."""
        workers, self._workers = self._workers, []
        errors: list[SynthforgeError] = []
        try:
            idle = [worker for worker in workers if worker.is_open and not worker.tasks]
            for worker in workers:
                if worker in idle:
                    worker.answer(Stop())
                else:
                    worker.process.terminate()
            limit = time.monotonic() + CLOSE_SECONDS
            for worker in idle:
                if not worker.end(limit - time.monotonic()):
                    self._note(f"{worker.name} did not close within {CLOSE_SECONDS:g} s and was killed")
                errors += self._last_words(worker)
        finally:
            limit = time.monotonic() + EXIT_SECONDS
            for worker in workers:
                worker.end(limit - time.monotonic())
                worker.release()
        return errors

    def _last_words(self, worker: WorkerProcess[U]) -> Iterator[SynthforgeError]:
        """The errors that a worker raised while it closed. A death then costs no unit, so it is only noted."""
        while (message := worker.receive()) is not None:
            match message:
                case Raised():
                    yield message.error()
                case Died(reason):
                    if worker.process.exitcode:
                        self._note(f"{worker.name} died while it closed: {reason}")
                    return
