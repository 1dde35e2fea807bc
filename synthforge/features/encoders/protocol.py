"""What an encoder is: a model whose features describe images; one for each view.

Real and synthetic images take the same way: `images.decode(data, channels=3)`, `images.resize(image, encoder.resolution)`, and only
then the model's own normalisation, inside `embed`. So crops and interpolations that a model's authors use are not applied.
"""

from __future__ import annotations

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
"""So many hex digits of an image file's SHA-256 name it in `Encoder.seen`."""


class Encoder(Protocol):
    """One view: images to features. Shapes: N images, D features, T texts, C classes."""

    name: str
    """For reports: the model as the recipe has it, and which fold."""
    resolution: int
    """Height and width of the images that `embed` takes."""
    dim: int
    """D."""
    seen: frozenset[str]
    """The image files that it was fitted on (`SEEN_DIGITS` of their SHA-256); empty for models from elsewhere."""
    classes: list[str]
    """Names of the classes that `classify` tells apart, of those alone that it was fitted on; empty if it knows none."""
    logit_scale: float | None
    """What cosines of images and texts are multiplied by before softmax (or sigmoid, see `logit_bias`); None without texts."""
    logit_bias: float | None
    """What is then added before a sigmoid, for models trained so (SigLIP); None for softmax."""

    def identity(self) -> dict[str, Any]:
        """What its features depend on besides the images, as JSON: kind, model, weights' sha256, preprocessing, dtype."""

    def embed(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """Features float32 (N, D) on the CPU, of RGB images of its resolution; of length 1 where the model was trained so."""

    def embed_texts(self, texts: list[str]) -> NDArray[np.float32] | None:
        """Features float32 (T, D) of length 1, to be compared with those of images; None for models without texts."""

    def classify(self, features_ND: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """Probabilities float32 (N, C) of `classes`, if all were as frequent, from what `embed` gave; None if it knows no classes."""


@dataclass(frozen=True)
class Loading:
    """What an encoder is loaded with, besides its Config."""

    cache: Path
    """Local folder; fitted encoders are kept in `fitted-DIGEST` there and found again."""
    device: str = "auto"
    """`auto`, `cpu`, `mps`, `cuda`, `cuda:1`, ..."""
    reference: Labelled | None = None
    """The fit part of the real images, for encoders that are fitted on them; never the validation part."""
    where: str = "encoder"
    """The recipe's field, for messages."""
    reporter: Reporter = field(default_factory=Reporter)
