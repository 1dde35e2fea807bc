"""The Config of each kind of encoder, with no heavy import; a metric encoder is an encoder too.

Models from elsewhere give one view; a model that was fitted on the reference itself gives one view for each of its folds.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from synthforge.config import Config, identity, location
from synthforge.training.config import AugmentConfig, LoopConfig

if TYPE_CHECKING:
    from synthforge.data.reading import Labelled
    from synthforge.features.encoders.protocol import Encoder
    from synthforge.progress import Reporter

Precision = Literal["auto", "float32", "bfloat16", "float16"]


class OpenClipConfig(Config):
    """A CLIP of images and texts, loaded by open_clip."""

    kind: Literal["open_clip"] = identity("open_clip")
    """The kind of encoder."""
    model: str = location("builtin:digits/encoder")
    """Folder with open_clip_config.json (or one such for each fold), a .json architecture, a name that open_clip knows, or a hub id."""
    pretrained: str | None = location(None)
    """With an architecture: open_clip's tag of its weights, or a .safetensors file."""
    precision: Precision = identity("auto")
    """Of the network's products; `auto` is bfloat16 on CUDA, float32 elsewhere. Weights and features stay float32."""

    def build(self, device: str, reference: Labelled | None, cache: Path, where: str, reporter: Reporter) -> list[Encoder]:  # noqa: ARG002
        """Load it, one encoder for each view; raises ModelError."""
        from synthforge.features.encoders.clip import load

        return [*load(self, device, where)]


class TimmConfig(Config):
    """An image network of timm; its pooled features before the classifier."""

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

    def build(self, device: str, reference: Labelled | None, cache: Path, where: str, reporter: Reporter) -> list[Encoder]:  # noqa: ARG002
        """Load it; raises ModelError."""
        from synthforge.features.encoders.image_network import load

        return [load(self, device, where)]


class PixelsConfig(Config):
    """Raw pixels, 0 to 1: knows no labels, and needs no model."""

    kind: Literal["pixels"] = identity("pixels")
    """The kind of encoder."""
    resolution: int = identity(16, ge=1, le=256)
    """Height and width in pixels to which images are scaled first."""
    channels: Literal[1, 3] = identity(3)
    """3 for colour; 1 takes the mean of the colours, which loses nothing of grey images."""

    def build(self, device: str, reference: Labelled | None, cache: Path, where: str, reporter: Reporter) -> list[Encoder]:  # noqa: ARG002
        """Make it."""
        from synthforge.features.encoders.pixels import PixelsEncoder

        return [PixelsEncoder(self)]


class FittedConfig(Config):
    """Small classifiers of ours, cross-fitted on the reference, beside raw pixels: where models of natural images say little."""

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

    def build(self, device: str, reference: Labelled | None, cache: Path, where: str, reporter: Reporter) -> list[Encoder]:
        """Load them, fitting first if need be; raises ModelError, or RequestError without a reference to fit on."""
        from synthforge.features.encoders.fitted import load

        encoders: list[Encoder] = [*load(self, device, reference, cache=cache, where=where, reporter=reporter)]
        if self.model is None and self.pixels is not None:
            encoders += PixelsConfig(resolution=self.pixels).build(device, reference, cache, where, reporter)
        return encoders


EncoderConfig = Annotated[OpenClipConfig | TimmConfig | PixelsConfig | FittedConfig, Field(discriminator="kind")]
"""The union of all kinds."""
KINDS: dict[str, type[OpenClipConfig | TimmConfig | PixelsConfig | FittedConfig]] = {
    "open_clip": OpenClipConfig,
    "timm": TimmConfig,
    "pixels": PixelsConfig,
    "fitted": FittedConfig,
}
"""The same by name."""
