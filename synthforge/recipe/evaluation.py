"""What an evaluation compares, and how its classifiers are trained; no heavy import."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, model_validator

from synthforge.config import Config, execution, identity, location
from synthforge.features.encoders.config import FixedEncoder
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.recipe.curation import Regime, RuleName
from synthforge.training.config import AugmentConfig

Policy = Literal["pooled", "weighted", "synthetic-then-real", "split-norm"]
Start = Literal["scratch", "probe", "fine-tune"]


def _as_amount(value: Any) -> Any:
    """One word about both kinds, where a union would tell of each apart."""
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**7):
        return value
    raise ValueError("write a number of images of each class from 1 to 10,000,000, or all")


Amount: TypeAlias = Annotated[int | Literal["all"], BeforeValidator(_as_amount)]
"""Real images of each class; `all` is the whole fit part."""

REAL, MORE = "real", "more"
REAL_SOURCES = (REAL, MORE, "more-curated")
"""The n real images; as many other real ones as an arm has synthetic ones; the same, chosen by the rule of curation."""
POOL_SOURCES = ("random", "curated")
"""Synthetic images at random, and chosen by curation."""
CHOSEN = ("curated", "more-curated")
"""Sources that curation chose."""


class TrainerAugmentConfig(AugmentConfig):
    """How training images are changed.

    Half of each batch is not moved: moving an image blurs it, and classifiers that saw no others did worse on Fashion-MNIST.
    """

    erase: float = identity(0.0, ge=0, le=1)
    """Share of each batch in which a rectangle is made grey."""
    mixup: float = identity(0.0, ge=0, le=10)
    """Images are blended in pairs, with shares from Beta of this strength; 0 for never."""


class TrainerConfig(Config):
    """The classifier and how it is trained; the same for every arm."""

    network: str = identity("residual", min_length=1)
    """`residual`, a small network of our own for 8 to 64 px, or any model of timm by name, folder or hub id."""
    pretrained: str | None = location(None)
    """With a timm architecture: a .safetensors file with its weights."""
    start: Start = identity("scratch")
    """`scratch`: random weights; `probe`: a linear layer on pretrained features; `fine-tune`: everything, from pretrained weights."""
    width: int = identity(24, ge=8, le=512, multiple_of=8)
    """Channels of the residual network's first layers; the last have at most four times as many."""
    resolution: int | None = identity(None, ge=8, le=1024)
    """Height and width in pixels; nothing means the images' own, at most 64, and for timm what the model was trained at."""
    steps: int = identity(1500, ge=8, le=10**8)
    """Optimiser steps, the same for every arm; more must move no arm, which is checked (`steps_check`)."""
    batch: int = identity(64, ge=2, le=65_536)
    """Images per step."""
    learning_rate: float = identity(3e-3, gt=0, le=1)
    """Peak of the one-cycle schedule."""
    warmup: float = identity(0.15, ge=0, lt=1)
    """Share of the steps over which the rate rises; then it falls to zero along a half cosine."""
    weight_decay: float = identity(0.05, ge=0, le=1)
    """Of AdamW."""
    label_smoothing: float = identity(0.1, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    ema: float = identity(0.05, gt=0, lt=1)
    """The averaged weights, which are tested, reach back over this share of the steps."""
    augment: TrainerAugmentConfig = Field(default_factory=TrainerAugmentConfig)
    """How training images are changed."""
    precision: Literal["auto", "float32", "bfloat16"] = identity("auto")
    """Of forward and backward; `auto` is bfloat16 on CUDA, float32 elsewhere."""
    threads: int = identity(1, ge=1, le=1024)
    """CPU threads of each training: figures are equal for equal threads, and small networks gain little from more."""
    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one."""
    compile: bool = execution(True)
    """Compile the network on CUDA."""
    resident_gib: float = execution(4.0, ge=0, le=10_000)
    """Training images up to so many GiB are held on the device; more are decoded as they are needed."""

    @model_validator(mode="after")
    def _goes_together(self) -> TrainerConfig:
        if self.start == "scratch" and self.pretrained is not None:
            raise ValueError("pretrained: would not be used, since start is scratch; leave it out, or start with probe or fine-tune")
        if self.network == "residual":
            if self.start != "scratch":
                raise ValueError(f"start: {self.start} needs a network with pretrained weights; name one of timm's as `network`")
            if self.resolution is not None and (self.resolution > 64 or self.resolution % 4):
                raise ValueError("resolution: the residual network takes 8 to 64 px in steps of 4; name a timm model as `network` for more")
        return self


class MixingConfig(Config):
    """How arms of real and synthetic images mix them."""

    policy: Policy = identity("weighted")
    """`weighted`: every batch has a fixed share of synthetic images, whose loss counts less. `pooled`: one heap. `synthetic-then-real`:
    synthetic images first, then real ones alone. `split-norm`: as weighted, and batch norm has statistics of its own for each of both."""
    share: float | None = identity(None, gt=0, lt=1)
    """Synthetic share of each batch, or for synthetic-then-real of the steps; nothing means 0.5 and 0.45."""
    weight: float = identity(0.4, gt=0, le=10)
    """How much a synthetic image's loss counts in `weighted` and `split-norm`, where a real one's counts 1."""

    @property
    def synthetic_share(self) -> float:
        """`share` with its default filled in."""
        return self.share if self.share is not None else 0.45 if self.policy == "synthetic-then-real" else 0.5


ALONE = MixingConfig(policy="pooled")
"""Of sets that are all real or all synthetic."""


class ArmConfig(Config):
    """One training set: sources, joined by `+` in the short form `real+curated`."""

    name: str = identity(min_length=1, max_length=60, pattern=r"^[^\s<>=@][^<>=@]*$")
    """What it is called in tables and requirements."""
    of: list[str] = identity(min_length=1, max_length=10)
    """Its sources: real, more, more-curated, random, curated; or names of synthetic sets given apart."""
    mixing: MixingConfig | None = None
    """How it mixes; nothing means the evaluation's."""
    selection: RuleName | None = identity(None)
    """The rule by which `curated` images are chosen; nothing means the recipe's, which beside real images may be another one than alone."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value, "of": [part.strip() for part in value.split("+")]} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _each_once(self) -> ArmConfig:
        if len(set(self.of)) < len(self.of) or "" in self.of:
            raise ValueError(f"{self.name}: a source is empty or stands twice")
        return self

    @property
    def regime(self) -> Regime:
        """What its synthetic images are for."""
        return "da" if REAL in self.of else "s2r"

    def key_of(self, source: str) -> str:
        """By which the images of a source are found: those that curation chose depend on the rule and on what they are for."""
        return f"{source} by {self.selection or 'the recipe'}, {self.regime}" if source in CHOSEN else source


DEFAULT_ARMS = ("real", "random", "curated", "real+random", "real+curated", "real+more", "more", "more-curated")


class TuningConfig(Config):
    """The search on validation data that tunes the real-only arm; its settings are then those of every arm.

    Every augmentation is tried with every learning rate; the best mean log-probability of the true class is taken. With the whole reference
    it is that of the validation part, with less that of folds of the n images themselves.
    """

    on: bool = identity(True)
    """Without, `trainer` is taken as it stands."""
    folds: int = identity(3, ge=2, le=20)
    """At most so many, and at most as many as there are images of a class."""
    augmentations: list[Literal["none", "shift", "affine", "strong"]] = identity(lambda: ["shift", "affine", "strong"], min_length=1)
    """`shift` moves images; `affine` turns, scales and shears them as well; `strong` erases parts and blends pairs besides."""
    flip: list[bool] = identity(lambda: [False, True], min_length=1)
    """Whether images are mirrored; wrong for digits and text."""
    learning_rates: list[Annotated[float, Field(gt=0, le=1)]] = identity(lambda: [3e-3, 1e-2], min_length=1)
    """Peaks of the schedule."""


class EvaluationConfig(Config):
    """What is compared with what."""

    holdout: str | None = location(None)
    """Real images for the final measurement and nothing else."""
    arms: list[ArmConfig] = identity(lambda: [ArmConfig.model_validate(name) for name in DEFAULT_ARMS], min_length=1, max_length=100)
    """Training sets, such as `real+curated`, or `{name: pooled, of: [real, curated], mixing: {policy: pooled}}`."""
    real_per_class: list[Amount] = identity(lambda: ["all"], min_length=1, max_length=100)
    """Amounts of real data, each evaluated as if there were no more; `all` is the whole fit part."""
    curve: list[Amount] | None = identity(None, min_length=1, max_length=100)
    """Further amounts, of which only `real` is trained, for the real learning curve; nothing means all real images, half of the smallest
    amount, and where that makes fewer than three, a quarter of it."""
    synthetic_per_real: list[Annotated[float, Field(gt=0, le=10_000)]] = identity(lambda: [1.0], min_length=1, max_length=100)
    """How many synthetic images for each real one."""
    draws: int = identity(1, ge=1, le=1000)
    """Draws of the real images, which lie as far apart as they can, each with a generator (see `fit`) and a pool of its own. With
    `generators` every draw is the first images of each class, which those were fitted on."""
    seeds: int = identity(5, ge=1, le=1000)
    """Trainings of each arm in each draw; the same seeds for all arms."""
    generators: str | None = location(None)
    """Where generators lie that were fitted on just the first images of each class, with {amount} for their number."""
    fit: PixelFitConfig | None = None
    """Fit a generator on the real images of each amount and draw."""
    elsewhere: bool = identity(True)
    """Also evaluate the recipe's own pool where its generator saw other real images than the arm has: a table of its own."""
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    """The classifier."""
    tuning: TuningConfig = Field(default_factory=TuningConfig)
    """How the real-only arm is tuned first."""
    mixing: MixingConfig = Field(default_factory=MixingConfig)
    """How real and synthetic images are mixed."""
    margin: float = identity(0.005, gt=0, lt=1)
    """A gain in accuracy below this is not worth having: `did not help` means that one so large is ruled out."""
    steps_check: bool = identity(True)
    """Train each arm once more for twice the steps, to see whether steps were enough."""
    workers: int | None = execution(None, ge=1, le=1024)
    """Processes that prepare and train; nothing means one per GPU, or one per CPU core."""

    @model_validator(mode="after")
    def _possible(self) -> EvaluationConfig:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms: {next(name for name in names if names.count(name) > 1)!r} stands twice; give each a name of its own")
        if len(set(self.real_per_class)) < len(self.real_per_class):
            raise ValueError("real_per_class: an amount stands twice")
        if len(set(self.synthetic_per_real)) < len(self.synthetic_per_real):
            raise ValueError("synthetic_per_real: a number stands twice")
        if self.generators is not None and self.fit is not None:
            raise ValueError("generators: goes without fit; name generators that are there, or have them fitted")
        if self.generators is not None and "{amount}" not in self.generators:
            raise ValueError("generators: write {amount} where the number of real images per class stands")
        return self


DIAGNOSIS_ARMS = (REAL, "random", "label-filtered", "repeated", "rendered", "resampled", "rendered-resampled")
"""What a diagnosis compares; see `diagnosis.arms`."""
EVALUATION_VERSION = 2
"""Raised when equal images and settings give other figures or claims. The form of evaluation.json has a version of its own."""
DIAGNOSIS_VERSION = 6
"""Raised when equal images and settings give other arms, or parts of the loss. The form of diagnosis.json has a version of its own."""


class DiagnosisConfig(Config):
    """How it is told what synthetic images lose their accuracy by; draws, seeds, classifier and holdout are `evaluation`'s."""

    real_per_class: list[Amount] | None = identity(None, min_length=1, max_length=100)
    """Amounts of real data; nothing means the evaluation's."""
    strength: float = identity(0.4, gt=0, lt=1)
    """Of real guidance, with which real images are rendered by the generator: low, so that they stay what they are."""
    encoder: FixedEncoder | None = None
    """By whose features images are alike. Nothing: raw pixels up to 64 px, for which models of natural images say little, or where
    the arms' real budget forbids a model that has seen others; above that the encoder of `curation`."""
    neighbours: int = identity(10, ge=1, le=64)
    """Real images that vote on the label of a synthetic one, at most as many as the smallest class has."""
    loss: float = identity(0.02, ge=0, lt=1)
    """Share of the real images that may look as little like their class as an image whose label is doubted."""
