"""The caller's side of one local process: start it, talk to it, notice its death, end it."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Generic

from synthforge.executors import worker
from synthforge.executors.messages import Advanced, Answer, Asked, Began, Died, Made, Message, Missed, Open, Opened, Take
from synthforge.executors.protocol import Place, U
from synthforge.executors.queue import Task

EXIT_SECONDS = 5.0
"""Time for a process to end, after it was terminated or has reported an error, before it is killed."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass
class Allowance:
    """Longest time in seconds that a worker may report nothing before it is killed."""

    deadline: float
    """While it has units. Before its first report it has three times as long, to compile or to fill caches."""
    opening: float
    """While it opens its work: loading a model, compiling it."""


class WorkerProcess(Generic[U]):
    """One worker as its caller sees it, in a process of its own."""

    def __init__(self, place: Place, allowance: Allowance) -> None:
        self.place = place
        self.name = f"worker {place.worker + 1} of {place.workers}"
        self.tasks: dict[int, Task[U]] = {}
        """Units in flight, by their number in messages."""
        self.is_open = False
        self.is_waiting = False
        """Whether it has asked for a unit and got no answer yet."""
        self.reported = 0
        """Number of samples that it has reported for unfinished units."""
        self._allowance = allowance
        self._has_begun = False
        self._is_warm = False
        self._silence = 0.0
        self._numbers = itertools.count()
        self.pipe, other_end = _SPAWN.Pipe()
        # Not a daemon: those may have no children, and work may want some (compilers, loaders).
        self.process = _SPAWN.Process(target=worker.main, args=(other_end,))
        self.process.start()
        other_end.close()  # so that the end of the process is the end of the pipe

    def begin(self, pickled_work: bytes) -> None:
        """Send the work. This may take a moment if the work is large."""
        with suppress(OSError):  # it has died, which `receive` reports
            self.pipe.send_bytes(pickle.dumps(Open(self.place, pickled_work)))

    def give(self, task: Task[U]) -> bool:
        """Answer with a unit. Returns False if the worker is gone."""
        number = next(self._numbers)
        if not self.answer(Take(number, task.unit)):
            return False
        self.tasks[number] = task
        return True

    def receive(self) -> Message | None:
        """The next message. A dead process gives its last messages, and then `Died`. None: there is no message."""
        try:
            if self.pipe.poll():
                message: Message = pickle.loads(self.pipe.recv_bytes())  # noqa: S301 - from our own child
                self._note(message)
                return message
        except (EOFError, OSError):
            return Died(self._cause_of_death())
        return None if self.process.is_alive() else Died(self._cause_of_death())

    def listen_in_vain(self, seconds: float) -> Died | None:
        """Note that some time passed without a message. Returns `Died` if the worker has been silent for too long.

        A worker that waits for an answer may be silent.
        """
        if self.is_waiting:
            return None
        self._silence += seconds
        deadline = self._allowance.deadline * (1 if self._is_warm else 3)
        allowed = deadline if self.is_open else self._allowance.opening
        if self._silence < allowed:
            return None
        if not self.is_open:
            return Died(f"did not open within {allowed:g} s: taken for hung")
        return Died(f"reported nothing for {allowed:g} s: taken for hung; raise execution.deadline_seconds if it is only slow")

    def end(self, seconds: float) -> bool:
        """Wait for the process to end, then kill it, also if interrupted. Returns whether it ended by itself."""
        try:
            self.process.join(seconds)
        finally:
            has_ended = not self.process.is_alive()
            if not has_ended:
                self.process.kill()
                self.process.join(EXIT_SECONDS)
        return has_ended

    def release(self) -> None:
        """Free the resources of the dead process on the caller's side."""
        self.pipe.close()
        with suppress(ValueError):  # it could not be killed, because it hangs in a driver
            self.process.close()

    def answer(self, answer: Answer) -> bool:
        """Send an answer. Returns False if the worker is gone. `Stop` may be sent before it asks."""
        self.is_waiting, self._silence = False, 0.0
        try:
            self.pipe.send_bytes(pickle.dumps(answer))
        except OSError:
            return False
        return True

    def _note(self, message: Message) -> None:
        self._silence = 0.0
        self._has_begun |= isinstance(message, Began)
        self.is_open |= isinstance(message, Opened)
        self.is_waiting |= isinstance(message, Asked)
        self._is_warm |= isinstance(message, Advanced | Made | Missed)

    def _cause_of_death(self) -> str:
        self.end(EXIT_SECONDS)
        status = self.process.exitcode
        if status is None:
            return "it broke its connection and can't be ended"
        if status < 0:
            return _signal_in_words(-status)
        if not self._has_begun:
            hint = 'a script that starts workers needs `if __name__ == "__main__":` around that'
            return f"exited with status {status} before it began; {hint}"
        return f"exited with status {status}"


def _signal_in_words(number: int) -> str:
    name = {item.value: item.name for item in signal.Signals}.get(number)
    hint = ", often because memory ran out" if name == "SIGKILL" else ""
    return f"killed by signal {number}" + (f" ({name})" if name else "") + hint


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """A context to start processes in. They begin with Ctrl-C blocked, until they are set up to ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # starting the first child would start it, and unblock the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
