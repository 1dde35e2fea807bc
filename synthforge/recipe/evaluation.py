"""The settings of `evaluate` and `diagnose`: training sets, classifier, mixing and tuning. Imports nothing heavy."""

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
    """Check the amount here: a pydantic union would report two errors for one mistake."""
    if value == "all" or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 10**7):
        return value
    raise ValueError("write a number of images of each class from 1 to 10,000,000, or all")


Amount: TypeAlias = Annotated[int | Literal["all"], BeforeValidator(_as_amount)]
"""Number of real images of each class; `all` is the whole fit part."""

REAL, MORE = "real", "more"
REAL_SOURCES = (REAL, MORE, "more-curated")
"""Sources of real images: these n images; as many other real images as an arm has synthetic ones; the same, chosen by
curation."""
POOL_SOURCES = ("random", "curated")
"""Sources of synthetic images: drawn at random, and chosen by curation."""
CHOSEN = ("curated", "more-curated")
"""Sources that are chosen by curation."""


class TrainerAugmentConfig(AugmentConfig):
    """Augmentation of training images.

    Half of each batch is not moved. Moving an image blurs it, and classifiers trained on moved images only did worse on
    Fashion-MNIST.
    """

    erase: float = identity(0.0, ge=0, le=1)
    """Share of each batch in which a rectangle is made grey."""
    mixup: float = identity(0.0, ge=0, le=10)
    """Mixup: images are blended in pairs, with shares from Beta(`mixup`, `mixup`). 0: no mixup."""


class TrainerConfig(Config):
    """The classifier and its training, the same for every arm."""

    network: str = identity("residual", min_length=1)
    """`residual`: our small residual network for 8 to 64 px. Otherwise a timm model: its name, a folder or a hub id."""
    pretrained: str | None = location(None)
    """A .safetensors file with weights for the timm model. None: the weights that come with the model, where `start`
    needs some."""
    start: Start = identity("scratch")
    """`scratch`: random weights. `probe`: a linear layer on pretrained features. `fine-tune`: all layers, from
    pretrained weights."""
    width: int = identity(24, ge=8, le=512, multiple_of=8)
    """Channels of the residual network's first layers. The last layers have at most four times as many."""
    resolution: int | None = identity(None, ge=8, le=1024)
    """Height and width in pixels. None: the images' own, at most 64; for timm models, the resolution that they were
    trained at."""
    steps: int = identity(1500, ge=8, le=10**8)
    """Optimiser steps, the same for every arm. `steps_check` tests whether they were enough."""
    batch: int = identity(64, ge=2, le=65_536)
    """Images per step."""
    learning_rate: float = identity(3e-3, gt=0, le=1)
    """Peak learning rate of the one-cycle schedule."""
    warmup: float = identity(0.15, ge=0, lt=1)
    """Share of the steps over which the learning rate rises. Then it falls to zero along a half cosine."""
    weight_decay: float = identity(0.05, ge=0, le=1)
    """Weight decay of AdamW."""
    label_smoothing: float = identity(0.1, ge=0, lt=1)
    """Share of the target that is spread over all classes."""
    ema: float = identity(0.05, gt=0, lt=1)
    """Length of the moving average of the weights, as a share of the steps. The averaged weights are tested."""
    augment: TrainerAugmentConfig = Field(default_factory=TrainerAugmentConfig)
    """Augmentation of training images."""
    precision: Literal["auto", "float32", "bfloat16"] = identity("auto")
    """Precision of forward and backward passes. `auto`: bfloat16 on CUDA, float32 elsewhere."""
    threads: int = identity(1, ge=1, le=1024)
    """CPU threads of each training. Results are reproducible for the same number; small networks gain little from
    more."""
    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one."""
    compile: bool = execution(True)
    """Compile the network on CUDA."""
    resident_gib: float = execution(4.0, ge=0, le=10_000)
    """Training images up to this size in GiB are held on the device. More are decoded as they are needed."""

    @model_validator(mode="after")
    def _goes_together(self) -> TrainerConfig:
        if self.start == "scratch" and self.pretrained is not None:
            raise ValueError("pretrained: would not be used, since start is scratch; leave it out, or set start to probe or fine-tune")
        if self.network == "residual" and self.start != "scratch":
            raise ValueError(f"start: {self.start} needs a network with pretrained weights; name a timm model as `network`")
        if self.network == "residual" and self.resolution is not None and (self.resolution > 64 or self.resolution % 4):
            raise ValueError("resolution: the residual network takes 8 to 64 px in steps of 4; name a timm model as `network` for more")
        return self


class MixingConfig(Config):
    """How an arm mixes real and synthetic images in training."""

    policy: Policy = identity("weighted")
    """`weighted`: each batch has a fixed share of synthetic images, whose loss counts less. `pooled`: all images are
    shuffled together. `synthetic-then-real`: first synthetic images, then real ones alone. `split-norm`: as `weighted`,
    with separate batch-norm statistics."""
    share: float | None = identity(None, gt=0, lt=1)
    """Synthetic share of each batch; for `synthetic-then-real`, of the steps. None: 0.5; for `synthetic-then-real`
    0.45."""
    weight: float = identity(0.4, gt=0, le=10)
    """Weight of a synthetic image's loss in `weighted` and `split-norm`. A real image's loss has weight 1."""

    @property
    def synthetic_share(self) -> float:
        """`share`, with its default filled in."""
        return self.share if self.share is not None else 0.45 if self.policy == "synthetic-then-real" else 0.5


ALONE = MixingConfig(policy="pooled")
"""The mixing of training sets that are all real or all synthetic."""


class ArmConfig(Config):
    """One training set (arm). The short form `real+curated` names its sources."""

    name: str = identity(min_length=1, max_length=60, pattern=r"^[^\s<>=@][^<>=@]*$")
    """Name of the arm in tables and requirements."""
    of: list[str] = identity(min_length=1, max_length=10)
    """Sources of its images: `real`, `more`, `more-curated`, `random`, `curated`, or the name of a synthetic set."""
    mixing: MixingConfig | None = None
    """Mixing of real and synthetic images in this arm. None: `evaluation.mixing`."""
    selection: RuleName | None = identity(None)
    """Selection rule for `curated` images. None: `curation.selection.method`; its default depends on whether the arm
    has real images."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"name": value, "of": [part.strip() for part in value.split("+")]} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _each_once(self) -> ArmConfig:
        if len(set(self.of)) < len(self.of) or "" in self.of:
            raise ValueError(f"{self.name}: a source is empty or given twice")
        return self

    @property
    def regime(self) -> Regime:
        """What its synthetic images are for: training beside real ones (`da`), or alone (`s2r`)."""
        return "da" if REAL in self.of else "s2r"

    def key_of(self, source: str) -> str:
        """The key under which a source's images are stored. Curated images also depend on rule and regime."""
        return f"{source} by {self.selection or 'the recipe'}, {self.regime}" if source in CHOSEN else source


