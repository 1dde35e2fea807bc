"""Batched geometric augmentation on the device, with its parameters as a vector.

A diffusion model that gets the vector as a condition, and zeros at sampling, does not leak augmented images into what it
generates (Karras et al. 2020, arXiv 2006.06676; used for diffusion in Karras et al. 2022, arXiv 2206.00364).
Shapes: B batch, C channels, H = W, A = `AUGMENT_DIM`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from synthforge.training.config import AugmentConfig

AUGMENT_DIM = 7
"""Shift x and y in half widths, log scale, aspect, rotation in radians, shear, flip."""


def augment(images_BCHW: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented images (float, -1 to 1 in and out; borders repeat) and their vectors, float (B, A), zeros where untouched.

    The first `config.share` of the rows is moved: batches come in random order, and so shapes stay fixed. Tiny networks are
    trained in milliseconds a step, so this is written in few operations.
    """
    batch, num, device = len(images_BCHW), round(config.share * len(images_BCHW)), images_BCHW.device
    if num == 0:
        return images_BCHW, torch.zeros(batch, AUGMENT_DIM, device=device)
    vector_MA = torch.randn(num, AUGMENT_DIM, generator=generator, device=device)
    flip_M = vector_MA[:, 6] > 0
    vector_MA = vector_MA * _deviations(config, device)
    shift_x_M, shift_y_M, log_scale_M, aspect_M, angle_M, shear_M, _ = vector_MA.unbind(1)
    cos_M, sin_M = angle_M.cos(), angle_M.sin()
    wide_M, high_M = (log_scale_M + aspect_M).exp(), (log_scale_M - aspect_M).exp()
    if config.flip:
        vector_MA[:, 6] = flip_M.float()
        wide_M = torch.where(flip_M, -wide_M, wide_M)
    rows_M = (cos_M * wide_M, (shear_M - sin_M) * high_M, shift_x_M, sin_M * wide_M, cos_M * high_M, shift_y_M)
    moving_MCHW = images_BCHW[:num]
    grid = functional.affine_grid(torch.stack(rows_M, dim=1).view(num, 2, 3), list(moving_MCHW.shape), align_corners=False)
    moved_MCHW = functional.grid_sample(moving_MCHW, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return torch.cat([moved_MCHW, images_BCHW[num:]]), functional.pad(vector_MA, (0, 0, 0, batch - num))


@functools.lru_cache(maxsize=8)
def _deviations(config: AugmentConfig, device: torch.device) -> Tensor:
    """Standard deviation of each entry of the vector, float (A,)."""
    shift = 2 * config.shift  # grid units: the image spans -1 to 1
    return torch.tensor([shift, shift, config.scale, config.scale / 2, math.radians(config.rotate), config.shear, 0.0], device=device)
