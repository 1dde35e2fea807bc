"""How a verb tells what it is doing while it works; the command line draws it, a notebook may too."""

from __future__ import annotations


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
