"""Read text files that people wrote: UTF-8, with or without a byte order mark, with any line ends."""

from __future__ import annotations

from pathlib import Path

from synthforge.errors import DatasetError


def text_of(path: Path) -> str:
    """The text of a file, with `\\n` as line ends; raises DatasetError if it can't be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: not UTF-8 (byte {error.start:,}); save it as UTF-8") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror})") from error


def lines_of(path: Path) -> list[str]:
    """The lines of a file, without their ends; raises as `text_of`."""
    return text_of(path).split("\n")
