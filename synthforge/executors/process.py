"""The caller's side of one local process: start, talk, tell life from death, end."""

from __future__ import annotations

import atexit
import itertools
import multiprocessing
import pickle
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Generic

from synthforge.executors import worker
from synthforge.executors.messages import Advanced, Answer, Asked, Began, Died, Drain, Made, Message, Missed, Open, Opened, Stop, Take
from synthforge.executors.protocol import Place, U
from synthforge.executors.queue import Task

EXIT_SECONDS = 5.0
"""A process that was terminated, or that said it dies, gets so long before it is killed."""

_SPAWN = multiprocessing.get_context("spawn")
_early: list[tuple[SpawnProcess, Connection]] = []


def start_early(num: int, modules: Sequence[str]) -> None:
    """Start processes that import what workers will need while the caller still imports and reads: the next workers are these.

    Those that nobody wants end with the caller, or by `end_early`.
    """
    for _ in range(num):
        with interrupts_blocked():
            _early.append(_started(modules))


def end_early() -> None:
    """End what was started early and is not wanted."""
    while _early:
        process, pipe = _early.pop()
        process.kill()
        process.join(EXIT_SECONDS)
        pipe.close()


atexit.register(end_early)  # before multiprocessing waits for its children, which it does on the way out too


def _early_or_started() -> tuple[SpawnProcess, Connection]:
    """A process without work."""
    while _early:
        process, pipe = _early.pop()
        if process.is_alive():
            return process, pipe
        pipe.close()
    return _started()


def _started(modules: Sequence[str] = ()) -> tuple[SpawnProcess, Connection]:
    """A new process and the way to it."""
    pipe, other_end = _SPAWN.Pipe()
    # Not a daemon: those may have no children, and work may want some (compilers, loaders).
    process = _SPAWN.Process(target=worker.main, args=(other_end, [*modules]))
    process.start()
    other_end.close()  # so that the end of the process is the end of the pipe
    return process, pipe


@dataclass
class Allowance:
    """For how long a worker may report nothing, in seconds."""

    deadline: float
    """While it has units."""
    opening: float
    """While it opens its work: loading a model, compiling it."""

    def warming(self) -> float:
        """Until it reports for the first time: the first batch may compile, or fill caches."""
        return 3 * self.deadline


class WorkerProcess(Generic[U]):
    """One worker, as its caller sees it; starts its process, unless one was started early."""

    def __init__(self, place: Place, allowance: Allowance) -> None:
        self.place = place
        self.name = f"worker {place.worker + 1} of {place.workers}"
        self.tasks: dict[int, Task[U]] = {}
        """Units in flight, by the number they were given under."""
        self.is_open = False
        self.is_waiting = False
        """Whether it has asked and got no answer."""
        self.reported = 0
        """Samples that it reported for units that it has not finished."""
        self._allowance = allowance
        self._has_begun = False
        self._is_warm = False
        self._silence = 0.0
        self._numbers = itertools.count()
        self.process, self.pipe = _early_or_started()

    def begin(self, pickled_work: bytes) -> None:
        """Say what to work on, where; it may wait for a large work to be read."""
        with suppress(OSError):  # it died, which is seen like every death
            self.pipe.send_bytes(pickle.dumps(Open(self.place, pickled_work)))

    def give(self, task: Task[U]) -> bool:
        """Answer with a unit; false if it is too late for that."""
        number = next(self._numbers)
        if not self._answer(Take(number, task.unit)):
            return False
        self.tasks[number] = task
        return True

    def drain(self) -> None:
        """Answer that there is nothing now."""
        self._answer(Drain())

    def stop(self) -> None:
        """Let it close its stream and leave. It may be on the point of asking, so this needs no question."""
        self._answer(Stop())

    def settle(self, number: int) -> Task[U]:
        """The unit that was given under this number; it is in flight no more."""
        return self.tasks.pop(number)

    def receive(self) -> Message | None:
        """One message, if there is one; of a dead process its last ones come first."""
        try:
            if self.pipe.poll():
                message: Message = pickle.loads(self.pipe.recv_bytes())  # noqa: S301 - from our own child
                self._note(message)
                return message
        except (EOFError, OSError):
            return Died(self._cause_of_death())
        return None if self.process.is_alive() else Died(self._cause_of_death())

    def listen_in_vain(self, seconds: float) -> Died | None:
        """So much time went by without a message; dead if that was too long. One that waits for an answer owes none."""
        if self.is_waiting:
            return None
        self._silence += seconds
        allowed = self._allowance.deadline if self._is_warm else self._allowance.warming()
        if not self.is_open:
            if self._silence < self._allowance.opening:
                return None
            return Died(f"did not open within {self._allowance.opening:g} s: taken for hung")
        if self._silence < allowed:
            return None
        return Died(f"reported nothing for {allowed:g} s: taken for hung; raise execution.deadline_seconds if it is only slow")

    def end(self, seconds: float) -> bool:
        """Wait for it to leave, then kill it; whether it left by itself. Also when it is interrupted, it leaves nothing behind."""
        try:
            self.process.join(seconds)
        finally:
            left = not self.process.is_alive()
            if not left:
                self.process.kill()
                self.process.join(EXIT_SECONDS)
        return left

    def release(self) -> None:
        """Free what the dead one held here."""
        self.pipe.close()
        with suppress(ValueError):  # it could not even be killed: in the driver's hands, and the system's
            self.process.close()

    def _answer(self, answer: Answer) -> bool:
        self.is_waiting, self._silence = False, 0.0
        try:
            self.pipe.send_bytes(pickle.dumps(answer))
        except OSError:
            return False
        return True

    def _note(self, message: Message) -> None:
        self._silence = 0.0
        match message:
            case Began():
                self._has_begun = True
            case Opened():
                self.is_open = True
            case Asked():
                self.is_waiting = True
            case Advanced() | Made() | Missed():
                self._is_warm = True

    def _cause_of_death(self) -> str:
        self.end(EXIT_SECONDS)
        status = self.process.exitcode
        if status is None:
            return "it broke its connection and can't be ended"
        if status < 0:
            return _signal_in_words(-status)
        if not self._has_begun:
            return (
                f'exited with status {status} before it began; a script that starts workers needs `if __name__ == "__main__":` around that'
            )
        return f"exited with status {status}"


def _signal_in_words(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"killed by signal {number}"
    return f"killed by signal {number} ({name})" + (", often because memory ran out" if name == "SIGKILL" else "")


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Start processes within: Ctrl-C can't hit one before it is set up to ignore that; here it comes a moment later."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # else starting the first child does, and that unblocks
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
