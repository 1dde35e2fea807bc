"""Progress of a verb while it works. The command line shows it, and a notebook can too."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace


class Reporter:
    """Receives the progress of a verb. This class ignores it; subclasses show it."""

    def note(self, text: str) -> None:
        """Show one line of text."""

    def begin(self, task: str, total: int, done: int = 0, unit: str = "images") -> None:
        """A task begins.

        Args:
            total: amount of work, in `unit`.
            done: how much of it is already done.
        """

    def advance(self, num: int) -> None:
        """Some more of the task is done; negative takes back."""

    def end(self) -> None:
        """The task ends."""


@dataclass
class Counters:
    """Counts of one run. Images count once their shard is finished."""

    images: int = 0
    """Good images made."""
    padding: int = 0
    """Images made only to fill a batch."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Number of images that were made again or given up, by reason."""
    left_out: int = 0
    """Samples whose every attempt was rejected."""
    halvings: int = 0
    """How often the batch was halved after memory ran out."""
    shards: int = 0
    """Committed shards."""

    def copy(self) -> Counters:
        """An independent copy."""
        return replace(self, rejected=dict(self.rejected))

    def __add__(self, other: Counters) -> Counters:
        return self._plus(other, 1)

    def __sub__(self, other: Counters) -> Counters:
        return self._plus(other, -1)

    def _plus(self, other: Counters, sign: int) -> Counters:
        numbers = {item.name: getattr(self, item.name) + sign * getattr(other, item.name) for item in fields(self) if item.type == "int"}
        reasons = dict.fromkeys([*self.rejected, *other.rejected])
        rejected = {reason: self.rejected.get(reason, 0) + sign * other.rejected.get(reason, 0) for reason in reasons}
        return Counters(rejected={reason: num for reason, num in rejected.items() if num}, **numbers)
