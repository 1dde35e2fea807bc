"""The Configs of training, with no heavy import."""

from __future__ import annotations

from typing import Literal

from synthforge.config import Config, execution, identity


class LoopConfig(Config):
    """How long and how fast a network is trained."""

    images: int | None = identity(None, ge=1)
    """Training images to show in all, counting repetitions; nothing means what suits the amount of data."""
    batch: int = identity(256, ge=1, le=65_536)
    """Images per step."""
    learning_rate: float = identity(2e-3, gt=0, le=1)
    """Peak of the schedule: linear warm-up, then a half cosine to zero."""
    warmup: float = identity(0.05, ge=0, lt=1)
    """Share of the steps over which the rate rises."""
    weight_decay: float = identity(0.0, ge=0, le=1)
    """Of AdamW."""
    ema: float = identity(0.05, gt=0, lt=1)
    """The averaged weights reach back over this share of the steps done so far (power-function averaging)."""
    precision: Literal["auto", "float32", "bfloat16"] = identity("auto")
    """Of forward and backward; `auto` is bfloat16 on CUDA, float32 elsewhere. Weights stay float32."""
    checks: int = identity(12, ge=1, le=1000)
    """How often the held-out loss and memorising are looked at, and a checkpoint is written."""
    seed: int = identity(0, ge=0, lt=2**63)
    """Decides initial weights, order, noise and augmentation."""
    compile: bool = execution(True)
    """Compile the network on CUDA."""


class AugmentConfig(Config):
    """How far images are moved, and how many of them."""

    share: float = identity(0.5, ge=0, le=1)
    """Of each batch that is augmented; 0 for none."""
    shift: float = identity(0.06, ge=0, le=0.5)
    """Standard deviation, share of the width."""
    scale: float = identity(0.08, ge=0, le=1)
    """Standard deviation of the logarithm of the size."""
    rotate: float = identity(6.0, ge=0, le=180)
    """Standard deviation in degrees."""
    shear: float = identity(0.08, ge=0, le=1)
    """Standard deviation of the tangent."""
    flip: bool = identity(False)
    """Mirror left and right; wrong for digits and text."""
