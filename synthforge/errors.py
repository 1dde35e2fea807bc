"""All errors that synthforge raises on purpose. Any other error that reaches the user is a bug.

    SynthforgeError
    ├── RequestError         the request was wrong and nothing was started           exit status 2
    │   ├── RecipeError      mistakes in a recipe, all of them at once
    │   ├── DatasetError     a folder, shard or image is missing, damaged or of another kind
    │   │   └── OutdatedError  a file has a version that is no longer read
    │   ├── ModelError       a model is missing, of another kind, or not safetensors
    │   │   └── HubUnreachable  a model is neither here nor in the hub's cache, and the hub can't be reached
    │   └── PlaceError       a path or address can't be read or written
    └── WorkError            the work was started and failed; run again to go on      exit status 1
        ├── ShardFailed      one shard could not be made
        └── StorageFailed    storage failed while working (disk full, store unreachable)

A message is one line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


class SynthforgeError(Exception):
    """Base of all errors raised on purpose."""

    exit_status = 1


class RequestError(SynthforgeError):
    """The request was wrong, and nothing was started."""

    exit_status = 2


class NothingLeftError(RequestError):
    """No image of the pool can be used, or none passes the gates."""


class RecipeError(RequestError):
    """One or more mistakes in a recipe. `problems` has one line for each."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class DatasetError(RequestError):
    """A dataset folder, shard, sample or image is missing, damaged or of another kind."""


class OutdatedError(DatasetError):
    """A file has a version that is no longer read."""


class ModelError(RequestError):
    """A model is missing, of the wrong kind, or not stored as safetensors."""


class HubUnreachable(ModelError):
    """A model is neither here nor in the hub's cache, and the hub can't be reached."""


class PlaceError(RequestError):
    """A path or address can't be read or written."""


class WorkError(SynthforgeError):
    """The work was started and failed. Finished parts stay, and a rerun goes on from there."""


class ShardFailed(WorkError):
    """One shard could not be made.

    Args:
        is_final: whether another try would fail in the same way.
    """

    def __init__(self, message: str, is_final: bool = False) -> None:
        self.is_final = is_final
        super().__init__(message)


class StorageFailed(WorkError):
    """Storage failed while working."""


def some(names: Collection[str], most: int = 8) -> str:
    """A list of names for a message. After `most` names, only the number of the others is given."""
    return ", ".join([*names][:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "", *, most: int = 3, cutoff: float = 0.6) -> str:
    """A hint with the nearest known names, or `otherwise` if none is near.

    Args:
        cutoff: how near a name must be, from 0 (any) to 1 (equal but for capitals).
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=most, cutoff=cutoff)
    return f"did you mean {' or '.join(repr(by_lower[candidate]) for candidate in near)}?" if near else otherwise