DEFAULT_ARMS = ("real", "random", "curated", "real+random", "real+curated", "real+more", "more", "more-curated")


class TuningConfig(Config):
    """Hyperparameter search for the real-only arm. All arms then use its settings.

    Every augmentation is tried with every learning rate. The best mean log-probability of the true class wins. It is
    measured on the validation part; for an amount below `all`, by cross-validation within the n images.
    """

    on: bool = identity(True)
    """Tune before training. Off: `trainer` is used as it stands."""
    folds: int = identity(3, ge=2, le=20)
    """Most folds of the cross-validation. There are never more than the smallest class has images."""
    augmentations: list[Literal["none", "shift", "affine", "strong"]] = identity(lambda: ["shift", "affine", "strong"], min_length=1)
    """Augmentations to try. `shift` moves images; `affine` also rotates, scales and shears; `strong` adds erasing and
    mixup."""
    flip: list[bool] = identity(lambda: [False, True], min_length=1)
    """Whether to mirror images; both values are tried by default. Mirroring is wrong for digits and text."""
    learning_rates: list[Annotated[float, Field(gt=0, le=1)]] = identity(lambda: [3e-3, 1e-2], min_length=1)
    """Peak learning rates to try."""


class EvaluationConfig(Config):
    """Measures whether synthetic images help. Classifiers are trained on each arm and tested on held-out real
    images."""

    holdout: str | None = location(None)
    """The held-out test set: real images that nothing else may use. None: it has to be given on the command line."""
    arms: list[ArmConfig] = identity(lambda: [ArmConfig.model_validate(name) for name in DEFAULT_ARMS], min_length=1, max_length=100)
    """Training sets, such as `real+curated`, or `{name: pooled, of: [real, curated], mixing: {policy: pooled}}`."""
    real_per_class: list[Amount] = identity(lambda: ["all"], min_length=1, max_length=100)
    """Amounts of real data per class. Each is evaluated as if there were no more; `all` is the whole fit part."""
    curve: list[Amount] | None = identity(None, min_length=1, max_length=100)
    """Further amounts for the learning curve of the arm `real`. None: all real images and half of the smallest amount;
    also a quarter of it, if the curve would have fewer than three points."""
    synthetic_per_real: list[Annotated[float, Field(gt=0, le=10_000)]] = identity(lambda: [1.0], min_length=1, max_length=100)
    """Synthetic images for each real one. Each ratio is evaluated."""
    draws: int = identity(1, ge=1, le=1000)
    """Random draws of the real images, which overlap as little as possible. With `fit`, each has its own generator and
    pool. With `generators`, every draw is the first images of each class, on which those generators were fitted."""
    seeds: int = identity(5, ge=1, le=1000)
    """Trainings of each arm in each draw. All arms use the same seeds."""
    generators: str | None = location(None)
    """Path of generators that were fitted on just the first images of each class; `{amount}` stands for their number.
    None: none."""
    fit: PixelFitConfig | None = None
    """Fit a generator on the real images of each amount and draw, with these settings. None: no generator is fitted."""
    elsewhere: bool = identity(True)
    """Also evaluate the recipe's own pool, in a second table, where its generator saw other real images than the arm
    has."""
    trainer: TrainerConfig = Field(default_factory=TrainerConfig)
    """The classifier and its training."""
    tuning: TuningConfig = Field(default_factory=TuningConfig)
    """Hyperparameter search for the real-only arm, before anything is compared."""
    mixing: MixingConfig = Field(default_factory=MixingConfig)
    """How real and synthetic images are mixed in training."""
    margin: float = identity(0.005, gt=0, lt=1)
    """Smallest gain in accuracy that is worth having. `did not help` means that a gain of this size is ruled out."""
    steps_check: bool = identity(True)
    """Train each arm once more with twice the steps, to see whether the steps were enough."""
    workers: int | None = execution(None, ge=1, le=1024)
    """Processes that prepare and train. None: one per GPU, or one per CPU core without a GPU."""

    @model_validator(mode="after")
    def _possible(self) -> EvaluationConfig:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError(f"arms: {next(name for name in names if names.count(name) > 1)!r} is given twice; name each arm differently")
        for field in ("real_per_class", "synthetic_per_real"):
            if len(set(getattr(self, field))) < len(getattr(self, field)):
                raise ValueError(f"{field}: a value is given twice")
        if self.generators is not None and self.fit is not None:
            raise ValueError("generators: can't be combined with fit; use fitted generators, or have them fitted")
        if self.generators is not None and "{amount}" not in self.generators:
            raise ValueError("generators: write {amount} where the number of real images per class stands")
        return self


