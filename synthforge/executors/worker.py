"""The code that runs in a local worker's process: open the work, ask for units, send their outcomes.

This module is light to import. The work arrives pickled, and is unpickled once the process is set up.
So imports and prints of the work can't disturb the caller.
"""

from __future__ import annotations

import atexit
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from synthforge.errors import SynthforgeError
from synthforge.executors.messages import Advanced, Answer, Asked, Began, Died, Made, Message, Missed, Open, Opened, Raised, Stop, Take
from synthforge.executors.protocol import Stream, Work
from synthforge.executors.queue import InFlight


def main(connection: Connection) -> None:
    """Run one worker until the caller stops it."""
    _set_up()
    pipe = _Pipe(connection)
    pipe.send(Began())
    try:
        begin: Open = pipe.receive()
        work: Work[Any, Any] = pickle.loads(begin.pickled_work)  # noqa: S301 - from our own parent
        stream = work.open(begin.place)
        pipe.send(Opened(stream.describe()))
        while not pipe.has_stopped:
            _run(stream, pipe)
        stream.close()
    except SynthforgeError as error:
        pipe.send(Raised.of(error))
    except Exception as error:  # noqa: BLE001 - this worker can't go on, whatever the error
        traceback.print_exc()  # before the caller knows of it, since it ends this process then
        pipe.send(Died(": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])))
        sys.exit(1)


def _run(stream: Stream[Any, Any], pipe: _Pipe) -> None:
    """Call the stream once. It ends when the caller has no unit for it."""
    in_flight: InFlight[Any, int] = InFlight(lambda: (answer.unit, answer.number) if isinstance(answer := pipe.ask(), Take) else None)
    for unit, result in stream.run(in_flight.units(), lambda num: pipe.send(Advanced(num))):
        number = in_flight.settle(unit)
        if isinstance(result, SynthforgeError):
            pipe.send(Missed(number, str(result), bool(getattr(result, "is_final", False))))
        else:
            pipe.send(Made(number, result))
    in_flight.check_end()


class _Pipe:
    """The connection to the caller. If it breaks, the process ends."""

    def __init__(self, connection: Connection) -> None:
        self.has_stopped = False
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Send a message, from any thread."""
        data = pickle.dumps(message)
        try:
            with self._lock:
                self._connection.send_bytes(data)
        except OSError:
            os._exit(1)

    def ask(self) -> Answer:
        """Ask for a unit, and wait for the answer."""
        self.send(Asked())
        answer: Answer = self.receive()
        self.has_stopped = isinstance(answer, Stop)
        return answer

    def receive(self) -> Any:
        """Wait for a message of the caller."""
        try:
            data = self._connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)
        return pickle.loads(data)  # noqa: S301 - from our own parent


def _set_up() -> None:
    """Prepare the process: garbage collection, standard output, signals, and an end together with its parent."""
    gc.set_threshold(10_000, 20, 50)  # the usual ones cost a second while torch and diffusers are imported
    atexit.register(gc.freeze)
    with suppress(OSError):
        os.dup2(2, 1)  # the caller's standard output may carry JSON
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; only the caller handles it
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by interrupts_blocked
    threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()


def _leave_with_parent() -> None:
    """End this process when its parent is killed, so that it does not keep a device."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
