"""Geometric augmentation of batches on the device, with its parameters as a vector; random erasing and mixup.

A diffusion model can take the vector as a condition, with zeros at sampling. Then augmentation does not leak into
generated images (Karras et al. 2020, arXiv 2006.06676; for diffusion Karras et al. 2022, arXiv 2206.00364).
Shapes: B batch, C channels, H = W, A = `AUGMENT_DIM`, M augmented images.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from torch.nn import functional

from synthforge.training.config import AugmentConfig

AUGMENT_DIM = 7
"""Entries: shift x and y in half widths, log scale, aspect, rotation in radians, shear, flip."""


def augment(images_BCHW: Tensor, config: AugmentConfig, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Augmented images and their vectors, float (B, A), zeros where an image is unchanged.

    Images are float, -1 to 1; borders repeat. The first `config.share` of the rows is augmented, since batches come
    in random order and shapes must stay fixed. Steps of tiny networks take milliseconds, so few operations are used.
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


@functools.cache  # never freed: a captured step keeps reading it
def _deviations(config: AugmentConfig, device: torch.device) -> Tensor:
    """Standard deviation of each entry of the vector, float (A,)."""
    shift = 2 * config.shift  # grid units: the image spans -1 to 1
    return torch.tensor([shift, shift, config.scale, config.scale / 2, math.radians(config.rotate), config.shear, 0.0], device=device)


def erase(images_BCHW: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Images of which a share, the first rows, have a grey rectangle over 2 to 33 % of their area.

    Random erasing (Zhong et al. 2020, arXiv 1708.04896), filled as in cutout (DeVries and Taylor 2017, arXiv
    1708.04552).
    """
    num, (height, width), device = round(share * len(images_BCHW)), images_BCHW.shape[2:], images_BCHW.device
    if num == 0:
        return images_BCHW
    area_M, aspect_M, left_M, top_M = torch.rand(num, 4, generator=generator, device=device).unbind(1)
    side_M, ratio_M = (0.02 + 0.31 * area_M).sqrt(), (math.log(3) * (2 * aspect_M - 1) / 2).exp()
    wide_M, high_M = (side_M * ratio_M * width).clamp(1, width), (side_M / ratio_M * height).clamp(1, height)
    columns_M, rows_M = (left_M * (width - wide_M)).round(), (top_M * (height - high_M)).round()
    x_W, y_H = torch.arange(width, device=device), torch.arange(height, device=device)
    in_x_MW = (x_W >= columns_M[:, None]) & (x_W < (columns_M + wide_M)[:, None])
    in_y_MH = (y_H >= rows_M[:, None]) & (y_H < (rows_M + high_M)[:, None])
    inside_MHW = in_y_MH[:, :, None] & in_x_MW[:, None, :]
    return torch.cat([images_BCHW[:num].masked_fill(inside_MHW[:, None], 0.0), images_BCHW[num:]])


def mixup(images_BCHW: Tensor, targets_BC: Tensor, strength: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images blended with others of the batch, and targets likewise (mixup: Zhang et al. 2018, arXiv 1710.09412).

    The share of the first image is drawn for each pair from Beta(strength, strength).
    """
    if strength == 0 or len(images_BCHW) < 2:
        return images_BCHW, targets_BC
    concentration_B2 = torch.full((len(images_BCHW), 2), strength, device=images_BCHW.device)
    share_B = torch._sample_dirichlet(concentration_B2, generator)[:, 0]
    order_B = torch.randperm(len(images_BCHW), generator=generator, device=images_BCHW.device)
    images_BCHW = torch.lerp(images_BCHW[order_B], images_BCHW, share_B[:, None, None, None])
    return images_BCHW, torch.lerp(targets_BC[order_B], targets_BC, share_B[:, None])
