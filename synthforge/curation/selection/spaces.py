"""Feature spaces for selection: one class of pool and reference, centred and projected, and kernels with their
variances.

Features are centred on the real mean and projected to principal components of the real images. So distances count what
varies among real images.
Shapes: N pool images, M real images, D features, d projected features.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthforge.arrays import Doubles, Floats, Ints
from synthforge.curation.gap.metrics import median_sigma

BLOCK = 1 << 20
"""Values held at a time while kernels are averaged; few enough for a processor's cache."""
_SPREAD_OF = 2000
"""Pool images that replace the real ones for scales if there is only one real image, or all are equal."""


def blocks(num: int, width: int) -> Iterator[slice]:
    """Slices that part `num` rows of `width` values each, at most `BLOCK` values at a time."""
    step = max(1, BLOCK // width)
    return (slice(start, start + step) for start in range(0, num, step))


@dataclass(frozen=True)
class View:
    """One class in one feature space, of any floating type. The pool may be memory-mapped: it is read in blocks."""

    pool_ND: NDArray[np.floating[Any]]
    real_MD: NDArray[np.floating[Any]]


# Views, projected


@dataclass(frozen=True)
class Rows:
    """Features of some images, float32 (n, d), with their squared norms, (n,)."""

    features_ND: Tensor
    squares_N: Tensor

    @classmethod
    def of(cls, features_ND: Tensor) -> Rows:
        """Compute the squared norms."""
        return cls(features_ND, (features_ND * features_ND).sum(dim=1))

    def __len__(self) -> int:
        return len(self.features_ND)

    def part(self, place: slice) -> Rows:
        """A slice of the images."""
        return Rows(self.features_ND[place], self.squares_N[place])

    def evenly(self, num: int) -> Rows:
        """At most `num` of the images, evenly spaced in order."""
        places = torch.linspace(0, len(self) - 1, min(len(self), num), dtype=torch.float64).long().to(self.features_ND.device)
        return Rows.of(self.features_ND[places])


@dataclass(frozen=True)
class Space:
    """A view after projection. The real mean is at the origin."""

    pool: Rows
    real: Rows
    typical: Rows
    """Images that set scales: the real images, or pool images if the real ones don't vary."""

    @property
    def knows_floor(self) -> bool:
        """Whether the real images vary, so that the floor is known."""
        return self.typical is self.real

    @property
    def variances(self) -> Tensor:
        """Variance of each feature, float64 (d,)."""
        return self.typical.features_ND.double().square().mean(dim=0)

    @functools.cached_property
    def spread(self) -> float:
        """Variance of all features together: the mean squared distance of typical images from their mean."""
        return variance_of(Moments(1, 0), self.typical)


def project(view: View, dim: int | None, device: str) -> Space:
    """Centre a view on its real mean and project it to at most `dim` principal components of its real images; None
    keeps all."""
    mean_D = np.asarray(view.real_MD.mean(axis=0, dtype=np.float64))
    basis = _principal(view.real_MD, mean_D, dim)

    def projected(features_ND: NDArray[np.floating[Any]]) -> Rows:
        rows = np.empty((len(features_ND), len(mean_D) if basis is None else basis.shape[1]), np.float32)
        for block in blocks(len(features_ND), len(mean_D)):
            centred = (features_ND[block] - mean_D).astype(np.float32)
            rows[block] = centred if basis is None else centred @ basis
        assert np.isfinite(rows).all(), "features must be finite"
        return Rows.of(torch.from_numpy(rows).to(device))

    pool, real = projected(view.pool_ND), projected(view.real_MD)
    if len(real) > 1 and float(real.squares_N.max()) > 0:
        return Space(pool, real, real)
    return Space(pool, real, pool.evenly(_SPREAD_OF))


def _principal(real_MD: NDArray[np.floating[Any]], mean_D: Doubles, dim: int | None) -> Floats | None:
    """Principal axes as columns, largest variance first; None if all features are kept as they are."""
    num, width = real_MD.shape
    if dim is None or dim >= width or num < 2:
        return None
    if num <= width:
        _, scale, axes = np.linalg.svd(real_MD - mean_D, full_matrices=False)
        variances, axes = scale**2, axes.T
    else:
        scatter_DD = np.zeros((width, width))
        for block in blocks(num, width):
            centred = real_MD[block] - mean_D
            scatter_DD += centred.T @ centred
        variances, axes = np.linalg.eigh(scatter_DD)
        variances, axes = variances[::-1], axes[:, ::-1]
    kept = int((variances[: min(dim, num - 1)] > 1e-10 * variances[0]).sum())
    return np.ascontiguousarray(axes[:, :kept], np.float32) if kept else None


def first_duplicates(views: Sequence[View]) -> Ints:
    """For each pool row the first row with exactly the same features in all views, int64 (N,).

    Matrix products round equal rows differently, depending on their place. So ties between equal rows are found here.
    """
    hashes_N = np.zeros(len(views[0].pool_ND), np.uint64)
    for number, view in enumerate(views):
        factors_D = np.random.Generator(np.random.Philox(key=number)).integers(0, 2**64, view.pool_ND.shape[1], np.uint64)
        for block in blocks(len(hashes_N), len(factors_D)):
            features = np.ascontiguousarray(view.pool_ND[block], np.float32) + np.float32(0)  # -0 becomes 0
            bits = features.view(np.uint32) * np.uint64(0x9E3779B97F4A7C15)
            bits ^= bits >> np.uint64(29)  # else rows that differ only in high bits collide too often
            hashes_N[block] += bits @ factors_D
    _, first, inverse = np.unique(hashes_N, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


# Kernels


class Kernel(Protocol):
    """A positive definite function of two images."""

    def __call__(self, one: Rows, other: Rows) -> Tensor:
        """The kernel of all pairs, float32 (N, M)."""

    def itself(self, rows: Rows) -> Tensor:
        """The kernel of each image with itself, float64 (N,)."""


@dataclass(frozen=True)
class Gaussian:
    """exp(-|x - y|² / 2σ²)."""

    sigma: float

    @classmethod
    def for_space(cls, space: Space) -> Gaussian:
        """The width is the median distance between two real images."""
        return cls(median_sigma(space.typical.features_ND.cpu().numpy()))

    def __call__(self, one: Rows, other: Rows) -> Tensor:
        half_NM = one.features_ND @ other.features_ND.T
        half_NM.sub_(one.squares_N[:, None], alpha=0.5).sub_(other.squares_N, alpha=0.5)
        return half_NM.clamp_(max=0).mul_(self.sigma**-2).exp_()

    def itself(self, rows: Rows) -> Tensor:
        return torch.ones_like(rows.squares_N, dtype=torch.float64)


@dataclass(frozen=True)
class Moments:
    """a x·y + b (x·y)². It matches means and covariances of features that are centred on the real mean."""

    linear: float
    squared: float

    @classmethod
    def for_space(cls, space: Space) -> Moments:
        """Each part is divided by its variance, so that mean and covariance have equal weight."""
        return cls(1 / space.spread, 1 / variance_of(cls(0, 1), space.typical))

    def __call__(self, one: Rows, other: Rows) -> Tensor:
        product_NM = one.features_ND @ other.features_ND.T
        return product_NM.mul_(product_NM * self.squared + self.linear)

    def itself(self, rows: Rows) -> Tensor:
        squares_N = rows.squares_N.double()
        return squares_N * (squares_N * self.squared + self.linear)


def means_over(kernel: Kernel, one: Rows, other: Rows) -> Tensor:
    """Mean of the kernel of each of N images with M others, float64 (N,); in blocks."""
    sums = [kernel(one.part(block), other).sum(dim=1, dtype=torch.float64) for block in blocks(len(one), len(other))]
    return torch.cat(sums) / len(other)


def variance_of(kernel: Kernel, rows: Rows) -> float:
    """Variance of a kernel: mean k(x, x) less mean k(x, x') of different images, E|φ(x) - Eφ|², unbiased; 1 if it is
    0."""
    num = len(rows)
    if num < 2:
        return 1.0
    itself = float(kernel.itself(rows).mean())
    variance = (itself - float(means_over(kernel, rows, rows).mean())) * num / (num - 1)
    return variance if variance > 1e-9 * itself else 1.0
