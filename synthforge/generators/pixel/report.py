"""What a fit says of itself, in fit.json beside the model; light to import, since it is asked before anything is loaded.

Shapes: N images, C channels, H = W.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthforge.data.layout import digest_of
from synthforge.data.reading import Labelled

REPORT = "fit.json"


@dataclass(frozen=True)
class Check:
    """What one look during the fit found."""

    step: int
    images_seen: int
    held_out_loss: float | None
    """On the validation part; None without one."""
    fit_loss: float
    """The same on as many fitted images."""
    near_copies: float
    near_copies_real: float
    median_distance: float
    median_distance_real: float
    coverage: float | None
    """Of the validation part by generated images (k = 5); None without one."""
    is_candidate: bool


@dataclass(frozen=True)
class FitReport:
    """fit.json: what was fitted on what, and what the guards saw."""

    model: str
    images_fitted: int
    images_validation: int
    real_budget: int
    """Every real image that these weights depend on: fitted ones, and the validation part if it chose among weights."""
    data_digest: str
    """Over names, labels and pixels of the images used."""
    classes: list[str]
    resolution: int
    channels: int
    parameters: int
    sigma_data: float
    images_seen: int
    seconds: float
    images_per_second: float
    kept_step: int
    stopped: str
    """Why the fit ended."""
    warning: str | None
    checks: list[Check]
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def digest_of_images(images_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> str:
    """SHA-256 over shape, pixels and labels."""
    total = hashlib.sha256(str(tuple(images_NCHW.shape)).encode())
    total.update(images_NCHW.tobytes())
    total.update(labels_N.tobytes())
    return total.hexdigest()


def was_fitted_on(model: Path, parts: Sequence[Labelled]) -> bool:
    """Whether a model has seen just these real images: its fit.json says so by a digest of their pixels and labels."""
    try:
        report = json.loads((model / REPORT).read_bytes())
        digests = []
        for part in parts:
            images_NCHW, labels_N = part.arrays(int(report["resolution"]), report["channels"])
            digests.append(digest_of_images(images_NCHW, labels_N))
        return bool(report["data_digest"] == digest_of(digests) and report["classes"] == parts[0].classes)
    except (OSError, ValueError, KeyError, TypeError):
        return False
