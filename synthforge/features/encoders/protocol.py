"""The interface of an encoder, and what loading one needs; imports nothing heavy.

Real and synthetic images are processed alike: `images.decode(data, channels=3)`, then
`images.resize(image, encoder.resolution)`, then the model's normalisation, inside `embed`. Crops and interpolations
that a model's authors use are not applied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synthforge.progress import Reporter

if TYPE_CHECKING:
    from torch import Tensor

    from synthforge.data.reading import Labelled

SEEN_DIGITS = 16
"""Hex digits of an image file's SHA-256 that name it in `Encoder.seen`."""


class Encoder(Protocol):
    """One view: images to features. Shapes: N images, D features, T texts, C classes."""

    name: str
    """Name for reports: the model as in the recipe, and the fold if there are several."""
    resolution: int
    """Height and width of the images for `embed`, in pixels."""
    dim: int
    """Number of features, D."""
    seen: frozenset[str] = frozenset()
    """Image files it was fitted on (`SEEN_DIGITS` of their SHA-256). Empty for pretrained models."""
    classes: Sequence[str] = ()
    """Names of the classes that `classify` distinguishes. Empty if it knows none."""
    logit_scale: float | None = None
    """Factor of cosines of images and texts before a softmax over texts. None: no texts."""

    def identity(self) -> dict[str, Any]:
        """Everything its features depend on besides the images, as JSON: kind, model, weights, preprocessing, dtype."""

    def embed(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """Features of RGB images of its resolution, float32 (N, D) on the CPU. CLIP's have length 1."""

    def embed_texts(self, texts: list[str]) -> NDArray[np.float32] | None:  # noqa: ARG002 - a default
        """Text features of length 1, float32 (T, D), comparable with image features. None: no texts."""
        return None

    def classify(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32] | None:  # noqa: ARG002 - a default
        """Class probabilities from features, under equal class frequencies, float32 (N, C). None: no classes."""
        return None


@dataclass(frozen=True)
class Loading:
    """Everything besides the Config that loading an encoder needs."""

    cache: Path
    """Local folder. Fitted encoders are kept in `fitted-DIGEST` there and reused."""
    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:1`, ..."""
    reference: Labelled | None = None
    """Fit part of the real images, for encoders that are fitted on them; never the validation part. None: not given."""
    where: str = "encoder"
    """The recipe's field, for messages."""
    reporter: Reporter = field(default_factory=Reporter)
