"""Does a generator copy the images it was fitted on? Distances to them, against leave-one-out among real images.

Images are compared as pixels, by Euclidean distance. An image is a near-copy if it is closer to a fitted image than a
threshold. A share `LEAVE_ONE_OUT_SHARE` of the fitted images has another fitted image within that threshold. A
generator of the same distribution has about that share of near-copies too; one that memorises has more.
Coverage is that of Naeem et al. 2020 (arXiv 2002.09797).
Shapes: G generated, F fitted, V validation images, D pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAVE_ONE_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Memorising:
    """Result of one check. Distances are root mean square differences of a pixel, 0 to 255."""

    num_generated: int
    near_copies: float
    """Share of generated images that are near-copies of a fitted one."""
    near_copies_real: float
    """Share of fitted images that are near-copies of another fitted one: the natural rate."""
    median_distance: float
    """Median distance from a generated image to the nearest fitted one."""
    median_distance_real: float
    """Median distance from a fitted image to the nearest other."""

    @property
    def excess(self) -> float:
        """Standard errors by which the rate of near-copies exceeds the natural rate."""
        rate = self.near_copies_real
        return (self.near_copies - rate) / math.sqrt(max(rate, 1e-3) * (1 - rate) / self.num_generated)


def memorising(generated_GD: Tensor, fitted_FD: Tensor) -> Memorising:
    """Compare generated with fitted images; both uint8 or float in 0 to 255, one row per image."""
    generated_GD, fitted_FD = generated_GD.float(), fitted_FD.float()
    pixels = math.sqrt(fitted_FD.shape[1])
    among_F = nearest(fitted_FD, fitted_FD, leave_one_out=True) / pixels
    to_fitted_G = nearest(generated_GD, fitted_FD) / pixels
    threshold = float(torch.quantile(among_F, LEAVE_ONE_OUT_SHARE))
    return Memorising(
        num_generated=len(generated_GD),
        near_copies=float((to_fitted_G < threshold).float().mean()),
        near_copies_real=float((among_F < threshold).float().mean()),
        median_distance=float(to_fitted_G.median()),
        median_distance_real=float(among_F.median()),
    )


def coverage(generated_GD: Tensor, real_VD: Tensor, neighbours: int = 5) -> float:
    """Share of real images with a generated image closer than their k-th real neighbour."""
    real_VD = real_VD.float()
    radius_V = torch.cat(
        [torch.cdist(rows, real_VD).kthvalue(min(neighbours + 1, len(real_VD)), dim=1).values for rows in torch.split(real_VD, 4096)]
    )
    return float((nearest(real_VD, generated_GD.float()) < radius_V).float().mean())


def nearest(rows_ND: Tensor, to_MD: Tensor, leave_one_out: bool = False) -> Tensor:
    """Distance from each row to the nearest of the others, float (N,). Computed in blocks, so memory is bounded."""
    parts = []
    for start in range(0, len(rows_ND), 1024):
        distance = torch.cdist(rows_ND[start : start + 1024], to_MD)
        if leave_one_out:
            rows = torch.arange(len(distance))
            distance[rows, rows + start] = torch.inf
        parts.append(distance.min(dim=1).values)
    return torch.cat(parts)
