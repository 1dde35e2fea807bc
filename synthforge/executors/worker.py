"""What runs in a local worker's process: open the work, ask for units, send what becomes of them.

Light to import. The work arrives pickled and is unpickled only once the process is set up, so that nothing it imports or prints escapes.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from synthforge.errors import SynthforgeError
from synthforge.executors.messages import (
    Advanced,
    Answer,
    Asked,
    Began,
    Died,
    Made,
    Message,
    Missed,
    Open,
    Opened,
    Raised,
    Stop,
    Take,
)
from synthforge.executors.protocol import Stream, Work
from synthforge.executors.queue import InFlight


def main(connection: Connection, modules: Sequence[str]) -> None:
    """The life of one worker.

    Args:
        modules: to import while it waits for its work.
    """
    _set_up()
    pipe = _Pipe(connection)
    pipe.send(Began())
    for module in modules:
        with suppress(Exception):  # what is the matter with it is said when the work needs it
            importlib.import_module(module)
    try:
        begin: Open = pipe.receive()
        work: Work[Any, Any] = pickle.loads(begin.pickled_work)  # noqa: S301 - from our own parent
        gc.freeze()
        gc.enable()
        stream = work.open(begin.place)
        pipe.send(Opened(stream.describe()))
        while not pipe.has_stopped:
            _run(stream, pipe)
        stream.close()
    except SynthforgeError as error:
        pipe.send(Raised.of(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, this worker can't go on
        traceback.print_exc()  # to standard error, and before the caller knows, who then has no more patience
        pipe.send(Died(": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])))
        sys.exit(1)


def _run(stream: Stream[Any, Any], pipe: _Pipe) -> None:
    """One call of the stream: until the caller has nothing for it."""
    in_flight: InFlight[Any, int] = InFlight()
    for unit, result in stream.run(_units(pipe, in_flight), lambda num: pipe.send(Advanced(num))):
        number = in_flight.settle(unit)
        if isinstance(result, SynthforgeError):
            pipe.send(Missed(number, str(result), bool(getattr(result, "is_final", False))))
        else:
            pipe.send(Made(number, result))
    in_flight.check_end()


def _units(pipe: _Pipe, in_flight: InFlight[Any, int]) -> Iterator[Any]:
    while isinstance(answer := pipe.ask(), Take):
        yield in_flight.add(answer.unit, answer.number)
    in_flight.has_ended = True


class _Pipe:
    """The way to the caller. Without a caller there is nothing to live for, so a broken pipe ends the process."""

    def __init__(self, connection: Connection) -> None:
        self.has_stopped = False
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        """Any thread may call it."""
        data = pickle.dumps(message)
        try:
            with self._lock:
                self._connection.send_bytes(data)
        except OSError:
            os._exit(1)

    def ask(self) -> Answer:
        """What to do next; waits."""
        self.send(Asked())
        answer: Answer = self.receive()
        self.has_stopped = isinstance(answer, Stop)
        return answer

    def receive(self) -> Any:
        """What the caller sends; waits."""
        try:
            data = self._connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)
        return pickle.loads(data)  # noqa: S301 - from our own parent


def _set_up() -> None:
    # Imports make little garbage, and what they leave is looked through for some again and again, the last time on the way out.
    gc.disable()
    atexit.register(gc.freeze)
    with suppress(OSError):
        os.dup2(2, 1)  # the caller's standard output may carry JSON
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the caller decides
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see interrupts_blocked
    threading.Thread(target=_leave_with_parent, name="parent", daemon=True).start()


def _leave_with_parent() -> None:
    """A worker must not go on, and keep a device, when its parent was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
