"""Tiny, randomly initialised pipelines of the real diffusers classes, saved as anybody's models are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import pre_tokenizers

SIZE = 16
"""Pixels of what the latent models make (8 x 8 latents, the decoder doubles them)."""


def clip_tokenizer() -> Any:
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return transformers.CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    letters = [chr(code) for code in range(33, 127)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in letters)]
    return transformers.T5TokenizerFast(vocab=vocab, extra_ids=0, model_max_length=32)


def clip_text(projected: bool = False) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=514,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return transformers.CLIPTextModelWithProjection(config) if projected else transformers.CLIPTextModel(config)


def t5_text() -> Any:
    config = transformers.T5Config(vocab_size=98, d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, feed_forward_proj="gated-gelu")
    return transformers.T5EncoderModel(config)


def vae(channels: int = 4, **more: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=8,
        sample_size=SIZE,
        **more,
    )


def unet(cross: int | None = 32, **more: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=cross,
        attention_head_dim=8,
        norm_num_groups=8,
        **more,
    )


def safety_checker() -> Any:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    vision = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "image_size": 32,
        "patch_size": 8,
    }
    return StableDiffusionSafetyChecker(transformers.CLIPConfig(vision_config=vision, projection_dim=16))


def stable_diffusion(checker: bool = False) -> Any:
    return diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        unet=unet(),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1),
        safety_checker=safety_checker() if checker else None,
        feature_extractor=transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32) if checker else None,
        requires_safety_checker=checker,
    )


def stable_diffusion_xl() -> Any:
    return diffusers.StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip_text(),
        text_encoder_2=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            64,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=80,
            use_linear_projection=True,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
    )


def stable_diffusion_3() -> Any:
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=64,
            out_channels=4,
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.06),
        text_encoder=clip_text(projected=True),
        tokenizer=clip_tokenizer(),
        text_encoder_2=clip_text(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=t5_text(),
        tokenizer_3=t5_tokenizer(),
    )


def flux() -> Any:
    return diffusers.FluxPipeline(
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae(shift_factor=0.1),
        text_encoder=clip_text(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=t5_text(),
        tokenizer_2=t5_tokenizer(),
    )


def dit() -> Any:
    return diffusers.DiTPipeline(
        transformer=diffusers.DiTTransformer2DModel(
            sample_size=8, num_layers=2, patch_size=4, attention_head_dim=8, num_attention_heads=3, in_channels=4, out_channels=8
        ),
        vae=vae(),
        scheduler=diffusers.DDIMScheduler(),
    )


def unconditional() -> Any:
    return diffusers.DDPMPipeline(
        unet=diffusers.UNet2DModel(
            sample_size=16,
            block_out_channels=(32, 64),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=8,
        ),
        scheduler=diffusers.DDPMScheduler(),
    )


BUILDERS: dict[str, Callable[[], Any]] = {
    "sd": stable_diffusion,
    "sd-checked": lambda: stable_diffusion(checker=True),
    "sdxl": stable_diffusion_xl,
    "sd3": stable_diffusion_3,
    "flux": flux,
    "dit": dit,
    "unconditional": unconditional,
}


def save(name: str, folder: Path) -> Path:
    """Build one of `BUILDERS` with seed 0 and save it below `folder`, once."""
    place = folder / name
    if not (place / "model_index.json").exists():
        torch.manual_seed(0)
        pipeline = BUILDERS[name]()
        for component in pipeline.components.values():
            if isinstance(component, torch.nn.Module):
                component.eval()
        pipeline.save_pretrained(place)
        if name == "dit":  # diffusers reads the names of classes from the index but does not write them
            index = json.loads((place / "model_index.json").read_text())
            names = {str(number): f"thing {number}" for number in range(1000)} | {"207": "golden retriever", "281": "tabby, tabby cat"}
            (place / "model_index.json").write_text(json.dumps(index | {"id2label": names}))
    return place
