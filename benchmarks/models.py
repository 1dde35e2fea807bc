"""Stable Diffusion pipelines with random weights: rates don't depend on what weights hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from tests.tiny_models import clip_tokenizer


def save_small(place: Path) -> Path:
    """Of Stable Diffusion's make, small enough for two CPU cores: 64 px, 3.6 M parameters in the U-Net."""
    torch.manual_seed(0)
    unet = {"block_out_channels": (48, 96), "attention_head_dim": 4, "norm_num_groups": 8, "layers_per_block": 1}
    _save(
        place,
        sample_size=16,
        unet=unet,
        vae={"block_out_channels": (32, 64, 64), "norm_num_groups": 8},
        text=(64, 2, 4),
        dtype=torch.float32,
    )
    return place


def save_full(place: Path, dtype: torch.dtype = torch.float16) -> Path:
    """The architecture of Stable Diffusion 1.5: 512 px, 860 M parameters in the U-Net."""
    torch.manual_seed(0)
    unet = {"block_out_channels": (320, 640, 1280, 1280), "attention_head_dim": 8, "norm_num_groups": 32, "layers_per_block": 2}
    vae = {"block_out_channels": (128, 256, 512, 512), "norm_num_groups": 32, "layers_per_block": 2}
    _save(place, sample_size=64, unet=unet, vae=vae, text=(768, 12, 12), dtype=dtype)
    return place


def _save(place: Path, sample_size: int, unet: dict[str, Any], vae: dict[str, Any], text: tuple[int, int, int], dtype: torch.dtype) -> None:
    width, layers, heads = text
    levels, vae_levels = len(unet["block_out_channels"]), len(vae["block_out_channels"])
    text_config = transformers.CLIPTextConfig(
        vocab_size=514,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        projection_dim=width,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    pipeline = diffusers.StableDiffusionPipeline(
        vae=diffusers.AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * vae_levels,
            up_block_types=("UpDecoderBlock2D",) * vae_levels,
            latent_channels=4,
            **vae,
        ),
        text_encoder=transformers.CLIPTextModel(text_config),
        tokenizer=clip_tokenizer(),
        unet=diffusers.UNet2DConditionModel(
            sample_size=sample_size,
            cross_attention_dim=width,
            down_block_types=(*("CrossAttnDownBlock2D",) * (levels - 1), "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * (levels - 1)),
            **unet,
        ),
        scheduler=diffusers.DPMSolverMultistepScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(dtype=dtype).save_pretrained(place)
