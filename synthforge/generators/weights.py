"""Which files are a model: found on disk or fetched from the hub, safetensors only, and named by their digest."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synthforge.errors import ModelError
from synthforge.shards.tars import sha256_of
from synthforge.storage import BUILTIN, resolve

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_PARTS = (".safetensors", ".json", ".txt", ".model")
"""What a diffusers folder is made of: weights, configurations, tokenizer files."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine's disk."""

    name: str
    """As the recipe names it."""
    folder: Path
    revision: str | None
    """The hub's commit, or None for a local folder."""
    sha256: str
    """Over the names and contents of the files that make the model."""


def find_model(name: str, revision: str | None = None) -> ModelFiles:
    """Find a model by path, `builtin:` name or hub id (tokens come from the environment); raises ModelError."""
    if len(name) > 4000:
        raise ModelError("generator.model: is longer than any path; name a folder or a hub id")
    folder = Path(resolve(name))
    commit = None
    if not folder.exists() and not name.startswith((BUILTIN, "/", ".", "~")) and _HUB_ID.fullmatch(name):
        folder, commit = _fetch(name, revision)
    if not folder.is_dir():
        raise ModelError(f"generator.model: no model at {name}; make one with `synthforge fit`, or use builtin:digits/generator")
    index = folder / "model_index.json"
    if not index.is_file():
        raise ModelError(f"generator.model: {name} has no model_index.json, so it is not a diffusers pipeline; check the path")
    _refuse_pickles(name, folder, _read_json(index))
    return ModelFiles(name, folder, commit, _digest(folder))


def read_index(files: ModelFiles) -> dict[str, Any]:
    """model_index.json; raises ModelError."""
    return _read_json(files.folder / "model_index.json")


def read_config(files: ModelFiles, component: str) -> dict[str, Any]:
    """The configuration of a component; raises ModelError."""
    return _read_json(files.folder / component / "config.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"generator.model: {path} can't be read ({error}); fit or fetch the model again") from error


def _fetch(name: str, revision: str | None) -> tuple[Path, str | None]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[f"*{suffix}" for suffix in _PARTS]))
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"generator.model: {name} is neither a folder here nor in the hub's cache, and the hub can't be reached"
        ) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"generator.model: {name} is no folder here, and the hub does not give it ({reason})") from error
    return folder, folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def _refuse_pickles(name: str, folder: Path, index: dict[str, Any]) -> None:
    for component, value in index.items():
        directory = folder / component
        if not isinstance(value, list) or not value or value[0] is None or not directory.is_dir():
            continue
        pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
        if pickles and not any(directory.glob("*.safetensors")):
            raise ModelError(
                f"generator.model: {name} keeps {component} as a pickle ({pickles[0]}), which can run any code when loaded; "
                "only safetensors are read: save it again with save_pretrained(..., safe_serialization=True)"
            )


def _digest(folder: Path) -> str:
    """Over relative names and contents; a README or a training log beside the model does not count."""
    total = hashlib.sha256()
    parts = [folder / "model_index.json", *sorted(path for path in folder.glob("*/*") if path.suffix in _PARTS)]
    for path in parts:
        try:
            content = sha256_of(path)
        except OSError as error:
            raise ModelError(f"generator.model: {path} can't be read ({error.strerror}); fit or fetch the model again") from error
        total.update(f"{path.relative_to(folder).as_posix()}\0{content}\n".encode())
    return total.hexdigest()
