"""The small residual network that classifies images of 8 to 64 pixels.

Three kinds of normalisation:
`group` has no running statistics, so averaged weights can be used as they are.
`batch` learns better from few images; its statistics are taken afterwards (`recalibrate_batch_norm`).
`parts` has separate batch norms for the first rows of a batch and for the rest. So one domain does not distort the
other's statistics (auxiliary batch norm, known from adversarial examples: Xie et al. 2020, arXiv 1911.09665).
Shapes: N images, C classes, D features.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

Norm = Literal["group", "batch", "parts"]

_LARGEST_MAP, _SMALLEST_MAP = 16, 4
"""Sides of feature maps. The stem shrinks images to the first; blocks halve them down to the second."""


class Classifier(nn.Module):
    """A pre-activated residual network (He et al. 2016, arXiv 1603.05027), one block for each size of map."""

    def __init__(self, resolution: int, width: int, num_classes: int, norm: Norm = "group") -> None:
        super().__init__()
        stride = math.ceil(resolution / _LARGEST_MAP)
        side, widths = math.ceil(resolution / stride), [width]
        while side > _SMALLEST_MAP:
            side = math.ceil(side / 2)
            widths.append(min(2 * widths[-1], 4 * width))
        self.stem = nn.Conv2d(3, width, 2 * stride + 1, stride=stride, padding=stride)
        before = [width, *widths]
        blocks = [_Block(before[number], after, 1 if number == 0 else 2, norm) for number, after in enumerate(widths)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = _norm(norm, widths[-1])
        self.activation = _activation(norm)
        self.head = nn.Linear(widths[-1], num_classes)

    def features(self, images_NCHW: Tensor) -> Tensor:
        """Images in -1 to 1 to features (N, D)."""
        pooled_ND: Tensor = self.activation(self.norm(self.blocks(self.stem(images_NCHW)))).mean(dim=(2, 3))
        return pooled_ND

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Images in -1 to 1 to logits (N, C)."""
        logits_NC: Tensor = self.head(self.features(images_NCHW))
        return logits_NC


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Sequential(_norm(norm, before), _activation(norm), nn.Conv2d(before, after, 3, stride, 1))
        self.second = nn.Sequential(_norm(norm, after), _activation(norm), nn.Conv2d(after, after, 3, 1, 1))
        self.skip = nn.Conv2d(before, after, 1, stride) if before != after or stride != 1 else nn.Identity()

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        changed: Tensor = self.skip(hidden_NCHW) + self.second(self.first(hidden_NCHW))
        return changed


def _activation(norm: Norm) -> nn.Module:
    """SiLU, or ReLU with batch norm, where SiLU learned no better (8 draws of 5 and 20 digits a class) and was
    slower.
    """
    return nn.SiLU() if norm == "group" else nn.ReLU(inplace=True)


def _norm(norm: Norm, width: int) -> nn.Module:
    if norm == "group":
        return nn.GroupNorm(math.gcd(8, width), width)
    return nn.BatchNorm2d(width) if norm == "batch" else NormByParts(width)


class NormByParts(nn.Module):
    """Separate batch norms for the first rows of a batch and for the rest. In evaluation: that of the first rows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.rest = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.num_first = 0
        """Rows of the first part; 0: all rows."""

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        if not self.training or not self.num_first:
            normed_NCHW: Tensor = self.first(hidden_NCHW)
            return normed_NCHW
        return torch.cat([self.first(hidden_NCHW[: self.num_first]), self.rest(hidden_NCHW[self.num_first :])])


def resolution_for(side: int, most: int = 64) -> int:
    """Height and width at which small networks see images whose shorter side has `side` pixels.

    It is rounded down to a multiple of 4, at least 8 and at most `most`.
    """
    return max(8, min(most, side) // 4 * 4)


def set_parts(network: nn.Module, num_first: int) -> None:
    """Set how many rows of each training batch are the first part."""
    for module in network.modules():
        if isinstance(module, NormByParts):
            module.num_first = num_first


def recalibrate_batch_norm(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Recompute the statistics of all batch norms on training images, for averaged weights.

    Source: Izmailov et al. 2018, arXiv 1803.05407.
    """
    set_parts(network, 0)
    update_bn(batches, network)
    network.eval()
