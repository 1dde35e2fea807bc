"""Importance weights: how much each pool image should count so that the pool matches the real images. One class at a
time.

Kernel mean matching (Huang, Gretton, Borgwardt, Schölkopf, Smola 2006): bounded weights of mean 1 that bring the pool's
mean, in the space of a Gaussian kernel, nearest to that of the real images. Views add up as in methods.py. The kernel
is represented by its values on landmarks (Nyström; Williams and Seeger 2001), so memory and time grow with N alone.

A penalty on the variance of the weights, of strength V/M, holds them near 1. V/M is the noise in the mean of M real
images. So the weights follow the reference only as far as it can be trusted.

Not covered: choosing a subset (methods.py), weights across classes.
Shapes: N pool images, M real images, L landmarks, F features of the kernel over all views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from synthforge.arrays import Doubles
from synthforge.curation.selection.spaces import Gaussian, Rows, Space, View, blocks, project, variance_of

LANDMARKS = 256
"""Images of each side, evenly spaced in order, that serve as landmarks. Sets that are not larger give exact results."""
_ROUNDS = 1000
_TOLERANCE = 1e-5
"""The search ends when no weight changes by more than this in a round."""


def importance_weights(views: Sequence[View], *, max_weight: float = 10.0, dim: int | None = 32, device: str = "cpu") -> Doubles:
    """A weight between 0 and `max_weight` for each of the pool's N images, with mean 1; float64 (N,).

    Args:
        views: the same pool images in each view; the real images may differ.
        max_weight: at least 1.
        dim: principal components of the real features to keep. None: all features.
        device: torch device.
    """
    assert max_weight >= 1, f"weights of mean 1 can't all be below {max_weight}"
    with torch.inference_mode():
        parts = [_embedded(project(view, dim, device)) for view in views]
        pool_NF = torch.cat([pool for pool, _, _ in parts], dim=1)
        wanted_F = torch.cat([wanted for _, wanted, _ in parts])
        return _matched(pool_NF, wanted_F, sum(noise for _, _, noise in parts), max_weight).cpu().numpy()


def _embedded(space: Space) -> tuple[Tensor, Tensor, float]:
    """One view in the space of its kernel.

    Returns: the pool, centred, float32 (N, F); the real mean less the pool's, (F,); the noise of the real mean. In
        units of the kernel's variance V, so the noise is 1/M.
    """
    kernel = Gaussian.for_space(space)
    variance = variance_of(kernel, space.typical)
    landmarks = Rows.of(torch.cat([side.evenly(LANDMARKS).features_ND for side in (space.real, space.pool)]))
    values, axes = torch.linalg.eigh(kernel(landmarks, landmarks).double())
    is_kept = values > 1e-6 * values[-1]
    whiten_LF = (axes[:, is_kept] * (values[is_kept] * variance).rsqrt()).float()

    def embed(rows: Rows) -> Tensor:
        return torch.cat([kernel(rows.part(block), landmarks) @ whiten_LF for block in blocks(len(rows), len(landmarks))])

    pool_NF, real_F = embed(space.pool), embed(space.real).mean(dim=0, dtype=torch.float64)
    mean_F = pool_NF.mean(dim=0, dtype=torch.float64)
    return pool_NF.sub_(mean_F.float()), (real_F - mean_F).float(), 1 / len(space.real)


def _matched(pool_NF: Tensor, wanted_F: Tensor, noise: float, max_weight: float) -> Tensor:
    """Minimise |poolᵀ(w - 1)/N - wanted|² + noise · mean (w - 1)², by accelerated projected gradients (Beck and
    Teboulle 2009)."""
    num = len(pool_NF)
    second_FF = (pool_NF.T @ pool_NF).double() / num
    rate = 1 / (float(torch.linalg.eigvalsh(second_FF)[-1]) + noise)
    weight_N = torch.ones(num, dtype=torch.float64, device=pool_NF.device)
    ahead_N, momentum = weight_N, 1.0
    for _ in range(_ROUNDS):
        off_F = pool_NF.T @ (ahead_N - 1).float() / num - wanted_F
        step_N = (pool_NF @ off_F).double() + noise * (ahead_N - 1)
        before_N, weight_N = weight_N, _into_bounds(ahead_N - rate * step_N, max_weight)
        moved_N = weight_N - before_N
        if float(moved_N.abs().max()) < _TOLERANCE:
            break
        # Momentum against the descent is dropped (O'Donoghue and Candès 2015).
        momentum = 1.0 if float(step_N @ moved_N) > 0 else momentum
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead_N, momentum = weight_N + moved_N * ((momentum - 1) / following), following
    return weight_N


def _into_bounds(weight_N: Tensor, max_weight: float) -> Tensor:
    """The nearest weights between 0 and `max_weight` with mean 1: all are shifted by one number, then clipped.

    The shift is found by Newton steps, which are exact between two kinks, or by bisection where they leave the bracket.
    """
    low, high = -float(weight_N.max()), max_weight - float(weight_N.min())
    shift = 1 - float(weight_N.mean())
    for _ in range(100):
        cut_N = (weight_N + shift).clamp_(0, max_weight)
        missing = 1 - float(cut_N.mean())
        if abs(missing) < 1e-12:
            break
        low, high = (shift, high) if missing > 0 else (low, shift)
        share_inside = float(((cut_N > 0) & (cut_N < max_weight)).double().mean())
        shift += missing / share_inside if share_inside else math.inf
        shift = shift if low < shift < high else (low + high) / 2
    return cut_N
