"""Find the files of a model, on disk or on the hub, and their digest. Only safetensors are accepted.

`find_model` finds models of diffusers by path, `builtin:` name or hub id. A model is a whole pipeline, one component
(such as a VAE), or one file of weights (LoRA, textual inversion).
Only files that would be loaded count: the components of a pipeline, in one variant.
Libraries such as open_clip and timm load models by themselves. The other functions check their files before that.
Before anything is asked of the hub, one short request finds out whether it answers. If not, its cache is used alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from synthforge.data.storage import BUILTIN, resolve, sha256_of
from synthforge.errors import HubUnreachable, ModelError, SynthforgeError

Kind = Literal["pipeline", "component", "weights"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".npz")
_PARTS = (".safetensors", ".json", ".txt", ".model")
"""Suffixes of files in a diffusers folder: weights, configurations, tokenizer files."""
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers gives to a file of LoRA weights."""
_LONGEST = 4000
"""Characters of the longest path."""
_PATIENCE = 2.5
"""Seconds in which the hub must answer, unless HF_HUB_ETAG_TIMEOUT sets others."""
_NOBODY_THERE = (502, 503, 504)
"""Answers of a gateway that does not reach the hub."""
_WEIGHTS = re.compile(
    r"(?P<stem>[^.]+?)(-\d{5}-of-\d{5})?(\.(?P<variant>[\w-]+?))?(-\d{5}-of-\d{5})?\.safetensors(\.index(\.(?P<of_index>[\w-]+))?\.json)?"
)


@dataclass(frozen=True)
class ModelFiles:
    """A model on this machine's disk."""

    name: str
    """The name in the recipe."""
    folder: Path
    """The folder, or the one file of weights."""
    revision: str | None
    """The commit on the hub. None: the model is a local folder."""
    sha256: str
    """SHA-256 over the names and contents of its files."""
    variant: str | None = None
    """The variant of the weights, such as fp16. None: the plain weights."""

    @property
    def public_name(self) -> str:
        """The name without paths of this machine.

        Models of the hub and built-in models keep their name. Others have the last part of their path.
        """
        return self.name if self.revision else public_name(self.name, self.folder)


@dataclass(frozen=True)
class GeneratorFiles:
    """All files that a generator is loaded from."""

    model: ModelFiles
    others: Mapping[str, ModelFiles]
    """LoRAs, textual inversions and a VAE, by their field in the recipe, such as `generator.loras.0.model`."""

    def digests(self) -> dict[str, str]:
        """SHA-256 of each model, by its field in the recipe."""
        return {"generator.model": self.model.sha256} | {where: files.sha256 for where, files in self.others.items()}


def is_hub_id(name: str) -> bool:
    """Whether a name can be a repository of the hub. A path that exists must be checked before."""
    return not name.startswith((BUILTIN, "/", ".", "~")) and _HUB_ID.fullmatch(name) is not None


def hub_id(name: str) -> str | None:
    """The hub id in a name, without the prefix `hf-hub:`; `@revision` is kept. None: the name can't be a hub id."""
    bare = name.removeprefix("hf-hub:").removeprefix("hf_hub:")
    return bare if bare != name or is_hub_id(name.partition("@")[0]) else None


def as_path(name: str) -> Path | None:
    """The file or folder with a name. None: there is no such path."""
    place = Path(resolve(name.removeprefix("local-dir:")))
    return place if place.exists() else None


def public_name(name: str, place: Path) -> str:
    """The name of a local model without paths of this machine."""
    return name if name.startswith(BUILTIN) else place.name


