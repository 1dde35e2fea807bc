"""Batched geometric augmentation on the device, with its parameters as a vector.

A diffusion model that gets the vector as a condition, and zeros at sampling, does not leak augmented images into what it
generates (Karras et al. 2020, arXiv 2006.06676; used for diffusion in Karras et al. 2022, arXiv 2206.00364).
Shapes: B batch, C channels, H = W, A = `AUGMENT_DIM`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from synthforge.training.config import AugmentConfig

AUGMENT_DIM = 7
"""Shift x and y, log scale, aspect, sine of the rotation, shear, flip."""


def augment(images_BCHW: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented images (float, -1 to 1 in and out; borders repeat) and their vectors, float (B, A), zeros where untouched."""
    num, device = len(images_BCHW), images_BCHW.device
    normal_BK = torch.randn(num, 6, generator=generator, device=device)
    uniform_BK = torch.rand(num, 2, generator=generator, device=device)
    on_B = (uniform_BK[:, 0] < config.probability).float()
    flip_B = (uniform_BK[:, 1] < 0.5).float() * float(config.flip) * on_B
    normal_BK = normal_BK * on_B[:, None]
    shift_B2 = normal_BK[:, :2] * config.shift * 2  # grid units: the image spans -1 to 1
    log_scale_B, aspect_B = normal_BK[:, 2] * config.scale, normal_BK[:, 3] * config.scale * 0.5
    angle_B, shear_B = normal_BK[:, 4] * math.radians(config.rotate), normal_BK[:, 5] * config.shear
    cos_B, sin_B = angle_B.cos(), angle_B.sin()
    wide_B, high_B = (log_scale_B + aspect_B).exp() * (1 - 2 * flip_B), (log_scale_B - aspect_B).exp()
    matrix_B23 = torch.stack(
        [
            torch.stack([cos_B * wide_B, (shear_B - sin_B) * high_B, shift_B2[:, 0]], dim=1),
            torch.stack([sin_B * wide_B, cos_B * high_B, shift_B2[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(matrix_B23, list(images_BCHW.shape), align_corners=False)
    moved_BCHW = functional.grid_sample(images_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    images_BCHW = torch.where(on_B[:, None, None, None] > 0, moved_BCHW, images_BCHW)
    vector_BA = torch.stack([shift_B2[:, 0], shift_B2[:, 1], log_scale_B, aspect_B, sin_B, shear_B, flip_B], dim=1)
    return images_BCHW, vector_BA
