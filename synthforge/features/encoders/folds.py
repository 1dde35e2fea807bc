"""Cross-fitted models: one folder `fold-K` for each, with the model as its library stores it and fitted.json beside it.

fitted.json lists under `seen` the image files that the model was fitted on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synthforge.errors import ModelError

REPORT = "fitted.json"
"""Beside a model that was fitted on a reference: on what, by which command, and how well it does."""


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
