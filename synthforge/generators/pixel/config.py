"""The Configs of our own pixel pipeline and of its fit; no heavy import."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from synthforge.config import Config, execution, identity, location
from synthforge.generators.config import GENERATORS, GeneratorConfig
from synthforge.generators.protocol import Capabilities
from synthforge.training.config import AugmentConfig, LoopConfig


@GENERATORS.add("pixel")
class PixelConfig(GeneratorConfig):
    """Our own small diffusion pipeline for 8 to 64 px, conditioned on class labels; made by `synthforge fit`."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=True, image=True)
    checks: ClassVar[str] = "synthforge.generators.pixel.checks"
    loader: ClassVar[str] = "synthforge.generators.pixel.generator:PixelGenerator.load"

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
