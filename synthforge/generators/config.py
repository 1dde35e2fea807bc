"""Settings that all kinds of generator share, and those of sampling; imports nothing heavy.

To add a kind, write one class, a `GeneratorConfig` added to `GENERATORS`, and the `Generator` that it builds.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, ClassVar

from pydantic import field_validator

from synthforge.config import Config, identity, location
from synthforge.data.model_files import GeneratorFiles, find_model
from synthforge.generators.protocol import Capabilities, Generator, TextLimit, Unheard
from synthforge.generators.schedulers import SchedulerConfig
from synthforge.registry import Registry, kind_in


def _distinct(levels: list[float], name: str) -> list[float]:
    if len(set(levels)) != len(levels):
        raise ValueError(f"a {name} level is given twice; levels are drawn with equal chances")
    return levels


class RealGuidanceConfig(Config):
    """Image-to-image: start from real images with added noise instead of from noise (He et al. 2022, arXiv
    2210.07574).
    """

    reference: str = location()
    """Real images by class: dataset folder, WebDataset tars, or a folder of images per class. Only the fit part is
    used."""
    strength: list[float] = identity(lambda: [0.6], min_length=1, max_length=64)
    """Noise levels, one drawn per sample. 1: nothing of the real image remains; near 0: nearly all."""

    @field_validator("strength")
    @classmethod
    def _levels_in_range(cls, levels: list[float]) -> list[float]:
        if any(not 0 < level <= 1 for level in levels):
            raise ValueError("strength levels must be above 0 and at most 1")
        return _distinct(levels, "strength")


class SamplingConfig(Config):
    """How images are drawn from the generator."""

    seed: int = identity(0, ge=0, lt=2**63)
    """Seed of the dataset. All random numbers follow from it and the sample's number."""
    steps: int = identity(18, ge=1, le=1000)
    """Denoising steps."""
    guidance: list[float] = identity(lambda: [1.0], min_length=1, max_length=64)
    """Guidance levels, one drawn per sample. 1: no guidance; higher: clearer and less varied."""
    resolution: int | None = identity(None, ge=8, le=4096)
    """Height and width in pixels. None: the model's own."""
    scheduler: SchedulerConfig | None = None
    """Another scheduler. None: the one saved with the model."""
    attempts: int = identity(3, ge=1, le=10)
    """Attempts at a sample that comes out blank, not finite or flagged; then it is left out."""
    real_guidance: RealGuidanceConfig | None = None
    """Start from real images (image-to-image). None: start from noise."""

    @field_validator("guidance")
    @classmethod
    def _levels_in_range(cls, levels: list[float]) -> list[float]:
        if any(not 0 <= level <= 100 for level in levels):
            raise ValueError("guidance levels must be between 0 and 100")
        return _distinct(levels, "guidance")


class GeneratorConfig(Config):
    """One kind of generator: its settings, its abilities, and how it is checked and loaded."""

    capabilities: ClassVar[Capabilities]
    checks: ClassVar[str]
    """Module with `check(config, files, sampling, labels)` and `image_size(files.model, sampling)`."""
    loader: ClassVar[str]
    """Function that loads it, as `module:name`: (Config, files, sampling, device) -> `Generator`."""

    kind: str = identity()
    """The kind of generator."""
    model: str = location()
    """Folder or hub id."""
    revision: str | None = identity(None)
    """Hub revision, resolved to its commit once. None: the default branch."""

    def files(self, known: Mapping[str, str] | None = None) -> GeneratorFiles:
        """The model's local files, fetched from the hub if necessary, checked to be safetensors; raises ModelError."""
        return GeneratorFiles(find_model(self.model, self.revision, known=known), {})

    def check(self, files: GeneratorFiles, sampling: SamplingConfig, labels: Sequence[str]) -> None:
        """Raise RequestError or ModelError if the model doesn't fit the recipe. Reads configuration files only."""
        importlib.import_module(self.checks).check(self, files, sampling, labels)

    def image_size(self, files: GeneratorFiles, sampling: SamplingConfig) -> tuple[int, int]:
        """Resolution and channels of the images, read from the model's configuration without loading weights."""
        size: tuple[int, int] = importlib.import_module(self.checks).image_size(files.model, sampling)
        return size

    def text_limit(self, files: GeneratorFiles, sampling: SamplingConfig) -> TextLimit | None:  # noqa: ARG002 - of kinds that take text
        """How much of a prompt is used, from the tokenizers' files alone. None: not known, or it takes no text."""
        return None

    def with_room_for(self, texts: Iterable[str], files: GeneratorFiles, sampling: SamplingConfig) -> GeneratorConfig:  # noqa: ARG002
        """The same generator, set to use more of a prompt if one of the texts needs it and the model can."""
        return self

    def unheard_negative(self, files: GeneratorFiles, sampling: SamplingConfig) -> Unheard | None:  # noqa: ARG002
        """The guidance levels at which a negative prompt has no effect. None: it always has, or this is not known."""
        return None

    def build(self, files: GeneratorFiles, sampling: SamplingConfig, device: str) -> Generator:
        """Load the model onto a device (`auto`, `cpu`, `cuda`, `cuda:1`, ...); raises ModelError."""
        generator: Generator = pkgutil.resolve_name(self.loader)(self, files, sampling, device)
        return generator


GENERATORS: Registry[type[GeneratorConfig]] = Registry(
    "kind of generator", "synthforge.generators.pixel.config", "synthforge.generators.pipelines.config"
)
"""All kinds of generator."""
AnyGenerator = Annotated[GeneratorConfig, kind_in(GENERATORS)]
"""Type of a recipe's field for any generator."""
