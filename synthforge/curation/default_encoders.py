"""The encoder and the metric encoder that curation uses if the settings name none."""

from __future__ import annotations

from synthforge.data.collection import Collection
from synthforge.data.images import decode
from synthforge.data.storage import resolve
from synthforge.errors import DatasetError
from synthforge.features.encoders.config import EncoderConfig, FittedConfig, OpenClipConfig, TimmConfig
from synthforge.recipe.curation import CurationConfig

SMALL = 64
"""Largest height or width in pixels for which networks fitted on the reference are used. Models of natural images are
unreliable below that size."""
CLIP = OpenClipConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k")
"""The default encoder of larger images."""
_DIGITS = "builtin:digits/reference"


def encoders_for(config: CurationConfig, reference: str, real: Collection) -> tuple[EncoderConfig, EncoderConfig]:
    """The encoder and the metric encoder of the settings, with defaults for those that they don't name.

    Args:
        reference: address of the real images.
        real: the real images. The defaults depend on the size of the first one.
    Raises: DatasetError if there is no real image, or the first can't be decoded.
    """
    encoder, metric_encoder = config.encoder, config.metric_encoder
    if isinstance(metric_encoder, FittedConfig):
        metric_encoder = metric_encoder.model_copy(update={"pixels": None})  # raw pixels may drive the selection, so they don't measure
    if encoder is not None and metric_encoder is not None:
        return encoder, metric_encoder
    default, metric_default = _defaults(reference, real)
    return encoder or default, metric_encoder or metric_default


def _defaults(reference: str, real: Collection) -> tuple[EncoderConfig, EncoderConfig]:
    if resolve(reference) == resolve(_DIGITS):
        return OpenClipConfig(model="builtin:digits/encoder"), FittedConfig(model="builtin:digits/judge")
    first = next((data for block in real.blocks for data in real.images(block)), None)
    if first is None:
        raise DatasetError(f"{reference}: holds no images")
    if max(decode(first).shape[:2]) > SMALL:
        return CLIP, TimmConfig(model="vit_small_patch14_dinov2.lvd142m", resolution=224)
    fitted = FittedConfig()
    return fitted, FittedConfig(width=48, pixels=None, loop=fitted.loop.model_copy(update={"seed": 1}))
