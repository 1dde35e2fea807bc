"""The messages between a local worker and its caller. A worker asks for each unit, and the caller only answers.

The caller sends Open first, and then one Answer to each Asked. The worker sends the other messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from synthforge.errors import SynthforgeError
from synthforge.executors.protocol import Place


@dataclass(frozen=True)
class Open:
    """The work, and the place of this worker among all workers."""

    place: Place
    pickled_work: bytes


@dataclass(frozen=True)
class Take:
    """A unit to work on."""

    number: int
    """Names the unit in later messages."""
    unit: Any


class Drain:
    """There is no unit now: finish those in flight, then ask again."""


class Stop:
    """Close the stream and end the process."""


Answer: TypeAlias = Take | Drain | Stop


class Began:
    """The process runs. Next it imports modules and opens its work."""


@dataclass(frozen=True)
class Opened:
    """The work is open."""

    facts: Any
    """The result of `Stream.describe`."""


class Asked:
    """The worker is ready for a unit, and waits for the answer."""


@dataclass(frozen=True)
class Advanced:
    """Some samples are settled."""

    num: int
    """Their number; negative takes progress back."""


@dataclass(frozen=True)
class Made:
    """A unit is done."""

    number: int
    receipt: Any


@dataclass(frozen=True)
class Missed:
    """A try of a unit failed."""

    number: int
    reason: str
    is_final: bool


@dataclass(frozen=True)
class Raised:
    """An error that stops everything.

    It is sent in parts: pickle would call its class with `args`, which not every constructor takes.
    """

    kind: type[SynthforgeError]
    args: tuple[Any, ...]
    state: dict[str, Any]

    @classmethod
    def of(cls, error: SynthforgeError) -> Raised:
        return cls(type(error), error.args, dict(error.__dict__))

    def error(self) -> SynthforgeError:
        """The error as it was raised, without its traceback."""
        error = self.kind.__new__(self.kind, *self.args)
        error.args = self.args
        error.__dict__.update(self.state)
        return error


@dataclass(frozen=True)
class Died:
    """The worker can't go on. Sent by the worker itself, or made by its caller."""

    reason: str


Message: TypeAlias = Began | Opened | Asked | Advanced | Made | Missed | Raised | Died
