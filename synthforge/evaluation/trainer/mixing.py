"""How real and synthetic images share the batches of a training.

- `pooled`: all images are drawn alike, so many synthetic images crowd out the real ones.
- `weighted`: every batch has a fixed share of synthetic images, and their loss counts less.
- `synthetic-then-real`: synthetic images first, real images alone at the end.
- `split-norm`: `weighted`, with separate batch-norm statistics for real and synthetic images (see training.networks).

Shapes: N images of the set, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthforge.recipe.evaluation import MixingConfig
from synthforge.training.data import seeded


class Mixing:
    """Which images each batch holds, and how much each image counts: pure functions of the step.

    Args:
        is_real_N: bool.
        weight_N: importance weights, float. Those of real and of synthetic images are each scaled to a mean of 1.
    """

    def __init__(self, config: MixingConfig, is_real_N: Tensor, weight_N: Tensor, *, batch: int, num_steps: int, seed: int) -> None:
        has_both = bool(is_real_N.any()) and not bool(is_real_N.all())
        self.policy = config.policy if has_both else "pooled"
        self._batch = batch
        self._real, self._synthetic = _Endless(is_real_N, "real order", seed), _Endless(~is_real_N, "synthetic order", seed)
        self._all = _Endless(torch.ones_like(is_real_N), "order", seed)
        self.weight_N = weight_N.float().clone()
        for part_N in (is_real_N, ~is_real_N):
            if part_N.any():
                self.weight_N[part_N] /= self.weight_N[part_N].mean()
        if self.policy in {"weighted", "split-norm"}:
            self.weight_N[~is_real_N] *= config.weight
        self._num_real = min(max(batch - round(batch * config.synthetic_share), 1), batch - 1)
        self._first_real_step = round(num_steps * config.synthetic_share)
        self.recalibrates_on_real = has_both and self.policy != "pooled"
        """Whether batch-norm recalibration uses real images alone."""

    @property
    def num_first(self) -> int:
        """Number of first rows with batch-norm statistics of their own; 0: all rows share them."""
        return self._num_real if self.policy == "split-norm" else 0

    @property
    def part_sizes(self) -> list[int]:
        """Number of real, then of synthetic rows in each batch; a single part if these are mixed at random."""
        return [self._num_real, self._batch - self._num_real] if self.policy in {"weighted", "split-norm"} else [self._batch]

    def rows(self, step: int) -> Tensor:
        """Rows of the batch of a step, int64 (B,)."""
        batch = self._batch
        if self.policy == "pooled":
            return self._all.take(step * batch, batch)
        if self.policy == "synthetic-then-real":
            if step < self._first_real_step:
                return self._synthetic.take(step * batch, batch)
            return self._real.take((step - self._first_real_step) * batch, batch)
        num_synthetic = batch - self._num_real
        return torch.cat(
            [self._real.take(step * self._num_real, self._num_real), self._synthetic.take(step * num_synthetic, num_synthetic)]
        )

    def recalibration_rows(self, step: int) -> Tensor:
        """Rows of a batch for batch-norm recalibration, int64 (B,)."""
        return (self._real if self.recalibrates_on_real else self._all).take(step * self._batch, self._batch)


class _Endless:
    """Endless rows of a part, in random order: each comes once before any comes again."""

    def __init__(self, part_N: Tensor, purpose: str, seed: int) -> None:
        self._rows = part_N.nonzero()[:, 0]
        self._purpose, self._seed = purpose, seed
        self._epochs: dict[int, Tensor] = {}

    def take(self, start: int, num: int) -> Tensor:
        parts = []
        while num > 0:
            epoch, offset = divmod(start, len(self._rows))
            parts.append(self._epoch(epoch)[offset : offset + num])
            start, num = start + len(parts[-1]), num - len(parts[-1])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _epoch(self, epoch: int) -> Tensor:
        if epoch not in self._epochs:
            order = torch.randperm(len(self._rows), generator=seeded(self._purpose, self._seed, epoch))
            # A few are kept, since threads may be an epoch apart.
            kept = {known: rows for known, rows in self._epochs.items() if abs(known - epoch) < 8}
            self._epochs = kept | {epoch: self._rows[order]}
        return self._epochs[epoch]
