"""The pixel pipeline as the engine sees it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from safetensors import SafetensorError

from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import PixelConfig, SamplingConfig, scheduler_names
from synthforge.generators.pixel.network import PixelDenoiser
from synthforge.generators.pixel.pipeline import FAMILIES, PixelPipeline
from synthforge.generators.protocol import Request
from synthforge.generators.weights import ModelFiles, find_model, read_index


@dataclass(frozen=True)
class _Batch:
    labels: list[int]
    seeds: list[int]
    guidance: float

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
        self._number_of = {name: number for number, name in enumerate(pipeline.denoiser.config.class_names)}

    @classmethod
    def load(cls, config: PixelConfig, sampling: SamplingConfig, device: str) -> PixelGenerator:
        """Load the model; raises ModelError or RequestError if it is not what the recipe needs."""
        files = find_model(config.model, config.revision)
        chosen = pick_device(device)
        _check_components(files)
        try:
            diffusers.utils.logging.disable_progress_bar()
            pipeline = PixelPipeline.from_pretrained(str(files.folder), use_safetensors=True, local_files_only=True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelError(
                f"generator.model: {files.name} can't be loaded as a pixel pipeline ({reason}); fit it again or name another"
            ) from error
        for module in filter(None, (pipeline.denoiser, pipeline.guide)):
            if any(parameter.is_meta for parameter in module.parameters()):
                raise ModelError(f"generator.model: {files.name} lacks some of its weights; fit or fetch it again")
        _check(pipeline, config, sampling)
        if sampling.scheduler is not None:
            pipeline.scheduler = _scheduler(pipeline, sampling)
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(chosen)
        if config.dtype != "float32":
            pipeline.to(getattr(torch, config.dtype))
        for module in filter(None, (pipeline.denoiser, pipeline.guide)):
            module.eval().requires_grad_(False)
            if chosen.type == "cuda":
                module.to(memory_format=torch.channels_last)
                if config.compile:
                    # Measuring and halving meet more shapes than dynamo's default allows for one function.
                    torch._dynamo.config.recompile_limit = 64
                    module.compile(fullgraph=True, dynamic=False)
        return cls(pipeline, files, config, sampling)

    @property
    def resolution(self) -> int:
        return int(self.pipeline.denoiser.config.resolution)

    @property
    def default_batch(self) -> int:
        # From a sweep on two cores: larger batches than these gain nothing and cost cache and memory.
        pixels = self.resolution**2
        return 256 if pixels <= 16**2 else 64 if pixels <= 32**2 else 16

    @property
    def device(self) -> torch.device:
        return self.pipeline.device  # type: ignore[no-any-return]

    def identity(self) -> dict[str, Any]:
        scheduler = self.pipeline.scheduler
        return {
            "class": "PixelPipeline",
            "model": self._files.name if self._files.name.startswith("builtin:") or self._files.revision else self._files.folder.name,
            "revision": self._files.revision,
            "sha256": self._files.sha256,
            "scheduler": type(scheduler).__name__,
            "scheduler_config": {key: value for key, value in sorted(scheduler.config.items()) if not key.startswith("_")},
            "steps": self._sampling.steps,
            "guided_by": self._config.guide,
            "dtype": self._config.dtype,
        }

    def check_labels(self, labels: Sequence[str]) -> None:
        """Raise RequestError naming every class that the model does not know."""
        unknown = [label for label in labels if self._label(label) < 0]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self._number_of, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it knows {', '.join(list(self._number_of)[:12])}; say which with label:"
            raise RequestError(f"classes: the model knows no class {', '.join(map(repr, unknown[:5]))}; {hint}")

    def _label(self, label: str) -> int:
        """The number of a class by its name or, where no class has that name, by its number; -1 if there is none."""
        number = int(label) if label.isdecimal() and int(label) < len(self._number_of) else -1
        return self._number_of.get(label, number)

    def prepare(self, requests: Sequence[Request]) -> _Batch:
        return _Batch(
            labels=[self._label(request.class_name) for request in requests],
            seeds=[request.seed for request in requests],
            guidance=requests[0].guidance,
        )

    def sample(self, batch: _Batch) -> tuple[torch.Tensor, torch.Tensor]:
        images_NCHW = self.pipeline(
            class_labels=batch.labels,
            num_inference_steps=self._sampling.steps,
            guidance_scale=batch.guidance,
            guided_by=self._config.guide,
            generator=[torch.Generator().manual_seed(seed) for seed in batch.seeds],
            output_type="pt",
            return_dict=False,
        )[0]
        broken_N = ~torch.isfinite(images_NCHW).flatten(1).all(dim=1)
        pixels_NHWC = (images_NCHW.nan_to_num(0.0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return pixels_NHWC, broken_N


def pick_device(name: str) -> torch.device:
    """The torch device that a recipe's `execution.device` means; raises RequestError if it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = torch.device(name)
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available[wanted.type] or (wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count()):
        raise RequestError(f"execution.device: {name} is not on this machine; use --set execution.device=auto")
    return wanted


