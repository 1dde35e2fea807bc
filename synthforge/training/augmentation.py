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
    """Augmented images (float, -1 to 1 in and out; borders repeat) and their vectors, float (B, A), zeros where untouched.

    The first `config.share` of the rows is moved: batches come in random order, and so shapes stay fixed.
    """
    num, device = round(config.share * len(images_BCHW)), images_BCHW.device
    vector_BA = torch.zeros(len(images_BCHW), AUGMENT_DIM, device=device)
    if num == 0:
        return images_BCHW, vector_BA
    normal_KM = torch.randn(7, num, generator=generator, device=device)
    shift_x_M, shift_y_M = normal_KM[:2] * config.shift * 2  # grid units: the image spans -1 to 1
    log_scale_M, aspect_M = normal_KM[2] * config.scale, normal_KM[3] * (config.scale * 0.5)
    angle_M, shear_M = normal_KM[4] * math.radians(config.rotate), normal_KM[5] * config.shear
    flip_M = (normal_KM[6] > 0).float() * float(config.flip)
    cos_M, sin_M = angle_M.cos(), angle_M.sin()
    wide_M, high_M = (log_scale_M + aspect_M).exp() * (1 - 2 * flip_M), (log_scale_M - aspect_M).exp()
    rows_M = (cos_M * wide_M, (shear_M - sin_M) * high_M, shift_x_M, sin_M * wide_M, cos_M * high_M, shift_y_M)
    moving_MCHW = images_BCHW[:num]
    grid = functional.affine_grid(torch.stack(rows_M, dim=1).view(num, 2, 3), list(moving_MCHW.shape), align_corners=False)
    moved_MCHW = functional.grid_sample(moving_MCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    vector_BA[:num] = torch.stack([shift_x_M, shift_y_M, log_scale_M, aspect_M, sin_M, shear_M, flip_M], dim=1)
    return torch.cat([moved_MCHW, images_BCHW[num:]]), vector_BA
