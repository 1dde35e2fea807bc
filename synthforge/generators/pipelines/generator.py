"""A diffusers pipeline as the engine sees it: requests -> one call of the pipeline -> uint8 images.

The call is the plain one that a person would write, with one seeded CPU generator per image, so an engine image equals what diffusers alone
gives with the same arguments. Only what surrounds it is ours: prompts encoded once, decoding in parts, verdicts turned into codes.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from synthforge.errors import RequestError
from synthforge.generators.config import SamplingConfig
from synthforge.generators.devices import pick_device, pick_dtype
from synthforge.generators.pipelines.acceleration import (
    Decoder,
    alone_on_this_machine,
    compile_denoisers,
    use_fast_formats,
)
from synthforge.generators.pipelines.config import DitConfig, PipelineConfig, TextToImageConfig
from synthforge.generators.pipelines.embeddings import PromptEncodings, text_encoders
from synthforge.generators.pipelines.families import image_size, label_numbers
from synthforge.generators.pipelines.loading import image_to_image, load
from synthforge.generators.protocol import Request
from synthforge.generators.schedulers import describe
from synthforge.generators.weights import GeneratorFiles
from synthforge.images import decode, resize
from synthforge.shards.layout import digest_of

_OURS = frozenset(
    [
        "prompt",
        "negative_prompt",
        "class_labels",
        "batch_size",
        "image",
        "strength",
        "height",
        "width",
        "num_inference_steps",
        "guidance_scale",
        "generator",
        "output_type",
        "return_dict",
        "num_images_per_prompt",
        "latents",
        "callback",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
        "callback_steps",
    ]
)
"""Arguments of the call that other fields of the recipe decide."""
_LEARNED_AT_ONCE = 32


@dataclass(frozen=True)
class _Batch:
    arguments: dict[str, Any]
    """Of the pipeline's call."""
    seeds: list[int]

    @property
    def num_images(self) -> int:
        return len(self.seeds)


