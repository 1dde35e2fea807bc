"""What an executor asks of work, and what it gives to its caller.

Work is picklable and small; each worker opens it once (loads a model) and gets a stream, which turns units into receipts. Units and
receipts are small and picklable too; what is made goes to storage by itself. Failures are results: a unit that failed in every try
comes out as `Failed`, and stops no other.
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
"""A receipt: what is known of a finished unit."""


@dataclass(frozen=True)
class Place:
    """Which of the workers one is; which device to take is the work's business."""

    worker: int
    """From 0."""
    workers: int
    """How many there are."""


class Stream(Protocol[U, R_co]):
    """Opened work, inside a worker."""

    def describe(self) -> Any:
        """Facts that are known once the work is opened, such as the model's identity; picklable."""

    def run(self, units: Iterator[U], advance: Callable[[int], None]) -> Generator[tuple[U, R_co | SynthforgeError], None, None]:
        """Take units until there are no more and yield each, in any order, with its receipt or with the error of this try.

        A few units may be in flight at once: the next is taken when the stream is ready for it. `units` also ends when there is nothing
        *now*, so that finished units are not held back; run is called again on the same stream when there is more.

        Args:
            advance: to be called, from any thread, with the number of samples settled since the last call; negative takes back. It is
                the sign of life that the deadline waits for. A unit that fails has taken back its own.

        An error that is yielded is a failed try; it is the last one if the error has a true attribute `is_final`. A SynthforgeError that
        is *raised* stops everything. Anything else that is raised is a bug, or a broken device, and ends this worker.
        """

    def close(self) -> None:
        """Called once when the worker is told to stop; not after it died or was ended by an error elsewhere."""


class Work(Protocol[U, R_co]):
    """What to do with units; picklable."""

    def open(self, place: Place) -> Stream[U, R_co]:
        """Load what is needed. A SynthforgeError stops everything."""


@dataclass(frozen=True)
class Finished(Generic[U, R_co]):
    """A unit that is done."""

    unit: U
    receipt: R_co
    tries: int
    """Including the one that succeeded."""


@dataclass(frozen=True)
class Failed(Generic[U]):
    """A unit that failed for good."""

    unit: U
    reason: str
    """Of the last try."""
    tries: int


Outcome: TypeAlias = Finished[U, R_co] | Failed[U]


class Executor(Protocol[U, R_co]):
    """Runs work over units. A context manager: whatever leaves it, an interrupt included, no worker stays behind."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    def open(self) -> Any:
        """Start, wait for the first worker that has opened its work, and return what its stream describes.

        What opening raised is raised here, with its type and message; WorkError if workers only die.
        """

    def run(
        self,
        feed: Iterator[U | None],
        *,
        tries: int,
        size: Callable[[U], int],
        on_progress: Callable[[int], None],
        on_try_failed: Callable[[U, str, int], None],
    ) -> Iterator[Outcome[U, R_co]]:
        """Run every unit of the feed; yields as they finish, and may be called again with another feed.

        Args:
            feed: advanced only here, in the caller's thread, when a worker wants a unit; None means "nothing now, ask again later".
            tries: after so many failed tries a unit has failed; it is tried again after the units that wait.
            size: what a finished unit adds up to in progress, so that the progress of a worker that died can be taken back.
            on_progress: receives the number of samples settled; negative takes back.
            on_try_failed: told unit, reason and how many tries of it failed. May raise to stop everything, like every callable here.
        """

    def close(self) -> None:
        """End all workers: those that wait close their streams first. Raises what closing raised."""

    def abandon(self) -> None:
        """End all workers because of an error that is on its way; raises nothing, since that one says more."""
