"""Faster pipelines with the same images, up to rounding: memory format, compilation, decoding in parts.

Compilation is regional: only the blocks that a network repeats are compiled. This takes seconds instead of minutes
and is nearly as fast. Shortcuts that change the images are not here; they are fields of the recipe (see loading).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

DENOISERS = ("unet", "transformer", "prior", "transformer_2", "unet_2")
DECODERS = ("vae", "vqvae", "movq")
_DECODE_ROUNDS = 3


def denoisers(pipeline: Any) -> dict[str, torch.nn.Module]:
    """The networks that run in every denoising step."""
    return {name: module for name in DENOISERS if isinstance(module := getattr(pipeline, name, None), torch.nn.Module)}


class Decoder:
    """A pipeline's VAE decoder. It decodes in parts and notes images that are not finite before they are clamped.

    Args:
        pipeline: one without a VAE has no decoder, and nothing is changed.
        batch: images decoded at once; None: all.
    """

    def __init__(self, pipeline: Any, batch: int | None) -> None:
        self._vae: Any = next((part for name in DECODERS if (part := getattr(pipeline, name, None)) is not None), None)
        self.batch = batch
        self._finite: list[torch.Tensor] = []
        self._last_latents: torch.Tensor | None = None
        self.keeps_latents = False
        self.is_there = self._vae is not None
        if self._vae is not None:
            self._decode = self._eager = self._vae.decode
            self._vae.decode = self

    def __call__(self, latents_NCHW: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.keeps_latents:
            self._last_latents = latents_NCHW.clone()
        if self.batch is None or len(latents_NCHW) <= self.batch:
            decoded = self._decode(latents_NCHW, *args, **kwargs)
            sample = decoded[0] if isinstance(decoded, tuple) else decoded.sample
        else:
            decoded, sample = self._in_parts(latents_NCHW, self.batch, *args, **kwargs)
        self._finite.append(torch.isfinite(sample).flatten(1).all(dim=1))
        return decoded

    def _in_parts(self, latents_NCHW: torch.Tensor, size: int, *args: Any, **kwargs: Any) -> tuple[Any, torch.Tensor]:
        parts = [self._decode(part, *args, **kwargs) for part in latents_NCHW.split(size)]
        if isinstance(parts[0], tuple):
            sample = torch.cat([part[0] for part in parts])
            return (sample,), sample
        sample = torch.cat([part.sample for part in parts])
        return type(parts[0])(sample=sample), sample

    def taken_finite(self) -> torch.Tensor | None:
        """Which images of the last batch were finite, bool (N,); None if nothing was decoded."""
        finite, self._finite = self._finite, []
        return finite[-1] if finite else None

    def compile(self) -> None:
        """Compile the decoding."""
        self._decode = torch.compile(self._eager, fullgraph=False, dynamic=False)

    def compile_not(self) -> None:
        """Undo `compile`."""
        if self.is_there:
            self._decode = self._eager

    def tune(self, run: Callable[[], object]) -> dict[int, float]:
        """Choose the fastest part size by timing. Returns part size to seconds for one batch.

        Args:
            run: makes one batch.
        """
        self.keeps_latents = True
        run()
        self.keeps_latents = False
        latents, self._last_latents = self._last_latents, None
        if latents is None:
            return {}
        seconds: dict[int, float] = {}
        size = len(latents)
        sizes = [size, *(part for part in (16, 8, 4, 2, 1) if part < size)]
        latents = latents.to(next(self._vae.parameters()).dtype)  # some pipelines use another precision during the call only
        with torch.no_grad():
            for self.batch in sizes:
                times = []
                for _ in range(_DECODE_ROUNDS):
                    _synchronise(latents.device)
                    started = time.perf_counter()
                    self(latents, return_dict=False)
                    _synchronise(latents.device)
                    times.append(time.perf_counter() - started)
                seconds[self.batch] = min(times[1:])
        self._finite.clear()
        # Whole batches unless parts are clearly faster.
        best = min(seconds, key=lambda part: seconds[part])
        self.batch = best if seconds[best] < 0.97 * seconds[size] else None
        return {part: round(value, 4) for part, value in seconds.items()}


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def use_fast_formats(pipeline: Any) -> None:
    """Use channels-last memory for convolutions, for CUDA."""
    for network in (*denoisers(pipeline).values(), getattr(pipeline, "vae", None)):
        for module in network.modules() if network is not None else ():
            if isinstance(module, torch.nn.Conv2d):  # 3D convolutions have no such format
                module.to(memory_format=torch.channels_last)


def compile_denoisers(pipeline: Any, has_hooks: bool) -> dict[str, str]:
    """Compile every denoiser, or only its repeated blocks if it names them. Returns name to `blocks` or `whole`.

    Args:
        has_hooks: whether diffusers' hooks (step caches, layerwise casting) break the graph on purpose.
    """
    # Measuring and halving meet more shapes than dynamo's default allows for one function.
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    done = {}
    for name, module in denoisers(pipeline).items():
        if getattr(module, "_repeated_blocks", None):
            module.compile_repeated_blocks(fullgraph=not has_hooks, dynamic=False)  # type: ignore[operator]
            done[name] = "blocks"
        else:
            module.compile(dynamic=False)
            done[name] = "whole"
    return done


def compile_nothing(pipeline: Any) -> None:
    """Undo `compile_denoisers`."""
    for network in denoisers(pipeline).values():
        for module in network.modules():
            module._compiled_call_impl = None
    torch._dynamo.reset()
