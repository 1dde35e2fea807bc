"""A diffusers pipeline as a generator: requests -> one call of the pipeline -> uint8 images.

The call is plain diffusers with one seeded CPU generator per image. So an image equals that of diffusers alone with
the same arguments. Around the call, prompts are encoded once, decoding is done in parts, and verdicts become codes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from synthforge.data.images import resize
from synthforge.data.layout import digest_of
from synthforge.data.model_files import GeneratorFiles, ModelFiles
from synthforge.devices import alone_on_this_machine, is_out_of_memory, pick_device, pick_dtype
from synthforge.errors import RequestError
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pipelines.acceleration import Decoder, compile_denoisers, compile_nothing, use_fast_formats
from synthforge.generators.pipelines.checks import image_size, label_numbers
from synthforge.generators.pipelines.config import DitConfig, PipelineConfig, TextToImageConfig
from synthforge.generators.pipelines.embeddings import PromptEncodings, text_encoders, unload_text_encoders
from synthforge.generators.pipelines.loading import image_to_image, load
from synthforge.generators.protocol import ImageRequest
from synthforge.generators.schedulers import describe

Texts = Sequence[tuple[str, str | None]]
"""Prompts, each with its negative prompt."""

_LEARNED_AT_ONCE = 32
_TRIAL_STEPS = 4
_CALL_ERRORS = (RuntimeError, ValueError, TypeError, AttributeError, IndexError, KeyError, NotImplementedError)


@dataclass(frozen=True)
class _PipelineBatch:
    arguments: dict[str, Any]
    """Arguments of the pipeline's call."""
    seeds: list[int]

    @property
    def num_images(self) -> int:
        return len(self.seeds)


