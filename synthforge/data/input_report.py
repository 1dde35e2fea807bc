"""What was found at an address, for results and summaries."""

from __future__ import annotations

from synthforge.data.layout import Record


class InputReport(Record):
    """What was read at one address, and what was found there and left out."""

    name: str
    """Last part of the address."""
    kind: str
    """Form of the set."""
    images: int
    """Images that were read."""
    unused: dict[str, int]
    """Number of files or samples that are there and were not read, by reason."""

    def __str__(self) -> str:
        left = ", ".join(f"{num:,} {reason}" for reason, num in self.unused.items())
        return f"{self.name}: {self.images:,} images ({self.kind})" + (f", beside them {left}" if left else "")
