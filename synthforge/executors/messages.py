"""What a local worker and its caller say to each other over their pipe. A worker asks for each unit; the caller only answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from synthforge.errors import SynthforgeError
from synthforge.executors.protocol import Place

# From the caller: first of all, then in answer to Asked.


@dataclass(frozen=True)
class Open:
    """What to work on, and where."""

    place: Place
    pickled_work: bytes


@dataclass(frozen=True)
class Take:
    """Here is a unit."""

    number: int
    """What its outcome will be called by."""
    unit: Any


@dataclass(frozen=True)
class Drain:
    """Nothing now: finish what is in flight, then ask again."""


@dataclass(frozen=True)
class Stop:
    """Close the stream and leave."""


Answer: TypeAlias = Take | Drain | Stop

# From the worker.


@dataclass(frozen=True)
class Began:
    """The process runs; now it imports, and opens its work."""


@dataclass(frozen=True)
class Opened:
    """The work is open."""

    facts: Any
    """What the stream describes."""


@dataclass(frozen=True)
class Asked:
    """Ready for a unit, and waiting for the answer."""


@dataclass(frozen=True)
class Advanced:
    """Samples were settled."""

    num: int


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
    """Everything has to stop.

    The error travels in parts: pickle would call its class with `args`, and not every constructor takes those.
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
    """The worker is of no use any more: its own last word, or what its caller found."""

    reason: str


Message: TypeAlias = Began | Opened | Asked | Advanced | Made | Missed | Raised | Died