class PipelineGenerator:
    """A loaded diffusers pipeline with the recipe's sampling settings. Implements `generators.protocol.Generator`."""

    def __init__(self, pipeline: Any, config: PipelineConfig, files: GeneratorFiles, sampling: SamplingConfig, dtype: torch.dtype) -> None:
        self._base = pipeline
        self.pipeline = image_to_image(pipeline) if sampling.real_guidance is not None else pipeline
        """The pipeline that is called: the loaded one, or its image-to-image form."""
        self._config = config
        self._files = files
        self._sampling = sampling
        self._dtype = dtype
        self.device = torch.device(pipeline.device)
        self.resolution = image_size(files.model, sampling)[0]
        side = self.resolution
        self.default_batch = 32 if side <= 32 else 16 if side <= 64 else 8 if side <= 128 else 4 if side <= 256 else 1
        self._parameters = inspect.signature(type(self.pipeline).__call__).parameters
        if _draws_noise(pipeline.scheduler) and isinstance(config, DitConfig):
            raise RequestError(
                f"sampling.scheduler: {type(pipeline).__name__} hands no random generator to {type(pipeline.scheduler).__name__}, "
                "so its images could not be made again; use one that draws no noise, such as DDIMScheduler or DPMSolverMultistepScheduler"
            )
        self.encodings = PromptEncodings(self.pipeline) if config.capabilities.text else None
        self.decoder = Decoder(pipeline, config.decode_batch)
        self._acceleration: dict[str, Any] = {"attention": "sdpa", "dtype": str(dtype).removeprefix("torch.")}
        self._is_checked = False

    @classmethod
    def load(cls, config: PipelineConfig, files: GeneratorFiles, sampling: SamplingConfig, device: str) -> PipelineGenerator:
        """Load a model that `PipelineConfig.check` has passed; raises ModelError or RequestError."""
        chosen = pick_device(device)
        dtype = pick_dtype(config.dtype, chosen)
        pipeline = load(config, files, sampling, chosen, dtype)
        if chosen.type == "cuda":
            use_fast_formats(pipeline)
        generator = cls(pipeline, config, files, sampling, dtype)
        generator._acceleration["channels_last"] = chosen.type == "cuda"
        return generator

    def identity(self) -> dict[str, Any]:
        model, config = self._files.model, self._config
        record: dict[str, Any] = {
            "class": type(self.pipeline).__name__,
            "model": model.public_name,
            "revision": model.revision,
            "variant": model.variant,
            "sha256": model.sha256,
            **describe(self.pipeline.scheduler),
            "steps": self._sampling.steps,
            "resolution": self.resolution,
            "dtype": str(self._dtype).removeprefix("torch."),
            "arguments": dict(config.arguments) | self._size_arguments,
            "guided": "guidance_scale" in self._parameters,
            "step_cache": config.step_cache.model_dump() if config.step_cache is not None else None,
            "quantization": config.quantization.model_dump() if config.quantization is not None else None,
        }
        others = self._files.others
        if isinstance(config, (TextToImageConfig, DitConfig)):
            record["vae"] = _record_of(others["generator.vae"]) if config.vae is not None else None
        if isinstance(config, TextToImageConfig):
            record["loras"] = [
                {**_record_of(others[f"generator.loras.{number}.model"]), "scale": item.scale} for number, item in enumerate(config.loras)
            ]
            record["textual_inversions"] = [
                {**_record_of(others[f"generator.textual_inversions.{number}.model"]), "token": item.token}
                for number, item in enumerate(config.textual_inversions)
            ]
            checker = "safety_checker" in self._base.config
            record["safety_checker"] = getattr(self._base, "safety_checker", None) is not None if checker else None
        return record

    def acceleration(self) -> dict[str, Any]:
        log: dict[str, Any] = {"decode_batch": self.decoder.batch if self.decoder.is_there else None}
        if self.encodings is not None:
            log |= {
                "prompts_encoded": self.encodings.num_encoded,
                "text_encoders": "kept" if text_encoders(self.pipeline) else "unloaded",
            }
        return self._acceleration | log

    def learn_texts(self, texts: Texts) -> None:
        """Encode every text once, then unload the text encoders if all encodings are cached."""
        if self.encodings is None:
            return
        self._check_negative({negative for _, negative in texts})
        if not self.encodings.can_learn or not texts:
            return
        try:
            self._learn([text for text in texts if text[1] is None])
            self._learn([text for text in texts if text[1] is not None])
        except _CALL_ERRORS as error:
            raise self._in_words(error) from error
        if self.encodings.is_whole:
            unload_text_encoders([self._base, self.pipeline])

    def _learn(self, texts: Texts) -> None:
        """Encode texts that all have a negative prompt, or all have none."""
        assert self.encodings is not None
        strength = self._sampling.real_guidance.strength[0] if self._sampling.real_guidance is not None else None
        start = Image.new("RGB", (self.resolution, self.resolution)) if strength is not None else None
        for guidance in self._sampling.guidance:
            for first in range(0, len(texts), _LEARNED_AT_ONCE):
                if not self.encodings.is_whole:
                    return  # they don't fit memory or one batch, so each is encoded when it is needed
                some = texts[first : first + _LEARNED_AT_ONCE]
                arguments = self._arguments_of(some, guidance, strength, [start] * len(some))
                with self.encodings.leaving_after_encoding():
                    self._call(arguments, seeds=[0] * len(some))

    def _in_words(self, error: BaseException) -> RequestError:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        if is_out_of_memory(error):
            return RequestError(f"generator.model: out of memory on {self.device} ({reason}); use a smaller model or another device")
        name = type(self.pipeline).__name__
        return RequestError(
            f"generator: {name} does not take what the recipe asks of it ({reason}); see generator.arguments and sampling.scheduler"
        )

    def compile(self, batch: _PipelineBatch) -> None:
        self._try_out(batch)
        is_wanted = self._config.compile if self._config.compile is not None else self.device.type == "cuda"
        if self.decoder.is_there and self.device.type == "cuda" and self._config.decode_batch is None:
            self._acceleration["decode_seconds"] = self.decoder.tune(lambda: self._warm_up(batch))
        if not is_wanted:
            return
        has_hooks = self._config.step_cache is not None or self._config.quantization is not None
        with alone_on_this_machine(f"{type(self.pipeline).__name__}-{digest_of(self.identity())[:16]}-{batch.num_images}"):
            try:
                self._acceleration["compiled"] = compile_denoisers(self.pipeline, has_hooks)
                if self.decoder.is_there:
                    self.decoder.compile()
                    self._acceleration["compiled"]["decode"] = "whole"
                self._warm_up(batch)
            except Exception as error:
                if is_out_of_memory(error):
                    raise self._in_words(error) from error
                # Slower, not wrong: a missing C compiler or a model that can't be compiled should not stop the work.
                self._acceleration["compiled"] = f"failed: {' '.join(str(error).split())[:300]}"
                compile_nothing(self.pipeline)
                self.decoder.compile_not()

    def _try_out(self, batch: _PipelineBatch) -> None:
        """Make one image in a few steps, so that a request the pipeline can't fulfil fails before work begins."""
        single: dict[str, Any] = {name: value[:1] if isinstance(value, list) else value for name, value in batch.arguments.items()}
        if "batch_size" in single:
            single["batch_size"] = 1
        steps = min(self._sampling.steps, math.ceil(_TRIAL_STEPS / single.get("strength", 1.0)))
        try:
            self._checked(single, batch.seeds[:1], steps)
        except _CALL_ERRORS as error:
            raise self._in_words(error) from error
        self.decoder.taken_finite()

    def _warm_up(self, batch: _PipelineBatch) -> None:
        """Make a batch in as few steps as possible; shapes are those of a complete one."""
        strength = batch.arguments.get("strength")
        self._call(batch.arguments, batch.seeds, steps=2 if strength is None else self._sampling.steps)
        self.decoder.taken_finite()

    def prepare(self, requests: Sequence[ImageRequest]) -> _PipelineBatch:
        first = requests[0]
        if isinstance(self._config, TextToImageConfig):
            self._check_negative({request.negative for request in requests})
            images = [
                Image.fromarray(resize(request.source.pixels(3), self.resolution)) if request.source is not None else None
                for request in requests
            ]
            texts = [(request.prompt, request.negative) for request in requests]
            arguments = self._arguments_of(texts, first.guidance, first.strength, images)
        elif isinstance(self._config, DitConfig):
            labels = label_numbers(self._files.model, [request.class_name for request in requests])
            arguments = {"class_labels": labels, "guidance_scale": first.guidance}
        else:
            arguments = {"batch_size": len(requests)}
        return _PipelineBatch(arguments, [request.seed for request in requests])

    def _check_negative(self, negatives: set[str | None]) -> None:
        if negatives != {None} and "negative_prompt" not in self._parameters:
            raise RequestError(f"prompts.negative: {type(self.pipeline).__name__} takes no negative prompt; remove it")

    def _arguments_of(self, texts: Texts, guidance: float, strength: float | None, images: Sequence[Any]) -> dict[str, Any]:
        negatives = [negative for _, negative in texts]
        arguments: dict[str, Any] = {"prompt": [prompt for prompt, _ in texts]}
        if "guidance_scale" in self._parameters:
            arguments["guidance_scale"] = guidance
        if negatives[0] is not None:
            assert None not in negatives, "a batch has one level"
            arguments["negative_prompt"] = negatives
        if strength is not None:
            arguments |= {"image": images, "strength": strength}
        return arguments | self._size_arguments

    @property
    def _size_arguments(self) -> dict[str, int]:
        takes_size = self._config.capabilities.text and "height" in self._parameters
        return {"height": self.resolution, "width": self.resolution} if takes_size else {}

    def _call(self, arguments: dict[str, Any], seeds: Sequence[int], steps: int | None = None) -> Any:
        return self.pipeline(
            **arguments,
            **self._config.arguments,
            num_inference_steps=steps or self._sampling.steps,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            output_type="pt",
        )

    def sample(self, batch: _PipelineBatch) -> tuple[torch.Tensor, torch.Tensor]:
        call = self._call if self._is_checked else self._checked
        output = call(batch.arguments, batch.seeds)
        images_NCHW = _as_tensor(output.images, self.device)
        broken_N = ~torch.isfinite(images_NCHW).flatten(1).all(dim=1)
        finite_N = self.decoder.taken_finite()
        if finite_N is not None and len(finite_N) == len(broken_N):
            broken_N |= ~finite_N
        codes_N = broken_N.to(torch.uint8)
        flagged = getattr(output, "nsfw_content_detected", None)
        if flagged is not None and any(flagged):
            codes_N = codes_N.masked_fill(torch.tensor([bool(flag) for flag in flagged], device=codes_N.device), 2)
        pixels = (images_NCHW.float().nan_to_num(0.0).clamp(0, 1) * 255).round().to(torch.uint8)
        return pixels.permute(0, 2, 3, 1).contiguous(), codes_N

    def _checked(self, arguments: dict[str, Any], seeds: Sequence[int], steps: int | None = None) -> Any:
        """Run the first batch, and refuse noise that no seed decides: such images could not be made again."""
        before = self._global_noise()
        output = self._call(arguments, seeds, steps)
        if any(not torch.equal(old, new) for old, new in zip(before, self._global_noise(), strict=True)):
            raise RequestError(
                f"sampling.scheduler: {type(self.pipeline.scheduler).__name__} in {type(self.pipeline).__name__} draws noise that no seed "
                "decides, so its images could not be made again; use another scheduler, such as DPMSolverMultistepScheduler"
            )
        height, width = _as_tensor(output.images, self.device).shape[2:]
        if (height, width) != (self.resolution, self.resolution):
            raise RequestError(
                f"sampling.resolution: {type(self.pipeline).__name__} makes {height} x {width} instead of {self.resolution}; "
                f"use sampling.resolution={height}"
            )
        self._is_checked = True
        return output

    def _global_noise(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else [])]


def _draws_noise(scheduler: Any) -> bool:
    name = type(scheduler).__name__
    return any(word in name for word in ("DDPM", "Ancestral", "SDE", "LCM", "TCD", "Consistency")) or "sde" in str(
        scheduler.config.get("algorithm_type", "")
    )


def _as_tensor(images: Any, device: torch.device) -> torch.Tensor:
    """Images as float (N, C, H, W) on a device. Older pipelines always return arrays (N, H, W, C)."""
    if isinstance(images, torch.Tensor):
        return images
    return torch.from_numpy(np.asarray(images)).permute(0, 3, 1, 2).to(device)


def _record_of(files: ModelFiles) -> dict[str, Any]:
    return {"model": files.public_name, "file": files.folder.name, "revision": files.revision, "sha256": files.sha256}