def find_model(
    name: str,
    revision: str | None = None,
    *,
    kind: Kind = "pipeline",
    variant: str | None = None,
    file: str | None = None,
    where: str = "generator.model",
    known: Mapping[str, str] | None = None,
) -> ModelFiles:
    """Find a model by path, `builtin:` name or hub id; raises ModelError. Tokens for the hub come from the environment.

    Args:
        file: for `kind="weights"`: which file of the folder or repository. None: the only one.
        where: its field in the recipe, for messages.
        known: SHA-256 by field, if another process has computed them. None: compute it.
    """
    if len(name) > _LONGEST:
        raise ModelError(f"{where}: is longer than any path; name a folder or a hub id")
    place = Path(resolve(name))
    commit = None
    if not place.exists() and is_hub_id(name):
        place, commit = _fetch(name, revision, kind, variant, file=file, where=where)
    if kind == "weights":
        place = _single_file(name, place, file, where)
        parts = [place]
    else:
        parts = _parts_of(name, place, kind, variant, where)
    sha256 = (known or {}).get(where) or _digest(place, parts, where)
    return ModelFiles(name, place, commit, sha256, variant)


def unread_model(name: str) -> ModelFiles | None:
    """A pipeline on this disk, found in no time: neither checked nor digested. None: there is none with this name."""
    place = Path(resolve(name)) if len(name) <= _LONGEST else None
    return ModelFiles(name, place, None, "") if place is not None and (place / "model_index.json").is_file() else None


def read_index(files: ModelFiles) -> dict[str, Any]:
    """model_index.json; raises ModelError."""
    return _read_json(files.folder / "model_index.json")


def read_config(files: ModelFiles, component: str) -> dict[str, Any]:
    """The configuration of a component; raises ModelError."""
    return _read_json(files.folder / component / "config.json")


