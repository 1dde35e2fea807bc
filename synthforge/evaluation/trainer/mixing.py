"""How real and synthetic images share the batches of a training.

`pooled` takes them as one heap: more synthetic images crowd out the real ones. `weighted` fixes the synthetic share of every batch and lets
its loss count less. `synthetic-then-real` begins with synthetic images and ends with real ones alone, so that the last word is real.
`split-norm` is `weighted` with batch norm by parts (see training.networks).
Shapes: N images of the set, B batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from synthforge.recipe.evaluation import MixingConfig
from synthforge.training.data import seeded


class Mixing:
    """Which images each batch holds, and how much each counts: pure functions of the step.

    Args:
        is_real_N: bool.
        weight_N: importance weights, float; those of each domain are scaled to a mean of 1.
    """

    def __init__(self, config: MixingConfig, is_real_N: Tensor, weight_N: Tensor, *, batch: int, num_steps: int, seed: int) -> None:
        has_both = bool(is_real_N.any()) and not bool(is_real_N.all())
        self.policy = config.policy if has_both else "pooled"
        self._batch, self._num_steps = batch, num_steps
        self._synthetic_share = config.synthetic_share
        real, synthetic = _Endless(is_real_N, "real order", seed), _Endless(~is_real_N, "synthetic order", seed)
        self._real, self._synthetic = real, synthetic
        self._all = _Endless(torch.ones_like(is_real_N), "order", seed)
        self.weight_N = weight_N.float().clone()
        for part_N in (is_real_N, ~is_real_N):
            if part_N.any():
                self.weight_N[part_N] /= self.weight_N[part_N].mean()
        if self.policy in {"weighted", "split-norm"}:
            self.weight_N[~is_real_N] *= config.weight
        self._num_real = min(max(batch - round(batch * self._synthetic_share), 1), batch - 1)
        self._first_real_step = round(num_steps * self._synthetic_share)
        self.recalibrates_on_real = has_both and self.policy != "pooled"
        """Whether statistics for testing are those of the real images."""

    @property
    def num_first(self) -> int:
        """Rows of each batch that have batch norm of their own; 0 for no such parts."""
        return self._num_real if self.policy == "split-norm" else 0

    @property
    def part_sizes(self) -> list[int]:
        """Rows of each batch that are of one domain, in order; one part where domains are mixed at random."""
        return [self._num_real, self._batch - self._num_real] if self.policy in {"weighted", "split-norm"} else [self._batch]

    def rows(self, step: int) -> Tensor:
        """Rows of batch number `step`, int64 (B,)."""
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
        """Rows of a batch from which the statistics for testing are taken."""
        return (self._real if self.recalibrates_on_real else self._all).take(step * self._batch, self._batch)


class _Endless:
    """Every row of a part once before any comes again."""

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
        found = self._epochs.get(epoch)
        if found is None:
            order = torch.randperm(len(self._rows), generator=seeded(self._purpose, self._seed, epoch))
            found = self._rows[order]
            # Kept: a few, since streams of several threads may be an epoch apart.
            self._epochs = {known: rows for known, rows in self._epochs.items() if abs(known - epoch) < 8} | {epoch: found}
        return found
