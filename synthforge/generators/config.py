"""The Config of each kind of generator and of sampling, with no heavy import: `recipe check` loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from synthforge.config import Config, execution, identity, location
from synthforge.generators.pipelines.config import DitConfig, TextToImageConfig, UnconditionalConfig
from synthforge.generators.protocol import Capabilities
from synthforge.generators.schedulers import SchedulerConfig
from synthforge.training.config import AugmentConfig, LoopConfig

if TYPE_CHECKING:
    from synthforge.data.model_files import GeneratorFiles
    from synthforge.generators.protocol import Generator


class RealGuidanceConfig(Config):
    """Start from real images, noised to a given strength, instead of from noise (He et al. 2022, arXiv 2210.07574)."""

    reference: str = location()
    """Real images by class: dataset folder, WebDataset tars or folder of images by class. Only its fit part is used."""
    strength: list[float] = identity(lambda: [0.6], min_length=1, max_length=64)
    """Levels of noise; each sample draws one. 1 keeps nothing of the real image, 0 all."""

    @field_validator("strength")
    @classmethod
    def _levels_in_range(cls, levels: list[float]) -> list[float]:
        if any(not 0 < level <= 1 for level in levels):
            raise ValueError("strength levels lie above 0 and at most at 1")
        if len(set(levels)) != len(levels):
            raise ValueError("a strength level stands twice; levels are drawn with equal chances")
        return levels


class SamplingConfig(Config):
    """How each image is drawn from the generator."""

    seed: int = identity(0, ge=0, lt=2**63)
    """Everything random follows from this and a sample's number."""
    steps: int = identity(18, ge=1, le=1000)
    """Denoising steps."""
    guidance: list[float] = identity(lambda: [1.0], min_length=1, max_length=64)
    """Guidance levels; each sample draws one. 1 is no guidance; higher is clearer and less varied."""
    resolution: int | None = identity(None, ge=8, le=4096)
    """Height and width in pixels; nothing means what the model was made for."""
    scheduler: SchedulerConfig | None = None
    """Nothing means the scheduler that was saved with the model."""
    attempts: int = identity(3, ge=1, le=10)
    """How often a sample that comes out blank, not finite or flagged is tried before it is left out."""
    real_guidance: RealGuidanceConfig | None = None
    """Nothing starts every image from noise."""

    @field_validator("guidance")
    @classmethod
    def _levels_in_range(cls, levels: list[float]) -> list[float]:
        if any(not 0 <= level <= 100 for level in levels):
            raise ValueError("guidance levels lie between 0 and 100")
        if len(set(levels)) != len(levels):
            raise ValueError("a guidance level stands twice; levels are drawn with equal chances")
        return levels


class PixelConfig(Config):
    """Our own small diffusion pipeline for 8 to 64 px, conditioned on class labels; made by `synthforge fit`."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=True, image=True)

    kind: Literal["pixel"] = identity()
    """The kind of generator."""
    model: str = location()
    """Folder that `synthforge fit` wrote, `builtin:digits/generator`, or a hub id."""
    revision: str | None = identity(None)
    """Hub revision; resolved to its commit once."""
    guide: Literal["unconditional", "less_trained"] = identity("unconditional")
    """What guidance moves away from: the model without its label (Ho and Salimans 2022, arXiv 2207.12598), or a less
    trained copy of itself (autoguidance, Karras et al. 2024, arXiv 2406.02507), if one was saved."""
    dtype: Literal["float32", "bfloat16", "float16"] = identity("float32")
    """Precision of the weights and of sampling."""
    compile: bool = execution(True)
    """Compile the network on CUDA; nothing is compiled on a CPU."""

    def files(self, known: Mapping[str, str] | None = None) -> GeneratorFiles:
        """The model's files on this disk (fetched from the hub if need be), checked to be safetensors; raises ModelError."""
        from synthforge.data.model_files import GeneratorFiles, find_model

        return GeneratorFiles(find_model(self.model, self.revision, known=known), {})

    def check(self, files: GeneratorFiles, sampling: SamplingConfig, labels: Sequence[str]) -> None:
        """Raise RequestError or ModelError if this model can't do what the recipe asks; reads configurations only."""
        from synthforge.generators.pixel.checks import check

        check(self, files.model, sampling, labels)

    def image_size(self, files: GeneratorFiles, sampling: SamplingConfig) -> tuple[int, int]:  # noqa: ARG002 - the model decides
        """Resolution and channels of the images, read from the model's configuration without loading weights."""
        from synthforge.generators.pixel.checks import image_size

        return image_size(files.model)

    def build(self, files: GeneratorFiles, sampling: SamplingConfig, device: str) -> Generator:
        """Load the model onto a device (`auto`, `cpu`, `cuda`, `cuda:1`, ...); raises ModelError."""
        from synthforge.generators.pixel.generator import PixelGenerator

        return PixelGenerator.load(self, files.model, sampling, device)


GeneratorConfig = Annotated[PixelConfig | TextToImageConfig | DitConfig | UnconditionalConfig, Field(discriminator="kind")]
"""The union of all kinds."""
KINDS: dict[str, type[PixelConfig | TextToImageConfig | DitConfig | UnconditionalConfig]] = {
    "pixel": PixelConfig,
    "text-to-image": TextToImageConfig,
    "dit": DitConfig,
    "unconditional": UnconditionalConfig,
}
"""The same by name."""


class PixelFitConfig(Config):
    """How a pixel pipeline is fitted; every field can be given as `--set path=value`."""

    resolution: int | None = identity(None, ge=8, le=64, multiple_of=4)
    """Height and width in pixels; nothing means the images' own size, rounded down to a multiple of 4, at most 64."""
    channels: Literal[1, 3] | None = identity(None)
    """1 grey, 3 colour; nothing means what the images are."""
    per_class: int | None = identity(None, ge=1)
    """Use only the first so many images of each class, and no validation images at all; nothing means the whole fit part."""
    objective: Literal["edm", "flow"] = identity("edm")
    """EDM preconditioning (Karras et al. 2022, arXiv 2206.00364) or flow matching (Lipman et al. 2022, arXiv 2210.02747)."""
    body: Literal["auto", "mlp", "unet"] = identity("auto")
    """The network's kind; `auto` is an MLP to 12 px and a U-Net above."""
    width: int | None = identity(None, ge=8, le=4096, multiple_of=8)
    """The network's width; nothing means what suits the resolution."""
    depth: int | None = identity(None, ge=1, le=64)
    """The network's depth; nothing means what suits the resolution."""
    dropout: float = identity(0.1, ge=0, lt=1)
    """Of the network, while fitting."""
    label_dropout: float = identity(0.1, ge=0, lt=1)
    """Share of labels hidden, so that the network can also guide without a label."""
    noise_mean: float = identity(-0.8)
    """EDM: mean of the logarithm of the noise level."""
    noise_std: float = identity(1.4, gt=0)
    """EDM: its standard deviation."""
    guide_at: float | None = identity(0.125, gt=0, lt=1)
    """Keep the averaged weights after this share of the fit as the less trained copy; null keeps none."""
    patience: int = identity(3, ge=1)
    """Stop after so many checks in a row without a better held-out loss, or with too many near-copies."""
    store: Literal["float32", "float16"] = identity("float32")
    """Precision of the saved weights."""
    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one."""
    threads: int | None = identity(None, ge=1, le=1024)
    """CPU threads; nothing means torch's own choice."""
    loop: LoopConfig = Field(default_factory=LoopConfig)
    """How long and how fast."""
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    """Geometric augmentation, non-leaky."""
