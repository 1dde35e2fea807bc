"""The denoiser of the pixel pipeline: an MLP or a U-Net, chosen by the size of the images.

The network returns its raw output F. Preconditioning (Karras et al. 2022, arXiv 2206.00364) is done by the scheduler
in sampling, and by the objective in fitting.
Shapes: N images, C channels, H = W = resolution, E embedding width.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from torch.nn import functional


class PixelDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A class-conditional denoiser.

    Args:
        resolution: height and width in pixels, for the U-Net a multiple of twice `patch`.
        channels: 1 (grey) or 3 (RGB).
        class_names: in the order of the labels; label `len(class_names)` means "no class".
        body: `mlp` sees all pixels at once, good up to about 16 px; `unet` for larger images.
        width: width of the MLP's layers, or of the U-Net's first level.
        depth: residual blocks of the MLP, or per level of the U-Net.
        patch: the U-Net folds patch x patch pixels into channels first.
        augment_dim: length of the augmentation vector in fitting; zeros at sampling (non-leaking augmentation).
        objective: meaning of the output: `edm`, or `flow` (velocity, noise minus image).
        dropout: dropout probability in fitting.
    """

    config_name = "config.json"

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        resolution: int,
        channels: int,
        class_names: list[str],
        body: Literal["mlp", "unet"] = "mlp",
        width: int = 256,
        depth: int = 3,
        patch: int = 1,
        augment_dim: int = 0,
        objective: Literal["edm", "flow"] = "edm",  # noqa: ARG002 - kept in the configuration, read by forward
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        embedding = min(width, 256) if body == "mlp" else width * 2
        self.conditioning = _Conditioning(len(class_names), augment_dim, embedding)
        if body == "mlp":
            self.layers: nn.Module = _Mlp(channels * resolution**2, width, depth, embedding, dropout)
        else:
            self.layers = _UNet(channels, width, depth, patch, embedding=embedding, dropout=dropout)

    @property
    def null_label(self) -> int:
        """The label that means "no class"."""
        return len(self.config.class_names)

    def forward(self, sample_NCHW: Tensor, timestep_N: Tensor, class_labels_N: Tensor, augment_NA: Tensor | None = None) -> Tensor:
        """Raw output F, of the shape of `sample_NCHW`.

        Args:
            sample_NCHW: float, already scaled to unit variance by the scheduler or objective.
            timestep_N: as the scheduler gives it: log(sigma)/4 for `edm`, 0 to 1000 for `flow`.
            class_labels_N: int64, `null_label` for none.
            augment_NA: float, or None for "not augmented".
        """
        time_N = timestep_N / 1000 if self.config.objective == "flow" else timestep_N
        return self.layers(sample_NCHW, self.conditioning(time_N, class_labels_N, augment_NA))  # type: ignore[no-any-return]


