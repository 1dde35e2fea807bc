"""PixelPipeline: a diffusers pipeline that makes small images from class labels, or from images and class labels.

It saves and loads like any other (`save_pretrained`, `from_pretrained`, safetensors). A denoiser fitted with `edm`
takes any EDM scheduler, one fitted with `flow` any flow-matching scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import Tensor

from synthforge.generators.pixel.network import PixelDenoiser

FAMILIES = {"edm": "EDM", "flow": "FlowMatch"}
"""Objective to the beginning of the names of diffusers' schedulers that can sample it."""


class PixelPipeline(DiffusionPipeline):  # type: ignore[misc]
    """Class-conditional generation of images of 8 to 64 px.

    Args:
        denoiser: the fitted network.
        scheduler: of the family that fits the denoiser's objective, see `FAMILIES`.
        guide: a less trained copy of the denoiser, for autoguidance (Karras et al. 2024, arXiv 2406.02507); None: no
            copy.
    """

    model_cpu_offload_seq = "denoiser"
    _optional_components = ["guide"]  # noqa: RUF012 - the name and type are diffusers'

    def __init__(self, denoiser: PixelDenoiser, scheduler: Any, guide: PixelDenoiser | None = None) -> None:
        super().__init__()
        family = FAMILIES[denoiser.config.objective]
        if not type(scheduler).__name__.startswith(family):
            raise ValueError(
                f"a denoiser fitted with {denoiser.config.objective!r} needs a {family} scheduler, not {type(scheduler).__name__}"
            )
        self.register_modules(denoiser=denoiser, scheduler=scheduler, guide=guide)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: Sequence[int | str],
        num_inference_steps: int = 18,
        guidance_scale: float = 1.0,
        guided_by: Literal["unconditional", "less_trained"] = "unconditional",
        generator: torch.Generator | list[torch.Generator] | None = None,
        image: Tensor | Sequence[Image.Image] | None = None,
        strength: float = 0.6,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Make one image for each class label.

        Args:
            class_labels: numbers, or names from `denoiser.config.class_names`.
            num_inference_steps: denoising steps; with `image`, the share `strength` of them is run.
            guidance_scale: factor by which the denoised image is moved away from the guide's; 1: no guidance.
            guided_by: the guide: this model without its label (Ho and Salimans 2022, arXiv 2207.12598), or the less
                trained copy.
            generator: CPU generators, one for each image, or one for all.
            image: images to start from: float (N, C, H, W) in 0 to 1, or PIL images; None: start from noise.
            strength: with `image`: 1 keeps nothing of it, 0 keeps all.
            output_type: `pil`, `np` (N, H, W, C) or `pt` (N, C, H, W) on the device; floats in 0 to 1.
        """
        denoiser, scheduler, device = self.denoiser, self.scheduler, self._execution_device
        config, dtype = denoiser.config, denoiser.dtype
        labels_N = torch.tensor([_label(label, config.class_names) for label in class_labels], device=device)
        if guidance_scale != 1.0 and guided_by == "less_trained" and self.guide is None:
            raise ValueError("this pipeline was saved without a less trained copy to guide it")

        scheduler.set_timesteps(num_inference_steps, device=device)
        timesteps = scheduler.timesteps
        shape = (len(labels_N), config.channels, config.resolution, config.resolution)
        # Noise and the sampler's state stay in float32, whatever the network computes in.
        noise_NCHW = randn_tensor(shape, generator=generator, device=device, dtype=torch.float32)
        if image is None:
            sample_NCHW = noise_NCHW * getattr(scheduler, "init_noise_sigma", 1.0)
        else:
            start = min(len(timesteps) - 1, round(len(timesteps) * (1 - strength)))
            timesteps = timesteps[start:]
            scheduler.set_begin_index(start)
            sample_NCHW = self._noised(_to_tensor(image, config.channels).to(noise_NCHW), noise_NCHW, timesteps[:1])

        for timestep in self.progress_bar(timesteps):
            scaled_NCHW = scheduler.scale_model_input(sample_NCHW, timestep) if hasattr(scheduler, "scale_model_input") else sample_NCHW
            scaled_NCHW = scaled_NCHW.to(dtype)
            time_N = timestep.to(torch.float32).expand(len(labels_N))
            output_NCHW = self._guided(scaled_NCHW, time_N, labels_N, guidance_scale, guided_by)
            sample_NCHW = scheduler.step(output_NCHW.float(), timestep, sample_NCHW, generator=generator, return_dict=False)[0]

        # Values that are not finite stay visible: clamping would turn an overflow into white.
        images: Any = torch.where(sample_NCHW.isfinite(), (sample_NCHW / 2 + 0.5).clamp(0, 1), torch.nan)
        if output_type != "pt":
            images = images.permute(0, 2, 3, 1).cpu().numpy()
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _guided(self, scaled_NCHW: Tensor, time_N: Tensor, labels_N: Tensor, scale: float, guided_by: str) -> Tensor:
        """Guidance on the raw outputs. It equals guidance on denoised images: at equal input one is linear in the
        other.
        """
        if scale == 1.0:
            return self.denoiser(scaled_NCHW, time_N, labels_N)  # type: ignore[no-any-return]
        if guided_by == "less_trained":
            output, away = self.denoiser(scaled_NCHW, time_N, labels_N), self.guide(scaled_NCHW, time_N, labels_N)
        else:
            null_N = torch.full_like(labels_N, self.denoiser.null_label)
            both = self.denoiser(torch.cat([scaled_NCHW] * 2), torch.cat([time_N] * 2), torch.cat([labels_N, null_N]))
            output, away = both.chunk(2)
        return torch.lerp(away.float(), output.float(), scale)

    def _noised(self, image_NCHW: Tensor, noise_NCHW: Tensor, first_timestep: Tensor) -> Tensor:
        image_NCHW = image_NCHW * 2 - 1
        if image_NCHW.shape != noise_NCHW.shape:
            raise ValueError(f"images of shape {tuple(image_NCHW.shape)} where {tuple(noise_NCHW.shape)} is needed, one for each label")
        if hasattr(self.scheduler, "scale_noise"):
            return self.scheduler.scale_noise(image_NCHW, first_timestep, noise_NCHW)  # type: ignore[no-any-return]
        return self.scheduler.add_noise(image_NCHW, noise_NCHW, first_timestep.expand(len(image_NCHW)))  # type: ignore[no-any-return]


def _label(label: int | str, class_names: Sequence[str]) -> int:
    if isinstance(label, str):
        if label not in class_names:
            raise ValueError(f"no class {label!r}; there are {', '.join(class_names)}")
        return list(class_names).index(label)
    if not 0 <= label <= len(class_names):
        raise ValueError(f"label {label} is not in 0 to {len(class_names)}")
    return label


def _to_tensor(image: Tensor | Sequence[Image.Image], channels: int) -> Tensor:
    if isinstance(image, Tensor):
        return image
    arrays = [np.asarray(picture.convert("L" if channels == 1 else "RGB"), dtype=np.float32) / 255 for picture in image]
    batch = torch.from_numpy(np.stack(arrays))
    return batch[:, None] if channels == 1 else batch.permute(0, 3, 1, 2)
