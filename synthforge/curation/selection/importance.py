"""Importance weights: how much each pool image should count for the pool to match the real images; one class at a time.

Kernel mean matching (Huang, Gretton, Borgwardt, Schölkopf, Smola 2006): the weights, bounded and of mean 1, with which the pool's mean
in the space of a Gaussian kernel comes nearest to that of the real images. Views add up as in selection.py. The kernel is represented by
its values on landmarks (Nyström; Williams and Seeger 2001), so that memory and time grow with N alone. A penalty holds the weights near 1:
their variance costs as much as the same squared distance would if the real images were so few that it is noise, V/M, so that
weights follow the reference no further than it can be trusted.
Not covered: choosing a subset (selection.py), weights across classes.
Shapes: N pool images, M real images, L landmarks, F features of the kernel over all views.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from synthforge.curation.selection.spaces import BLOCK, Gaussian, Rows, Space, View, project, variance_of

LANDMARKS = 256
"""Images of each side, evenly spaced in their order, on which the kernel is evaluated; exact for sets that have no more."""
_ROUNDS = 1000
_TOLERANCE = 1e-5
"""Largest change of a weight in a round at which the search ends."""


def importance_weights(
    views: Sequence[View], *, max_weight: float = 10.0, dim: int | None = 32, device: str = "cpu"
) -> NDArray[np.float64]:
    """A weight between 0 and `max_weight` for each of the pool's N images, mean 1; float64 (N,).

    Args:
        views: the same pool rows in each; real images may differ.
        max_weight: at least 1.
        dim: principal components of the real features to keep; None keeps all.
    """
    assert max_weight >= 1, f"weights of mean 1 can't all be below {max_weight}"
    with torch.inference_mode():
        parts = [_embedded(project(view, dim, device)) for view in views]
        pool_NF = torch.cat([pool for pool, _, _ in parts], dim=1)
        wanted_F = torch.cat([wanted for _, wanted, _ in parts])
        return _matched(pool_NF, wanted_F, sum(noise for _, _, noise in parts), max_weight).cpu().numpy()


def _embedded(space: Space) -> tuple[Tensor, Tensor, float]:
    """The pool in the space of the kernel less its mean there, float32 (N, F); the real mean less the pool's; V/M; all over √V or V."""
    kernel = Gaussian.for_space(space)
    variance = variance_of(kernel, space.typical)
    landmarks = Rows.of(torch.cat([_evenly(space.real), _evenly(space.pool)]))
    values, axes = torch.linalg.eigh(kernel(landmarks, landmarks).double())
    is_kept = values > 1e-6 * values[-1]
    whiten_LF = (axes[:, is_kept] * (values[is_kept] * variance).rsqrt()).float()
    step = max(1, BLOCK // len(landmarks))

    def embed(rows: Rows) -> Tensor:
        return torch.cat([kernel(rows.part(at, at + step), landmarks) @ whiten_LF for at in range(0, len(rows), step)])

    pool_NF, real_F = embed(space.pool), embed(space.real).mean(dim=0, dtype=torch.float64)
    mean_F = pool_NF.mean(dim=0, dtype=torch.float64)
    return pool_NF.sub_(mean_F.float()), (real_F - mean_F).float(), 1 / len(space.real)


def _evenly(rows: Rows) -> Tensor:
    places = torch.linspace(0, len(rows) - 1, min(len(rows), LANDMARKS), dtype=torch.float64).long().to(rows.features_ND.device)
    return rows.features_ND[places]


def _matched(pool_NF: Tensor, wanted_F: Tensor, noise: float, max_weight: float) -> Tensor:
    """Minimise |poolᵀ(w - 1)/N - wanted|² + noise · mean (w - 1)², by accelerated projected gradient steps (Beck and Teboulle 2009)."""
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
        # Momentum that goes against the descent is dropped (O'Donoghue and Candès 2015).
        momentum = 1.0 if float(step_N @ moved_N) > 0 else momentum
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead_N, momentum = weight_N + moved_N * ((momentum - 1) / following), following
    return weight_N


def _into_bounds(weight_N: Tensor, max_weight: float) -> Tensor:
    """The nearest weights between 0 and `max_weight` of mean 1: all shifted by one number, then cut.

    The number is found by Newton steps, which are exact between two kinks, or halvings where they leave the bracket.
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