def components_in(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Library and class of each component in a model_index.json, by name; raises ModelError if one is malformed."""
    components = {}
    for name, value in index.items():
        if name.startswith("_") or not isinstance(value, list):
            continue
        if len(value) != 2 or not all(part is None or isinstance(part, str) for part in value):
            raise ModelError(f"generator.model: component {name!r} in model_index.json is malformed; fetch the model again")
        if value[0] is not None and value[1] is not None:
            components[name] = (value[0], value[1])
    return components


def require_safetensors(path: Path, where: str) -> Path:
    """The path itself if it is a .safetensors file; raises ModelError otherwise."""
    if path.suffix in _PICKLES:
        raise ModelError(f"{where}: {path.name} is a pickle, which can run any code when loaded; only safetensors are read: convert it")
    if not path.is_file():
        raise ModelError(f"{where}: no weights at {path}; name a .safetensors file")
    if path.suffix != ".safetensors":
        raise ModelError(f"{where}: {path.name} is not a .safetensors file; only those are read")
    return path


def weights_in(folder: Path, preferred: Sequence[str], where: str) -> Path:
    """The file of weights that a library would load from a folder; raises ModelError if it is not safetensors.

    Args:
        preferred: names of files that the library looks for, in its order.
    """
    names = sorted(path.name for path in folder.iterdir())
    if name := next((name for name in preferred if name in names), None):
        return folder / name
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        # Refused even if there is a safetensors file with another name: the library might load the pickle.
        return require_safetensors(folder / pickles[0], where)
    others = [name for name in names if name.endswith(".safetensors")]
    if len(others) != 1:
        raise ModelError(f"{where}: {folder} holds {len(others)} files of weights; it needs {preferred[0]}")
    return folder / others[0]


def fetch_file(repository: str, file: str, where: str) -> Path:
    """Download one file of the hub, or find it in the hub's cache; raises ModelError.

    Args:
        repository: hub id, with or without `@revision`.
        file: its path in the repository; never a pickle.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    name, _, revision = repository.partition("@")
    with in_one_line(repository, where):
        try:
            with _quick_hub():
                return Path(hf_hub_download(name, file, revision=revision or None))
        except LocalEntryNotFoundError as error:
            raise _unreachable(where, name, revision) from error
        except EntryNotFoundError as error:
            raise ModelError(f"{where}: {repository} has no {file} on the hub; only models kept as safetensors are read") from error


def file_sha256(path: Path, where: str) -> str:
    """SHA-256 of a file; raises ModelError."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise ModelError(f"{where}: {path} can't be read ({error.strerror}); fit or fetch the model again") from error


@contextmanager
def in_one_line(name: str, where: str, *, asks_hub: bool = False) -> Iterator[None]:
    """Turn any error of a library that loads a model into a ModelError of one line.

    Args:
        asks_hub: whether the library may ask the hub. If the hub doesn't answer, it gets its cache alone.
    """
    try:
        with _quick_hub() if asks_hub else nullcontext():
            yield
    except SynthforgeError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(f"{where}: {name} can't be loaded ({reason}); check the name, the files, and the way to the hub") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"generator.model: {path} can't be read ({error}); fit or fetch the model again") from error


def _single_file(name: str, place: Path, file: str | None, where: str) -> Path:
    if place.is_dir():
        files = [place / file] if file else sorted(place.glob("*.safetensors"))
        if len(files) > 1:
            raise ModelError(f"{where}: {name} holds {len(files)} files of weights; say which with `file:`, such as {files[0].name}")
        pickles = [path for path in place.iterdir() if path.suffix in _PICKLES]
        place = (files or pickles or [place / _LORA_FILE])[0]
    if place.suffix not in _PICKLES and not place.is_file():
        raise ModelError(f"{where}: no weights at {name}; name a .safetensors file, a folder that holds one, or a hub id")
    return require_safetensors(place, where)


def _parts_of(name: str, folder: Path, kind: Kind, variant: str | None, where: str) -> list[Path]:
    if not folder.is_dir():
        hint = "make one with `synthforge fit`, or use builtin:digits/generator" if where == "generator.model" else "check the path"
        raise ModelError(f"{where}: no model at {name}; {hint}")
    index = folder / "model_index.json"
    if kind == "component" and not (folder / "config.json").is_file():
        raise ModelError(f"{where}: {name} has no config.json, so it is no component of a pipeline; name the folder that holds it")
    if kind == "pipeline" and not index.is_file():
        raise ModelError(f"{where}: {name} has no model_index.json, so it is not a diffusers pipeline; check the path")
    components = [""] if kind == "component" else components_in(_read_json(index))
    files = [path.relative_to(folder).as_posix() for pattern in ("*", "*/*") for path in sorted(folder.glob(pattern))]
    parts = [folder / file for file in _in_components(name, files, components, variant, where)]
    return parts if kind == "component" else [index, *sorted(parts)]


def _in_components(name: str, files: Iterable[str], components: Iterable[str], variant: str | None, where: str) -> list[str]:
    """The files of a model that are loaded; raises ModelError for a component that only has a pickle.

    Args:
        files: paths relative to the model's folder.
        components: folders of components. An empty name is the model's folder itself.
    """
    loaded = []
    for component in components:
        prefix = f"{component}/" if component else ""
        inside = [file.removeprefix(prefix) for file in files if file.startswith(prefix) and "/" not in file.removeprefix(prefix)]
        pickles = sorted(file for file in inside if file.endswith(_PICKLES))
        if pickles and not any(file.endswith(".safetensors") for file in inside):
            raise ModelError(
                f"{where}: {name} keeps {component or 'its weights'} as a pickle ({pickles[0]}), which can run any code when loaded; "
                "only safetensors are read: save it again with save_pretrained(..., safe_serialization=True)"
            )
        loaded += [f"{prefix}{file}" for file in _loaded(inside, variant)]
    return loaded


def _loaded(files: Iterable[str], variant: str | None) -> list[str]:
    """The files of one component that are loaded: weights of the variant, and files that are not weights.

    A component without weights of the variant is loaded from the plain ones.
    """
    by_variant: dict[str | None, list[str]] = {}
    others = []
    for file in files:
        if match := _WEIGHTS.fullmatch(file):
            by_variant.setdefault(match["of_index"] or match["variant"], []).append(file)
        elif PurePosixPath(file).suffix in _PARTS:
            others.append(file)
    return others + by_variant.get(variant, by_variant.get(None, []))


def _fetch(name: str, revision: str | None, kind: Kind, variant: str | None, *, file: str | None, where: str) -> tuple[Path, str | None]:
    """Fetch only the files that are loaded. If the hub can't be reached, use those in its cache."""
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    def wanted() -> list[str]:
        files = HfApi().list_repo_files(name, revision=revision)
        if kind == "weights":
            return [file or (_LORA_FILE if _LORA_FILE in files else next((f for f in files if f.endswith(".safetensors")), _LORA_FILE))]
        if kind == "component":
            return _loaded([entry for entry in files if "/" not in entry], variant)
        index = _read_json(Path(hf_hub_download(name, "model_index.json", revision=revision)))
        return ["model_index.json", *_in_components(name, files, components_in(index), variant, where)]

    try:
        with _quick_hub():
            try:
                patterns = wanted()
            except Exception as error:
                if not _is_unreachable(error):
                    raise
                folder = _cached(name, revision)
            else:
                folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except LocalEntryNotFoundError as error:
        raise _unreachable(where, name, revision) from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(f"{where}: {name} is no folder here, and the hub does not give it ({reason})") from error
    return folder, folder.name if re.fullmatch(r"[0-9a-f]{40}", folder.name) else None


def _cached(name: str, revision: str | None) -> Path:
    """The folder of a model in the hub's cache. Only some of its files were fetched, so it is not whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError as error:
        if (folder := getattr(error, "snapshot_path", None)) is not None:
            return Path(folder)
        raise


def _unreachable(where: str, name: str, revision: str | None = None) -> HubUnreachable:
    """The error for what is neither here nor in the cache, with all ways out."""
    from huggingface_hub import constants

    why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{constants.ENDPOINT} does not answer"
    local = "a .safetensors file" if where.endswith(".pretrained") else "a folder"
    fetching = f"hf download {name}" + (f" --revision {revision}" if revision else "")
    if where.startswith("generator."):
        fetching = "synthforge plan"  # fetches only what is loaded
    other = "; or use encoder={kind: lite0} and metric_encoder={kind: pixels}, which need no hub" if where.startswith("encoder") else ""
    return HubUnreachable(
        f"{where}: {name} is neither a folder here nor in the hub's cache, and the hub can't be reached ({why}); "
        f"set {where} to {local} on this disk, or run `{fetching}` on a machine that reaches the hub "
        f"and copy its cache to {constants.HF_HUB_CACHE} (HF_HUB_CACHE names another place); HF_HUB_OFFLINE=1 then asks no hub{other}"
    )


@contextmanager
def _quick_hub() -> Iterator[None]:
    """Inside, the hub's client uses its cache alone if the hub doesn't answer. It would retry for half a minute."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers(int(time.monotonic() // 60))
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@functools.lru_cache(maxsize=1)
def _answers(_minute: int) -> bool:
    """Whether the hub answers. Asked once a minute, in a thread, since looking up an address knows no time limit."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _PATIENCE)
    answered = threading.Event()

    def ask() -> None:
        with suppress(Exception):
            if get_session().head(constants.ENDPOINT, timeout=seconds).status_code not in _NOBODY_THERE:
                answered.set()

    asking = threading.Thread(target=ask, name="hub", daemon=True)
    asking.start()
    asking.join(seconds)
    return answered.is_set()


def _is_unreachable(error: Exception) -> bool:
    """Whether the hub could not be reached. Its client raises errors of several network libraries."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, HfHubHTTPError):
        return False
    is_network = type(error).__module__.split(".")[0] in {"httpx", "httpx2", "httpcore", "requests", "urllib3"}
    return is_network or isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError, OSError))


def _digest(place: Path, parts: list[Path], where: str) -> str:
    """SHA-256 over relative names and contents. Other files, such as a README, do not count."""
    if parts == [place]:
        return file_sha256(place, where)
    lines = [f"{path.relative_to(place).as_posix()}\0{file_sha256(path, where)}\n" for path in parts]
    return hashlib.sha256("".join(lines).encode()).hexdigest()
