"""The Configs of training; imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from synthforge.config import Config, execution, identity


class LoopConfig(Config):
    """Length, learning rate and precision of training."""

    images: int | None = identity(None, ge=1)
    """Images shown in training, counted with repetitions. None: chosen from the amount of data."""
    batch: int = identity(256, ge=1, le=65_536)
    """Images per step."""
    learning_rate: float = identity(2e-3, gt=0, le=1)
    """Peak learning rate: linear warm-up, then a half cosine to zero."""
    warmup: float = identity(0.05, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    weight_decay: float = identity(0.0, ge=0, le=1)
    """Weight decay of AdamW."""
    ema: float = identity(0.05, gt=0, lt=1)
    """Window of the averaged weights, as a share of the steps done so far (power-function averaging)."""
    precision: Literal["auto", "float32", "bfloat16"] = identity("auto")
    """Precision of forward and backward; `auto`: bfloat16 on CUDA, else float32. Weights stay float32."""
    checks: int = identity(12, ge=1, le=1000)
    """Number of checks: each measures held-out loss and memorising, and writes a checkpoint."""
    seed: int = identity(0, ge=0, lt=2**63)
    """Decides initial weights, order, noise and augmentation."""
    compile: bool = execution(True)
    """Compile the network on CUDA."""


class AugmentConfig(Config):
    """Geometric augmentation: share of the images, and strength."""

    share: float = identity(0.5, ge=0, le=1)
    """Share of each batch that is augmented. 0: none."""
    shift: float = identity(0.06, ge=0, le=0.5)
    """Standard deviation of the shift, as a share of the width."""
    scale: float = identity(0.08, ge=0, le=1)
    """Standard deviation of the logarithm of the size."""
    rotate: float = identity(6.0, ge=0, le=180)
    """Standard deviation of the rotation, in degrees."""
    shear: float = identity(0.08, ge=0, le=1)
    """Standard deviation of the tangent of the shear angle."""
    flip: bool = identity(False)
    """Mirror left and right; wrong for digits and text."""