class _Conditioning(nn.Module):
    """Noise level, class and augmentation, summed into one vector."""

    frequencies_F: Tensor

    def __init__(self, num_classes: int, augment_dim: int, embedding: int) -> None:
        super().__init__()
        half = embedding // 2
        self.register_buffer("frequencies_F", torch.exp(torch.linspace(0, math.log(200), half)), persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * half, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.label = nn.Embedding(num_classes + 1, embedding)
        self.augment = nn.Linear(augment_dim, embedding, bias=False) if augment_dim else None

    def forward(self, time_N: Tensor, class_labels_N: Tensor, augment_NA: Tensor | None) -> Tensor:
        angles_NF = time_N[:, None].float() * self.frequencies_F.float()
        waves_NE = torch.cat([angles_NF.cos(), angles_NF.sin()], dim=1).to(self.label.weight.dtype)
        # Not a lookup: a GPU sums its gradient in no fixed order.
        label_NK = functional.one_hot(class_labels_N, self.label.num_embeddings).to(waves_NE.dtype)
        embedding_NE: Tensor = self.time(waves_NE) + label_NK @ self.label.weight
        if self.augment is not None and augment_NA is not None:
            embedding_NE = embedding_NE + self.augment(augment_NA.to(embedding_NE.dtype))
        return functional.silu(embedding_NE)


class _Mlp(nn.Module):
    """Residual blocks over the flattened image, each scaled and shifted by the embedding (adaptive layer norm)."""

    def __init__(self, pixels: int, width: int, depth: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.first = nn.Linear(pixels, width)
        self.blocks = nn.ModuleList(_MlpBlock(width, embedding, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = _zeroed(nn.Linear(width, pixels))

    def forward(self, sample_NCHW: Tensor, embedding_NE: Tensor) -> Tensor:
        hidden_NW = self.first(sample_NCHW.flatten(1))
        for block in self.blocks:
            hidden_NW = block(hidden_NW, embedding_NE)
        return self.last(functional.silu(self.norm(hidden_NW))).view_as(sample_NCHW)  # type: ignore[no-any-return]


class _MlpBlock(nn.Module):
    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.first = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.last = _zeroed(nn.Linear(width, width))

    def forward(self, hidden_NW: Tensor, embedding_NE: Tensor) -> Tensor:
        scale_NW, shift_NW = self.modulate(embedding_NE).chunk(2, dim=1)
        inner_NW = functional.silu(self.first(torch.addcmul(shift_NW, self.norm(hidden_NW), 1 + scale_NW)))
        return hidden_NW + self.last(self.dropout(inner_NW))  # type: ignore[no-any-return]


class _UNet(nn.Module):
    """Two levels with skip connections and attention at the lower one, over an image folded by `patch`."""

    def __init__(self, channels: int, width: int, depth: int, patch: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.patch = patch
        folded, wide = channels * patch**2, 2 * width
        self.first = nn.Conv2d(folded, width, 3, padding=1)
        self.high = nn.ModuleList(_ConvBlock(width, width, embedding, dropout) for _ in range(depth))
        self.down = nn.Conv2d(width, wide, 3, stride=2, padding=1)
        self.low = nn.ModuleList(_ConvBlock(wide, wide, embedding, dropout) for _ in range(2 * depth))
        self.attention = _Attention(wide)
        self.up = nn.Conv2d(wide, width, 3, padding=1)
        self.out = nn.ModuleList(_ConvBlock(2 * width if i == 0 else width, width, embedding, dropout) for i in range(depth))
        self.norm = nn.GroupNorm(_groups(width), width)
        self.last = _zeroed(nn.Conv2d(width, folded, 3, padding=1))

    def forward(self, sample_NCHW: Tensor, embedding_NE: Tensor) -> Tensor:
        # Convolutions are fastest in channels-last memory, on CPUs (7 % of a step at 32 px) as on tensor cores.
        folded = functional.pixel_unshuffle(sample_NCHW, self.patch).contiguous(memory_format=torch.channels_last)
        hidden = self.first(folded)
        for block in self.high:
            hidden = block(hidden, embedding_NE)
        skip, hidden = hidden, self.down(hidden)
        for number, block in enumerate(self.low):
            hidden = block(hidden, embedding_NE)
            if number == len(self.low) // 2 - 1:
                hidden = self.attention(hidden)
        hidden = torch.cat([self.up(_doubled(hidden)), skip], dim=1)
        for block in self.out:
            hidden = block(hidden, embedding_NE)
        return functional.pixel_shuffle(self.last(functional.silu(self.norm(hidden))), self.patch)


class _ConvBlock(nn.Module):
    def __init__(self, width_in: int, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(_groups(width_in), width_in)
        self.first = nn.Conv2d(width_in, width, 3, padding=1)
        self.modulate = nn.Linear(embedding, 2 * width)
        self.norm = nn.GroupNorm(_groups(width), width, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.last = _zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.skip: nn.Module = nn.Identity() if width_in == width else nn.Conv2d(width_in, width, 1)

    def forward(self, hidden_NCHW: Tensor, embedding_NE: Tensor) -> Tensor:
        scale_NC11, shift_NC11 = self.modulate(embedding_NE)[:, :, None, None].chunk(2, dim=1)
        inner = self.norm(self.first(functional.silu(self.norm_in(hidden_NCHW))))
        inner = self.last(self.dropout(functional.silu(torch.addcmul(shift_NC11, inner, 1 + scale_NC11))))
        return self.skip(hidden_NCHW) + inner  # type: ignore[no-any-return]


class _Attention(nn.Module):
    """Self-attention over all places, heads of 32 channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = max(1, width // 32)
        self.norm = nn.GroupNorm(_groups(width), width)
        self.qkv = nn.Linear(width, 3 * width)
        self.last = _zeroed(nn.Linear(width, width))

    def forward(self, hidden_NCHW: Tensor) -> Tensor:
        num, channels, height, width = hidden_NCHW.shape
        tokens_NLC = self.norm(hidden_NCHW).flatten(2).transpose(1, 2)
        heads = self.qkv(tokens_NLC).view(num, height * width, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        mixed_NLC = self.last(mixed.transpose(1, 2).reshape(num, height * width, channels))
        return hidden_NCHW + mixed_NLC.transpose(1, 2).view(num, channels, height, width)  # type: ignore[no-any-return]


def _doubled(hidden_NCHW: Tensor) -> Tensor:
    """Every place four times, (N, C, 2 H, 2 W), channels last.

    Compiled, `interpolate` sums gradients in no fixed order on a GPU.
    """
    hidden_NHWC = hidden_NCHW.permute(0, 2, 3, 1)
    wide_NHWC = torch.stack([hidden_NHWC, hidden_NHWC], dim=3).flatten(2, 3)
    return torch.stack([wide_NHWC, wide_NHWC], dim=2).flatten(1, 2).permute(0, 3, 1, 2)


def body_for(resolution: int) -> dict[str, Any]:
    """Body, width, depth and patch for a resolution, chosen for small machines."""
    if resolution <= 12:
        return {"body": "mlp", "width": 192, "depth": 3, "patch": 1}
    if resolution <= 16:
        return {"body": "unet", "width": 48, "depth": 1, "patch": 1}
    # Folded images are halved once, so their side has to be even.
    return {"body": "unet", "width": 64, "depth": 2, "patch": 4 if resolution > 40 and resolution % 8 == 0 else 2}


def _groups(width: int) -> int:
    return math.gcd(8, width)


def _zeroed(layer: nn.Linear | nn.Conv2d) -> nn.Module:
    """Start a residual branch at zero, so that a deep network starts as the identity."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
