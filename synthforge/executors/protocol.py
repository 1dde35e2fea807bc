"""The interfaces of work and of executors.

Each worker opens the work once (it loads a model, for example) and gets a stream, which turns units into receipts.
Work, units and receipts are small and picklable. The stream itself writes what it makes to storage.
A failure is a result: a unit that failed in every try comes out as `Failed`, and does not stop the others.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeAlias, TypeVar

from synthforge.errors import SynthforgeError

U = TypeVar("U")
"""A unit of work."""
R_co = TypeVar("R_co", covariant=True)
"""A receipt: the facts about a finished unit."""


@dataclass(frozen=True)
class Place:
    """The place of one worker among all. The work itself chooses the device for it."""

    worker: int
    """Number of this worker, from 0."""
    workers: int
    """Number of workers."""


class Stream(Protocol[U, R_co]):
    """Opened work, inside a worker."""

    def describe(self) -> Any:
        """Facts that are known once the work is open, such as the model's identity. They must be picklable."""

    def run(self, units: Iterator[U], advance: Callable[[int], None]) -> Generator[tuple[U, R_co | SynthforgeError], None, None]:
        """Take all units, and yield each in any order, with its receipt or with the error of this try.

        Several units may be in flight: the next is taken when the stream is ready for it.
        `units` also ends when there is none *now*, so that finished units are not held back. run is called again later.

        A yielded error is a failed try. It is the last try if the error has a true attribute `is_final`.
        A SynthforgeError that is *raised* stops everything. Any other raised error ends this worker.

        Args:
            advance: called from any thread with the number of samples settled since the last call. Negative takes back:
                a unit that fails takes its own back. A call also shows that the worker is not hung.
        """

    def close(self) -> None:
        """Called once when the worker is told to stop. Not called after a death, or after an error elsewhere."""


class Work(Protocol[U, R_co]):
    """Opens a stream in each worker. It must be picklable."""

    def open(self, place: Place) -> Stream[U, R_co]:
        """Load what the units need. A SynthforgeError stops everything."""


@dataclass(frozen=True)
class Finished(Generic[U, R_co]):
    """A unit that is done."""

    unit: U
    receipt: R_co
    tries: int
    """Number of tries, with the one that succeeded."""


@dataclass(frozen=True)
class Failed(Generic[U]):
    """A unit that failed for good."""

    unit: U
    reason: str
    """Why the last try failed."""
    tries: int


@dataclass(frozen=True)
class Terms(Generic[U]):
    """How the units of one run are tried, and who is told. Any callable here may raise to stop everything."""

    tries: int
    """Most tries of a unit. A unit is tried again after those that wait."""
    size: Callable[[U], int]
    """Gives the number of samples in a unit, so that the progress of a worker that died can be taken back."""
    on_progress: Callable[[int], None]
    """Gets the number of samples that were settled. Negative takes back."""
    on_try_failed: Callable[[U, str, int], None]
    """Gets the unit, the reason, and the number of its failed tries."""


Outcome: TypeAlias = Finished[U, R_co] | Failed[U]


class Executor(Protocol[U, R_co]):
    """Runs work over units. It is a context manager: after it no worker is left, also if it ends by an interrupt."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def open(self) -> Any:
        """Start the workers, wait until one has opened the work, and return what its stream describes.

        Raises: the error that opening raised; WorkError if all workers die.
        """

    def run(self, feed: Iterator[U | None], terms: Terms[U]) -> Iterator[Outcome[U, R_co]]:
        """Run every unit of the feed, and yield each outcome as it comes. May be called again with another feed.

        Args:
            feed: asked in the caller's thread when a worker wants a unit. None: there is no unit now; ask again later.
                It may raise to stop everything.
        """

    def close(self) -> None:
        """End all workers. Those without units close their streams first. Raises the error that closing raised."""

    def abandon(self) -> None:
        """End all workers because of an error that is being raised. Raises nothing itself."""