class PipelineGenerator:
    """A loaded diffusers pipeline with the recipe's sampling settings. Implements `generators.protocol.Generator`."""

    def __init__(self, pipeline: Any, config: PipelineConfig, files: GeneratorFiles, sampling: SamplingConfig, dtype: torch.dtype) -> None:
        self._base = pipeline
        self.pipeline = image_to_image(pipeline) if sampling.real_guidance is not None else pipeline
        """What is called: the pipeline, or its image-to-image form."""
        self._config = config
        self._files = files
        self._sampling = sampling
        self._dtype = dtype
        self._device = torch.device(pipeline.device)
        self._resolution = image_size(files.model, sampling)[0]
        self._parameters = inspect.signature(type(self.pipeline).__call__).parameters
        self._check_arguments()
        self.encodings = PromptEncodings([self.pipeline]) if config.capabilities.text else None
        decoder = next((part for name in ("vae", "vqvae") if (part := getattr(pipeline, name, None)) is not None), None)
        self.decoder = Decoder(decoder) if decoder is not None else None
        if self.decoder is not None:
            self.decoder.batch = config.decode_batch
        self._acceleration: dict[str, Any] = {"attention": "sdpa", "dtype": str(dtype).removeprefix("torch.")}
        self._is_checked = False

    @classmethod
    def load(cls, config: PipelineConfig, files: GeneratorFiles, sampling: SamplingConfig, device: str) -> PipelineGenerator:
        """Load the model, which `PipelineConfig.check` has looked at; raises ModelError or RequestError."""
        chosen = pick_device(device)
        dtype = pick_dtype(config.dtype, chosen)
        pipeline = load(config, files, sampling, chosen, dtype)
        if chosen.type == "cuda":
            use_fast_formats(pipeline)
        generator = cls(pipeline, config, files, sampling, dtype)
        generator._acceleration["channels_last"] = chosen.type == "cuda"
        return generator

    def _check_arguments(self) -> None:
        name = type(self.pipeline).__name__
        for argument in self._config.arguments:
            where = f"generator.arguments.{argument}"
            if argument in _OURS:
                raise RequestError(f"{where}: other fields of the recipe decide it; remove it")
            if argument not in self._parameters:
                near = difflib.get_close_matches(argument, self._parameters.keys() - _OURS, n=1)
                raise RequestError(f"{where}: {name} takes no such argument" + (f"; did you mean {near[0]!r}?" if near else ""))
        if "guidance_scale" not in self._parameters and self._sampling.guidance != [1.0]:
            raise RequestError(f"sampling.guidance: {name} takes no guidance; leave the field out")
        if _draws_noise(self.pipeline.scheduler) and isinstance(self._config, DitConfig):
            raise RequestError(
                f"sampling.scheduler: {name} hands no random generator to {type(self.pipeline.scheduler).__name__}, "
                "so its images could not be made again; use one that draws no noise, such as DDIMScheduler or DPMSolverMultistepScheduler"
            )

    @property
    def resolution(self) -> int:
        return self._resolution

    @property
    def default_batch(self) -> int:
        pixels = self._resolution**2
        return 32 if pixels <= 32**2 else 16 if pixels <= 64**2 else 8 if pixels <= 128**2 else 4 if pixels <= 256**2 else 1

    @property
    def device(self) -> torch.device:
        return self._device

    def identity(self) -> dict[str, Any]:
        model, config = self._files.model, self._config
        found: dict[str, Any] = {
            "class": type(self.pipeline).__name__,
            "model": model.public_name,
            "revision": model.revision,
            "variant": model.variant,
            "sha256": model.sha256,
            **describe(self.pipeline.scheduler),
            "steps": self._sampling.steps,
            "resolution": self._resolution,
            "dtype": str(self._dtype).removeprefix("torch."),
            "arguments": dict(config.arguments) | self._size_arguments,
            "step_cache": config.step_cache.model_dump() if config.step_cache is not None else None,
            "quantization": config.quantization.model_dump() if config.quantization is not None else None,
        }
        others = self._files.others
        if isinstance(config, (TextToImageConfig, DitConfig)):
            vae = others[config.vae] if config.vae is not None else None
            found["vae"] = {"model": vae.public_name, "sha256": vae.sha256} if vae is not None else None
        if isinstance(config, TextToImageConfig):
            found["loras"] = [
                {"model": others[item.model].public_name, "sha256": others[item.model].sha256, "scale": item.scale} for item in config.loras
            ]
            found["textual_inversions"] = [
                {"model": others[item.model].public_name, "sha256": others[item.model].sha256, "token": item.token}
                for item in config.textual_inversions
            ]
            found["safety_checker"] = getattr(self.pipeline, "safety_checker", None) is not None
        return found

    def acceleration(self) -> dict[str, Any]:
        known: dict[str, Any] = {"decode_batch": self.decoder.batch if self.decoder is not None else None}
        if self.encodings is not None:
            known |= {
                "prompts_encoded": self.encodings.num_encoded,
                "text_encoders": "kept" if text_encoders(self.pipeline) else "unloaded",
            }
        return self._acceleration | known

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        """Encode every text once, then unload the text encoders if all encodings are kept."""
        if self.encodings is None:
            return
        self._check_negative({negative for _, negative in texts})
        if not self.encodings.can_learn or not texts:
            return
        strength = self._sampling.real_guidance.strength[0] if self._sampling.real_guidance is not None else None
        start = Image.new("RGB", (self._resolution, self._resolution)) if strength is not None else None
        for guidance in self._sampling.guidance:
            for first in range(0, len(texts), _LEARNED_AT_ONCE):
                if not self.encodings.is_whole:
                    return  # they do not fit: each is encoded when it comes
                prompts, negatives = zip(*texts[first : first + _LEARNED_AT_ONCE], strict=True)
                arguments = self._arguments_of(prompts, negatives, guidance, strength, [start] * len(prompts))
                with self.encodings.leaving_after_encoding():
                    self._call(arguments, seeds=[0] * len(prompts))
        if self.encodings.is_whole:
            gone = dict.fromkeys(text_encoders(self.pipeline))
            for pipeline in {id(pipeline): pipeline for pipeline in (self._base, self.pipeline)}.values():
                pipeline.register_modules(**gone)
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def compile(self, batch: _Batch) -> None:
        is_wanted = self._config.compile if self._config.compile is not None else self._device.type == "cuda"
        if self.decoder is not None and self._device.type == "cuda" and self._config.decode_batch is None:
            self._acceleration["decode_seconds"] = self.decoder.tune(lambda: self.sample(batch))
        if not is_wanted:
            return
        with alone_on_this_machine(f"{type(self.pipeline).__name__}-{digest_of(self.identity())[:16]}-{batch.num_images}"):
            self._acceleration["compiled"] = compile_denoisers(self.pipeline)
            if self.decoder is not None:
                self.decoder.compile()
                self._acceleration["compiled"]["decode"] = "whole"
            self.sample(batch)

    def prepare(self, requests: Sequence[Request]) -> _Batch:
        first = requests[0]
        if isinstance(self._config, TextToImageConfig):
            self._check_negative({request.negative for request in requests})
            sources = [request.source for request in requests]
            images = [
                Image.fromarray(resize(decode(source.data, 3), self._resolution)) if source is not None else None for source in sources
            ]
            arguments = self._arguments_of(
                [request.prompt for request in requests],
                [request.negative for request in requests],
                first.guidance,
                first.strength,
                images,
            )
        elif isinstance(self._config, DitConfig):
            labels = label_numbers(self._files.model, [request.class_name for request in requests])
            arguments = {"class_labels": labels, "guidance_scale": first.guidance}
        else:
            arguments = {"batch_size": len(requests)}
        return _Batch(arguments, [request.seed for request in requests])

    def _check_negative(self, negatives: set[str | None]) -> None:
        if negatives != {None} and "negative_prompt" not in self._parameters:
            raise RequestError(f"prompts.negative: {type(self.pipeline).__name__} takes no negative prompt; remove it")

    def _arguments_of(
        self,
        prompts: Sequence[str],
        negatives: Sequence[str | None],
        guidance: float,
        strength: float | None,
        images: Sequence[Image.Image | None],
    ) -> dict[str, Any]:
        found: dict[str, Any] = {"prompt": list(prompts)}
        if "guidance_scale" in self._parameters:
            found["guidance_scale"] = guidance
        if any(negative is not None for negative in negatives):
            found["negative_prompt"] = [negative or "" for negative in negatives]
        if strength is not None:
            found |= {"image": list(images), "strength": strength}
        return found | self._size_arguments

    @property
    def _size_arguments(self) -> dict[str, int]:
        takes_size = self._config.capabilities.text and "height" in self._parameters
        return {"height": self._resolution, "width": self._resolution} if takes_size else {}

    def _call(self, arguments: dict[str, Any], seeds: Sequence[int]) -> Any:
        return self.pipeline(
            **arguments,
            **self._config.arguments,
            num_inference_steps=self._sampling.steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        )

    def sample(self, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._is_checked:
            output = self._checked(lambda: self._call(batch.arguments, batch.seeds))
        else:
            output = self._call(batch.arguments, batch.seeds)
        images_NCHW = _as_tensor(output.images)
        broken_N = ~torch.isfinite(images_NCHW).flatten(1).all(dim=1)
        finite_N = self.decoder.taken_finite() if self.decoder is not None else None
        if finite_N is not None and len(finite_N) == len(broken_N):
            broken_N |= ~finite_N
        codes_N = broken_N.to(torch.uint8)
        flagged = getattr(output, "nsfw_content_detected", None)
        if flagged is not None and any(flagged):
            codes_N = codes_N.masked_fill(torch.tensor([bool(flag) for flag in flagged], device=codes_N.device), 2)
        pixels = (images_NCHW.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous(), codes_N

    def _checked(self, call: Any) -> Any:
        """The first batch: whatever draws noise that the images' own generators do not decide would make images nobody can remake."""
        before = self._global_noise()
        output = call()
        if any(not torch.equal(one, other) for one, other in zip(before, self._global_noise(), strict=True)):
            raise RequestError(
                f"sampling.scheduler: {type(self.pipeline.scheduler).__name__} in {type(self.pipeline).__name__} draws noise that no seed "
                "decides, so its images could not be made again; use another scheduler, such as DPMSolverMultistepScheduler"
            )
        self._is_checked = True
        return output

    def _global_noise(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self._device)] if self._device.type == "cuda" else [])]


def _draws_noise(scheduler: Any) -> bool:
    name = type(scheduler).__name__
    return any(word in name for word in ("DDPM", "Ancestral", "SDE", "LCM", "TCD", "Consistency")) or "sde" in str(
        scheduler.config.get("algorithm_type", "")
    )


def _as_tensor(images: Any) -> torch.Tensor:
    """Images as float (N, C, H, W): older pipelines give arrays (N, H, W, C) whatever they are asked for."""
    if isinstance(images, torch.Tensor):
        return images
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2)
