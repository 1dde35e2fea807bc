"""How a verb tells what it is doing while it works; the command line draws it, a notebook may too."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields, replace


class Reporter:
    """Receives what a verb tells while it works; this one keeps quiet."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def begin(self, task: str, total: int, done: int = 0, unit: str = "images") -> None:
        """Work of known length begins."""

    def advance(self, num: int) -> None:
        """So much more of it is done."""

    def end(self) -> None:
        """The work ended."""


@dataclass
class Counters:
    """What was done so far by one run; only finished shards count as images made."""

    images: int = 0
    """Good images made."""
    padding: int = 0
    """Images made only to fill a batch."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Reason to number of images made again or given up."""
    left_out: int = 0
    """Samples that failed in every attempt."""
    halvings: int = 0
    """Times that the batch was halved after running out of memory."""
    shards: int = 0
    """Shards committed."""

    def copy(self) -> Counters:
        """As they are now."""
        return replace(self, rejected=dict(self.rejected))

    def __add__(self, other: Counters) -> Counters:
        rejected = Counter(self.rejected)
        rejected.update(other.rejected)
        numbers = {item.name: getattr(self, item.name) + getattr(other, item.name) for item in fields(self) if item.name != "rejected"}
        return Counters(rejected=dict(rejected), **numbers)

    def __sub__(self, other: Counters) -> Counters:
        rejected = {reason: num - other.rejected.get(reason, 0) for reason, num in self.rejected.items()}
        numbers = {item.name: getattr(self, item.name) - getattr(other, item.name) for item in fields(self) if item.name != "rejected"}
        return Counters(rejected={reason: num for reason, num in rejected.items() if num}, **numbers)
