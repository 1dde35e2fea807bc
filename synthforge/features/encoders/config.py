"""The Config of each kind of encoder, with no heavy import; a metric encoder is an encoder too.

Models from elsewhere give one view; a model that was fitted on the reference itself gives one view for each of its folds.
A new kind is one class, an `EncoderConfig` that is added to `ENCODERS`, and what loads it.
"""

from __future__ import annotations

import pkgutil
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from synthforge.config import Config, identity, location
from synthforge.features.encoders.protocol import Encoder, Loading
from synthforge.registry import Registry, kind_in
from synthforge.training.config import AugmentConfig, LoopConfig

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class EncoderConfig(Config):
    """One kind of encoder: its settings, and how it is loaded."""

    loader: ClassVar[str]
    """The function that loads it, as `module:name`: from the Config and a `Loading` to one encoder for each view."""
    fits: ClassVar[bool] = False
    """Whether it may be fitted on the reference, which it is given then."""

    kind: str = identity()
    """The kind of encoder."""

    @property
    def knows_reference_alone(self) -> bool:
        """Whether no other images than the reference's are behind it."""
        return False

    def build(self, loading: Loading) -> list[Encoder]:
        """Load it, one encoder for each view, fitted first if need be.

        Raises: ModelError, or RequestError for what can't be fitted.
        """
        found: list[Encoder] = pkgutil.resolve_name(self.loader)(self, loading)
        return found


ENCODERS: Registry[type[EncoderConfig]] = Registry("kind of encoder")
"""Every kind."""
AnyEncoder = Annotated[EncoderConfig, kind_in(ENCODERS)]
"""Of a recipe's field."""
FixedEncoder = Annotated[EncoderConfig, kind_in(ENCODERS, lambda config: not config.fits)]
"""Of a field for encoders that are never fitted."""


@ENCODERS.add("open_clip")
class OpenClipConfig(EncoderConfig):
    """A CLIP of images and texts, loaded by open_clip."""

    loader: ClassVar[str] = "synthforge.features.encoders.clip:load"

    kind: Literal["open_clip"] = identity("open_clip")
    """The kind of encoder."""
    model: str = location("builtin:digits/encoder")
    """Folder with open_clip_config.json (or one such for each fold), a .json architecture, a name that open_clip knows, or a hub id."""
    pretrained: str | None = location(None)
    """With an architecture: open_clip's tag of its weights, or a .safetensors file."""
    precision: Precision = identity("auto")
    """Of the network's products; `auto` is bfloat16 on CUDA, float32 elsewhere. Weights and features stay float32."""


@ENCODERS.add("timm")
class TimmConfig(EncoderConfig):
    """An image network of timm; its pooled features before the classifier."""

    loader: ClassVar[str] = "synthforge.features.encoders.image_network:load"

    kind: Literal["timm"] = identity("timm")
    """The kind of encoder."""
    model: str = location()
    """A name that timm knows, with its tag (vit_small_patch14_dinov2.lvd142m), a folder with config.json, or a hub id."""
    pretrained: str | None = location(None)
    """A .safetensors file with the weights; nothing means those of the tag, folder or hub."""
    resolution: int | None = identity(None, ge=8, le=2048)
    """Height and width in pixels; nothing means what the model was trained at."""
    precision: Precision = identity("auto")
    """Of the network's products; `auto` is bfloat16 on CUDA, float32 elsewhere. Weights and features stay float32."""


@ENCODERS.add("pixels")
class PixelsConfig(EncoderConfig):
    """Raw pixels, 0 to 1: knows no labels, and needs no model."""

    loader: ClassVar[str] = "synthforge.features.encoders.pixels:load"

    kind: Literal["pixels"] = identity("pixels")
    """The kind of encoder."""
    resolution: int = identity(16, ge=1, le=256)
    """Height and width in pixels to which images are scaled first."""
    channels: Literal[1, 3] = identity(3)
    """3 for colour; 1 takes the mean of the colours, which loses nothing of grey images."""

    @property
    def knows_reference_alone(self) -> bool:
        """It knows nothing."""
        return True


@ENCODERS.add("fitted")
class FittedConfig(EncoderConfig):
    """Small classifiers of ours, cross-fitted on the reference, beside raw pixels: where models of natural images say little."""

    loader: ClassVar[str] = "synthforge.features.encoders.fitted:load"
    fits: ClassVar[bool] = True

    kind: Literal["fitted"] = identity("fitted")
    """The kind of encoder."""
    model: str | None = location(None)
    """Folder of classifiers that were fitted before, such as `builtin:digits/judge`; nothing fits them on the reference."""
    folds: int = identity(2, ge=2, le=20)
    """So many classifiers are fitted, each without one fold of the real images."""
    pixels: int | None = identity(16, ge=1, le=256)
    """Resolution of one view more, raw pixels, which can't be fitted too closely; null leaves it out, and so does `model`."""
    resolution: int | None = identity(None, ge=8, le=64, multiple_of=4)
    """Height and width in pixels; nothing means the images' own, rounded down to a multiple of 4, at most 64."""
    width: int | None = identity(None, ge=8, le=512, multiple_of=8)
    """Channels of the first layers; features have at most four times as many. Nothing means 16 up to 12 px, and 32 above."""
    loop: LoopConfig = Field(default_factory=lambda: LoopConfig(batch=128, learning_rate=3e-3, weight_decay=0.05, checks=4, compile=False))
    """How long and how fast; `loop.images` counts for each fold, and nothing means what suits the amount of data."""
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    """Geometric augmentation."""

    @property
    def knows_reference_alone(self) -> bool:
        """Where it is fitted on the reference."""
        return self.model is None
