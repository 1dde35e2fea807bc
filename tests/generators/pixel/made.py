"""Tiny pixel pipelines, and the built-in one loaded as a generator."""

from __future__ import annotations

from pathlib import Path

import torch

from synthforge.data.storage import resolve
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pixel.config import PixelConfig
from synthforge.generators.pixel.generator import PixelGenerator
from synthforge.generators.protocol import ImageRequest

BUILTIN = resolve("builtin:digits/generator")


def noise(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def loaded(config: PixelConfig, sampling: SamplingConfig, device: str = "cpu", labels: tuple[str, ...] = ("1",)) -> PixelGenerator:
    """As a run does it: files, then what they say, then the weights."""
    files = config.files()
    config.check(files, sampling, labels)
    return config.build(files, sampling, device)  # type: ignore[return-value]


def requests(*seeds: int, guidance: float = 1.5) -> list[ImageRequest]:
    return [ImageRequest(seed, str(seed % 10), "", None, guidance) for seed in seeds]


def load(folder: Path, **config: object) -> None:
    loaded(PixelConfig(kind="pixel", model=str(folder), **config), SamplingConfig())  # type: ignore[arg-type]