def _check_components(files: ModelFiles) -> None:
    """Refuse before loading what is no pixel pipeline; an index could otherwise name any module for diffusers to import."""
    expected: dict[str, set[str | None]] = {
        "denoiser": {"PixelDenoiser"},
        "guide": {"PixelDenoiser", None},
        "scheduler": set(scheduler_names()),
    }
    index = read_index(files)
    found = {
        name: value[1] if isinstance(value, list) and len(value) == 2 else "?" for name, value in index.items() if not name.startswith("_")
    }
    wrong = [name for name in expected if found.get(name) not in expected[name]] + sorted(found.keys() - expected.keys())
    if index.get("_class_name") != "PixelPipeline" or wrong:
        what = f"its {wrong[0]} is {found.get(wrong[0])}" if wrong else f"it is a {index.get('_class_name')}"
        raise ModelError(f"generator.model: {files.name} is not a pixel pipeline, {what}; fit one with `synthforge fit`")
    libraries = {value[0] for name, value in index.items() if name in expected and value[0] is not None}
    if not libraries <= {"diffusers", PixelDenoiser.__module__}:
        raise ModelError(f"generator.model: {files.name} wants code from {min(libraries - {'diffusers'})}; only synthforge's own is loaded")


def _check(pipeline: PixelPipeline, config: PixelConfig, sampling: SamplingConfig) -> None:
    made_for = pipeline.denoiser.config.resolution
    if sampling.resolution not in {None, made_for}:
        raise RequestError(
            f"sampling.resolution: the model makes {made_for} px, not {sampling.resolution}; remove the field or fit a model of that size"
        )
    if config.guide == "less_trained" and pipeline.guide is None:
        raise ModelError(
            f"generator.guide: {config.model} was saved without a less trained copy; use unconditional, or fit it with guide_at"
        )


def _scheduler(pipeline: PixelPipeline, sampling: SamplingConfig) -> Any:
    assert sampling.scheduler is not None
    name, objective = sampling.scheduler.name, pipeline.denoiser.config.objective
    if not name.startswith(FAMILIES[objective]):
        known = ", ".join(
            sorted(known for known in dir(diffusers) if known.startswith(FAMILIES[objective]) and known.endswith("Scheduler"))
        )
        raise RequestError(
            f"sampling.scheduler.name: this model was fitted with {objective!r}, which {name} can't sample; use one of {known}"
        )
    scheduler_class = getattr(diffusers, name)
    known_arguments = set(scheduler_class.from_config(pipeline.scheduler.config).config)
    for argument in sampling.scheduler.arguments:
        if argument not in known_arguments:
            near = difflib.get_close_matches(argument, known_arguments, n=1)
            raise RequestError(
                f"sampling.scheduler.arguments.{argument}: {name} has no such argument" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    try:
        return scheduler_class.from_config(pipeline.scheduler.config, **sampling.scheduler.arguments)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise RequestError(f"sampling.scheduler.arguments: {name} refuses them ({error})") from error
