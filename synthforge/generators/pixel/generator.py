"""The pixel pipeline as a generator for the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import numpy as np
import torch

from synthforge.data.images import resize
from synthforge.data.model_files import GeneratorFiles, ModelFiles, in_one_line
from synthforge.devices import alone_on_this_machine, pick_device
from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pixel.checks import label_number
from synthforge.generators.pixel.config import PixelConfig
from synthforge.generators.pixel.pipeline import FAMILIES, PixelPipeline
from synthforge.generators.protocol import ImageRequest
from synthforge.generators.schedulers import describe, scheduler_names


@dataclass(frozen=True)
class _PixelBatch:
    labels: list[int]
    seeds: list[int]
    guidance: float
    images_NCHW: torch.Tensor | None
    """Images to start from, float in 0 to 1; None: start from noise."""
    strength: float | None

    @property
    def num_images(self) -> int:
        return len(self.labels)


class PixelGenerator:
    """A loaded PixelPipeline with the recipe's sampling settings. Implements `generators.protocol.Generator`."""

    def __init__(self, pipeline: PixelPipeline, files: ModelFiles, config: PixelConfig, sampling: SamplingConfig) -> None:
        self.pipeline = pipeline
        self._files = files
        self._config = config
        self._sampling = sampling
        self.device = torch.device(pipeline.device)
        self.resolution = int(pipeline.denoiser.config.resolution)
        # From a sweep on two cores: larger batches than these gain nothing and cost cache and memory.
        self.default_batch = 256 if self.resolution <= 16 else 64 if self.resolution <= 32 else 16
        self._class_names = list(pipeline.denoiser.config.class_names)
        self._is_compiled = False

    @classmethod
    def load(cls, config: PixelConfig, files: GeneratorFiles, sampling: SamplingConfig, device: str) -> PixelGenerator:
        """Load a model that `PixelConfig.check` has passed; raises ModelError or RequestError."""
        chosen, model = pick_device(device), files.model
        diffusers.utils.logging.disable_progress_bar()
        with in_one_line(model.name, "generator.model"):
            pipeline = PixelPipeline.from_pretrained(str(model.folder), use_safetensors=True, local_files_only=True)
        for module in filter(None, (pipeline.denoiser, pipeline.guide)):
            if any(parameter.is_meta for parameter in module.parameters()):
                raise ModelError(f"generator.model: {model.name} lacks some of its weights; fit or fetch it again")
        if sampling.scheduler is not None:
            _check_family(pipeline, sampling.scheduler.name)
            pipeline.scheduler = sampling.scheduler.build(pipeline.scheduler)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(chosen)
        if config.dtype != "float32":
            pipeline.to(getattr(torch, config.dtype))
        for module in filter(None, (pipeline.denoiser, pipeline.guide)):
            module.eval().requires_grad_(False)
            if chosen.type == "cuda":
                module.to(memory_format=torch.channels_last)
        return cls(pipeline, model, config, sampling)

    def identity(self) -> dict[str, Any]:
        return {
            "class": "PixelPipeline",
            "model": self._files.public_name,
            "revision": self._files.revision,
            "sha256": self._files.sha256,
            **describe(self.pipeline.scheduler),
            "steps": self._sampling.steps,
            "guided_by": self._config.guide,
            "dtype": self._config.dtype,
        }

    def acceleration(self) -> dict[str, Any]:
        return {"channels_last": self.device.type == "cuda", "compiled": self._is_compiled}

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        """Nothing to do: it reads no texts."""

    def compile(self, batch: _PixelBatch) -> None:
        if self.device.type != "cuda" or not self._config.compile:
            return
        for module in filter(None, (self.pipeline.denoiser, self.pipeline.guide)):
            module.compile(fullgraph=True, dynamic=False)
        self._is_compiled = True
        with alone_on_this_machine(f"PixelPipeline-{self._files.sha256[:16]}-{batch.num_images}"):
            self.sample(batch)

    def prepare(self, requests: Sequence[ImageRequest]) -> _PixelBatch:
        sources = [request.source for request in requests if request.source is not None]
        images_NCHW = None
        if sources:
            channels = self.pipeline.denoiser.config.channels
            pixels = [resize(source.pixels(channels), self.resolution).transpose(2, 0, 1) for source in sources]
            images_NCHW = torch.from_numpy(np.stack(pixels)).float() / 255
        labels = [label_number(request.class_name, self._class_names) for request in requests]
        return _PixelBatch(
            labels=[label for label in labels if label is not None],
            seeds=[request.seed for request in requests],
            guidance=requests[0].guidance,
            images_NCHW=images_NCHW,
            strength=requests[0].strength,
        )

    def sample(self, batch: _PixelBatch) -> tuple[torch.Tensor, torch.Tensor]:
        start: dict[str, Any] = {} if batch.images_NCHW is None else {"image": batch.images_NCHW, "strength": batch.strength}
        images_NCHW = self.pipeline(
            class_labels=batch.labels,
            num_inference_steps=self._sampling.steps,
            guidance_scale=batch.guidance,
            guided_by=self._config.guide,
            generator=[torch.Generator().manual_seed(seed) for seed in batch.seeds],
            output_type="pt",
            return_dict=False,
            **start,
        )[0]
        codes_N = (~torch.isfinite(images_NCHW).flatten(1).all(dim=1)).to(torch.uint8)
        pixels_NHWC = (images_NCHW.nan_to_num(0.0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return pixels_NHWC, codes_N


def _check_family(pipeline: PixelPipeline, name: str) -> None:
    objective = pipeline.denoiser.config.objective
    if not name.startswith(FAMILIES[objective]):
        known = ", ".join(known for known in scheduler_names() if known.startswith(FAMILIES[objective]))
        raise RequestError(
            f"sampling.scheduler.name: this model was fitted with {objective!r}, which {name} can't sample; use one of {known}"
        )
