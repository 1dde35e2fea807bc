"""The Configs of the pixel pipeline and of its fit; imports nothing heavy."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from synthforge.config import execution, identity, location
from synthforge.data.read_config import ReadingConfig
from synthforge.generators.config import GENERATORS, GeneratorConfig
from synthforge.generators.protocol import Capabilities
from synthforge.training.config import AugmentConfig, LoopConfig


@GENERATORS.add("pixel")
class PixelConfig(GeneratorConfig):
    """The pixel pipeline: small class-conditional diffusion for 8 to 64 px, made by `synthforge fit`."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=True, image=True)
    checks: ClassVar[str] = "synthforge.generators.pixel.checks"
    loader: ClassVar[str] = "synthforge.generators.pixel.generator:PixelGenerator.load"

    kind: Literal["pixel"] = identity()
    """The kind of generator."""
    model: str = location()
    """Folder that `synthforge fit` wrote, `builtin:digits/generator`, or a hub id."""
    revision: str | None = identity(None)
    """Hub revision, resolved to its commit once. None: the default branch."""
    guide: Literal["unconditional", "less_trained"] = identity("unconditional")
    """What guidance moves away from. `unconditional`: the model without its label (Ho and Salimans 2022,
    arXiv 2207.12598). `less_trained`: an earlier copy of it, if saved (autoguidance, Karras et al. 2024, arXiv
    2406.02507)."""
    dtype: Literal["float32", "bfloat16", "float16"] = identity("float32")
    """Precision of weights and sampling."""
    compile: bool = execution(True)
    """Compile the network on CUDA; never on a CPU."""


class PixelFitConfig(ReadingConfig):
    """How a pixel pipeline is fitted; every field can be given as `--set path=value`."""

    resolution: int | None = identity(None, ge=8, le=64, multiple_of=4)
    """Height and width in pixels. None: the images' own, rounded down to a multiple of 4, at most 64."""
    channels: Literal[1, 3] | None = identity(None)
    """1: grey. 3: colour. None: as the images are."""
    per_class: int | None = identity(None, ge=1)
    """Fit on the first so many images of each class, without validation images. None: the whole fit part."""
    objective: Literal["edm", "flow"] = identity("edm")
    """EDM (Karras et al. 2022, arXiv 2206.00364) or flow matching (Lipman et al. 2022, arXiv 2210.02747)."""
    body: Literal["auto", "mlp", "unet"] = identity("auto")
    """Kind of network; `auto`: MLP up to 12 px, U-Net above."""
    width: int | None = identity(None, ge=8, le=4096, multiple_of=8)
    """Width of the network. None: chosen by resolution."""
    depth: int | None = identity(None, ge=1, le=64)
    """Depth of the network. None: chosen by resolution."""
    dropout: float = identity(0.1, ge=0, lt=1)
    """Dropout in the network while fitting."""
    label_dropout: float = identity(0.1, ge=0, lt=1)
    """Share of labels hidden while fitting, for guidance without a label."""
    noise_mean: float = identity(-0.8)
    """EDM: mean of the logarithm of the noise level."""
    noise_std: float = identity(1.4, gt=0)
    """EDM: standard deviation of the logarithm of the noise level."""
    guide_at: float | None = identity(0.125, gt=0, lt=1)
    """Share of the fit after which averaged weights are saved as the less trained copy. None: not saved."""
    patience: int = identity(3, ge=1)
    """Stop after so many checks in a row without a better candidate: lower held-out loss, few near-copies."""
    store: Literal["float32", "float16"] = identity("float32")
    """Precision of the saved weights."""
    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """Device; `auto`: a GPU if there is one."""
    threads: int | None = identity(None, ge=1, le=1024)
    """CPU threads. None: torch's default."""
    loop: LoopConfig = Field(default_factory=LoopConfig)
    """Length, learning rate and precision of the fit."""
    augment: AugmentConfig = Field(default_factory=AugmentConfig)
    """Geometric augmentation that does not leak into generated images."""
