"""Tiny pipelines of real diffusers classes, loaded as generators, and the plain calls that they must equal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from PIL import Image

from synthforge.data.reading import Example
from synthforge.generators.config import GENERATORS, SamplingConfig
from synthforge.generators.pipelines.generator import PipelineGenerator
from synthforge.generators.protocol import ImageRequest
from tests import tiny_models

PROMPTS = ["a cat", "a dog and a house", "a cat"]


LONGER = {"sd3": {"max_sequence_length": 32}, "flux": {"max_sequence_length": 32}}


def kind_of(name: str) -> str:
    return name if name in {"dit", "unconditional"} else "text-to-image"


def config_for(name: str, models: Path, **changes: Any) -> Any:
    kind = kind_of(name)
    fields = {"kind": kind, "model": str(tiny_models.save(name, models)), "arguments": LONGER.get(name, {})}
    return GENERATORS[kind](**(fields | changes))


def sampling_for(name: str, **changes: Any) -> SamplingConfig:
    fields: dict[str, Any] = {"steps": 4, "guidance": [1.0 if name == "unconditional" else 3.0]}
    if kind_of(name) == "text-to-image":
        fields["resolution"] = tiny_models.SIZE
    return SamplingConfig(**(fields | changes))


def loaded(config: Any, sampling: SamplingConfig) -> PipelineGenerator:
    files = config.files()
    config.check(files, sampling, ["207"])
    return config.build(files, sampling, "cpu")


def photo(seed: int = 0, size: tuple[int, int] = (24, 20)) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def requests_for(sampling: SamplingConfig, negative: str | None = None, prompts: Sequence[str] = PROMPTS) -> list[ImageRequest]:
    guided = sampling.real_guidance
    return [
        ImageRequest(
            seed=100 + number,
            class_name="207",
            prompt=prompt,
            negative=negative,
            guidance=sampling.guidance[0],
            strength=guided.strength[0] if guided else None,
            source=Example("photo", "photo.png", "207", photo(number)) if guided else None,
        )
        for number, prompt in enumerate(prompts)
    ]


def plain(name: str, models: Path, sampling: SamplingConfig, requests: list[ImageRequest], **more: Any) -> np.ndarray:
    """What anybody would write with diffusers alone."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(models / name), use_safetensors=True)
    if sampling.scheduler is not None:
        scheduler = getattr(diffusers, sampling.scheduler.name)
        pipeline.scheduler = scheduler.from_config(pipeline.scheduler.config, **sampling.scheduler.arguments)
    arguments: dict[str, Any] = {"guidance_scale": sampling.guidance[0], **LONGER.get(name, {}), **more}
    if name == "dit":
        arguments["class_labels"] = [int(request.class_name) for request in requests]
    elif name == "unconditional":
        arguments = {"batch_size": len(requests)}
    else:
        arguments["prompt"] = [request.prompt for request in requests]
        if requests[0].negative is not None:
            arguments["negative_prompt"] = [request.negative for request in requests]
        if sampling.real_guidance is None or name in {"sd3", "flux"}:
            arguments |= {"height": tiny_models.SIZE, "width": tiny_models.SIZE}
        if sampling.real_guidance is not None:
            pipeline = diffusers.AutoPipelineForImage2Image.from_pipe(pipeline)
            whole = [Image.open(io.BytesIO(request.source.data)) for request in requests if request.source is not None]
            squares = [image.crop((2, 0, 22, 20)).resize((tiny_models.SIZE,) * 2, Image.Resampling.BICUBIC) for image in whole]
            arguments |= {"image": squares, "strength": requests[0].strength}
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = pipeline(**arguments, num_inference_steps=sampling.steps, generator=generators).images
    return np.stack([np.asarray(image).reshape(image.height, image.width, -1) for image in images])


def assert_equal(made: torch.Tensor, wanted: np.ndarray) -> None:
    difference = np.abs(made.numpy().astype(int) - wanted.astype(int))
    assert made.shape == wanted.shape
    assert np.mean(difference <= 2) >= 0.999, difference.max()
    assert wanted.std() > 5  # a flat image would equal anything


def save_lora(folder: Path, models: Path, name: str = "sd", seed: int = 1, rank: int = 2) -> Path:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(tiny_models.save(name, models)))
    torch.manual_seed(seed)
    network = getattr(pipeline, "unet", None) or pipeline.transformer
    network.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    state = {key: value * 3 for key, value in get_peft_model_state_dict(network).items()}
    argument = "unet_lora_layers" if hasattr(pipeline, "unet") else "transformer_lora_layers"
    type(pipeline).save_lora_weights(str(folder), **{argument: state})
    return folder