DIAGNOSIS_ARMS = (REAL, "random", "label-filtered", "repeated", "rendered", "resampled", "rendered-resampled")
"""Training sets of a diagnosis, see `synthforge.evaluation.diagnosis.arms`."""
EVALUATION_VERSION = 2
"""Raised when the same images and settings give other figures or verdicts. The format of evaluation.json has its own
version."""
DIAGNOSIS_VERSION = 6
"""Raised when the same images and settings give other arms or parts. The format of diagnosis.json has its own
version."""


class DiagnosisConfig(Config):
    """Decomposes the loss of accuracy into causes. Draws, seeds, classifier and held-out test set are those of
    `evaluation`."""

    real_per_class: list[Amount] | None = identity(None, min_length=1, max_length=100)
    """Amounts of real data per class. None: those of `evaluation`."""
    strength: float = identity(0.4, gt=0, lt=1)
    """Strength of image-to-image with which the generator renders real images. Keep it low, so that their content stays
    the same."""
    encoder: FixedEncoder | None = None
    """Model whose features say which images are alike. None: raw pixels up to 64 px; above, the encoder of `curation`.
    Raw pixels are also used where a model that has seen other real images would break the arms' real budget."""
    neighbours: int = identity(10, ge=1, le=64)
    """Nearest real images, of all classes, that vote on the label of a synthetic one. There are never more than the
    draw has other real images."""
    loss: float = identity(0.02, ge=0, lt=1)
    """Share of real images that may fail the same test. It sets the threshold below which a label is doubted."""
