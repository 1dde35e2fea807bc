"""Cross-fitted models on disk: a folder `fold-K` per fold, with the model in its library's form and fitted.json.

fitted.json lists under `seen` the image files that the model was fitted on.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from synthforge.errors import ModelError

REPORT = "fitted.json"
"""File beside a fitted model: the images it was fitted on, the command, and its accuracy."""


def folds_in(folder: Path) -> list[Path]:
    """The folders `fold-0`, `fold-1`, ... of cross-fitted models; empty if there are none."""
    folds = [path for path in folder.glob("fold-*") if path.is_dir() and path.name.removeprefix("fold-").isdecimal()]
    return sorted(folds, key=lambda path: int(path.name.removeprefix("fold-")))


def read_report(folder: Path, where: str) -> dict[str, Any]:
    """fitted.json, or an empty dict for pretrained models; raises ModelError."""
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
