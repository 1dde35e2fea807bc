"""Read text files that people wrote: UTF-8, with or without a byte order mark, with any line ends."""

from __future__ import annotations

from pathlib import Path

from synthforge.errors import DatasetError


def text_of(path: str | Path) -> str:
    """The text of a file, with `\\n` as line ends.

    Raises: FileNotFoundError; DatasetError if it can't be read, or is not UTF-8.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise DatasetError(f"{path}: not UTF-8 (line {line:,}); save it as UTF-8") from error
    if "\0" in text:  # as in UTF-16
        raise DatasetError(f"{path}: not UTF-8 (it has NUL characters); save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def lines_of(path: str | Path) -> list[str]:
    """The lines of a file that are not empty, without the space around them; raises as `text_of`."""
    return [line.strip() for line in text_of(path).split("\n") if line.strip()]
