"""fit.json: the record of a fit, beside the model. Light to import, since it is read before anything is loaded.

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
    """Results of one check during a fit."""

    step: int
    images_seen: int
    held_out_loss: float | None
    """Loss on the validation part; None without one."""
    fit_loss: float
    """Loss on as many fitted images."""
    near_copies: float
    """This and the next three: see `training.copies.Memorising`."""
    near_copies_real: float
    median_distance: float
    median_distance_real: float
    coverage: float | None
    """Coverage of the validation part by generated images (k = 5); None without one."""
    is_candidate: bool


@dataclass(frozen=True)
class FitReport:
    """fit.json: data, settings, checks and outcome of a fit."""

    model: str
    images_fitted: int
    images_validation: int
    real_budget: int
    """Real images that these weights depend on: fitted ones, and the validation part if it chose the weights."""
    data_digest: str
    """Digest of shape, pixels and labels of the images used."""
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
    images_found: int | None = None
    """Images that the data holds. None in files of earlier versions."""
    unused: dict[str, int] = field(default_factory=dict)
    """Number of files or samples of the data that are there and were not read, by reason."""
    notes: list[str] = field(default_factory=list)
    """What of the data was not used, and why."""
    config: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)


def digest_of_images(images_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> str:
    """SHA-256 over shape, pixels and labels."""
    total = hashlib.sha256(str(tuple(images_NCHW.shape)).encode())
    total.update(images_NCHW.tobytes())
    total.update(labels_N.tobytes())
    return total.hexdigest()


def was_fitted_on(model: Path, parts: Sequence[Labelled]) -> bool:
    """Whether fit.json says, by a digest of pixels and labels, that a model was fitted on exactly these images."""
    try:
        report = json.loads((model / REPORT).read_bytes())
        digests = [digest_of_images(*part.arrays(int(report["resolution"]), report["channels"])) for part in parts]
        return bool(report["data_digest"] == digest_of(digests) and report["classes"] == parts[0].classes)
    except (OSError, ValueError, KeyError, TypeError):
        return False
