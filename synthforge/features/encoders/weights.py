"""Which files an encoder is loaded from: safetensors only, found before a library gets to load anything.

A folder of cross-fitted models has one folder `fold-K` for each, with the model as its library stores it and fitted.json, which
lists under `seen` the image files that it was fitted on.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from synthforge.data.storage import BUILTIN, resolve
from synthforge.data.tars import sha256_of
from synthforge.errors import ModelError, SynthforgeError

REPORT = "fitted.json"
"""Beside a model that was fitted on a reference: on what, by which command, and how well it does."""
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz")


def as_path(name: str) -> Path | None:
    """The file or folder that a name means, or None if there is none."""
    place = Path(resolve(name.removeprefix("local-dir:")))
    return place if place.exists() else None


def hub_id(name: str) -> str | None:
    """The hub id that a name means, with or without its prefix; None if it can be none."""
    bare = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
    if bare != name:
        return bare
    return name if name.count("/") == 1 and not name.startswith((BUILTIN, "local-dir:", "/", ".", "~")) else None


def public_name(name: str, place: Path) -> str:
    """A model's name without this machine's paths."""
    return name if name.startswith(BUILTIN) else place.name


def folds_in(folder: Path) -> list[Path]:
    """The folders `fold-0`, `fold-1`, ... of cross-fitted models; empty if there are none."""
    found = [path for path in folder.glob("fold-*") if path.is_dir() and path.name.removeprefix("fold-").isdecimal()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("fold-")))


def read_report(folder: Path, where: str) -> dict[str, Any]:
    """fitted.json, or nothing for models from elsewhere; raises ModelError."""
    path = folder / REPORT
    if not path.exists():
        return {}
    try:
        report = dict(json.loads(path.read_bytes()))
        if not all(isinstance(digest, str) for digest in report["seen"]):
            raise ValueError("`seen` is no list of digests")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{where}: {path} can't be read ({error}); fit the model again") from error
    return report


def checked(path: Path, where: str) -> Path:
    """The file of weights itself, if it is one and safetensors; raises ModelError."""
    if path.suffix in _PICKLES:
        raise ModelError(f"{where}: {path.name} is a pickle, which can run any code when loaded; only safetensors are read: convert it")
    if not path.is_file():
        raise ModelError(f"{where}: no weights at {path}; name a .safetensors file")
    if path.suffix != ".safetensors":
        raise ModelError(f"{where}: {path.name} is no .safetensors file; only those are read")
    return path


def weights_in(folder: Path, preferred: Sequence[str], where: str) -> Path:
    """The file of weights that a library would load from a folder, if it is safetensors; raises ModelError."""
    names = sorted(path.name for path in folder.iterdir())
    if found := next((name for name in preferred if name in names), None):
        return folder / found
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        # also if a safetensors file of another name lies beside it: the library might take the pickle
        return checked(folder / pickles[0], where)
    others = [name for name in names if name.endswith(".safetensors")]
    if len(others) != 1:
        raise ModelError(f"{where}: {folder} holds {len(others)} files of weights; it needs {preferred[0]}")
    return folder / others[0]


def fetched(repository: str, file: str, where: str) -> Path:
    """One file of the hub, from its cache if it is there; a pickle is never asked for. Raises ModelError.

    Args:
        repository: hub id, with `@revision` if need be.
    """
    name, _, revision = repository.partition("@")
    try:
        with in_one_line(repository, where):
            return Path(hf_hub_download(name, file, revision=revision or None))
    except ModelError as error:
        if isinstance(error.__cause__, EntryNotFoundError) and not isinstance(error.__cause__, LocalEntryNotFoundError):
            raise ModelError(f"{where}: {repository} has no {file} on the hub; only models kept as safetensors are read") from error
        raise


def digest(path: Path, where: str) -> str:
    """SHA-256 of a file; raises ModelError."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"{where}: {path} can't be read ({error.strerror}); fetch or fit the model again") from error


def did_you_mean(name: str, known: Iterable[str], more: str) -> str:
    """A hint with the nearest of the known names, or `more` if none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(by_lower[candidate] for candidate in near)}?" if near else more


@contextmanager
def in_one_line(name: str, where: str) -> Iterator[None]:
    """Whatever a library raises while it loads a model (network, disk, wrong shapes, strange files) becomes a ModelError."""
    try:
        yield
    except SynthforgeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{where}: {name} can't be loaded ({reason}); check the name, the files, and the way to the hub") from error
