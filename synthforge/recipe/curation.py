"""The settings of `curate`: encoder, metric encoder, gates and selection.

This module imports nothing heavy, so `recipe check` loads no model. The Config of each part stands beside its code.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from synthforge.config import ClassName, Config, execution, identity, renamed
from synthforge.data.read_config import ReadingConfig
from synthforge.data.storage import resolve, user_cache
from synthforge.features.config import IndexConfig
from synthforge.features.encoders.config import AnyEncoder
from synthforge.registry import Registry, each_in, name_in

Regime = Literal["s2r", "da"]

GATES: Registry[Any] = Registry("gate", "synthforge.curation.gates")
"""Gates by name, in the order in which they are applied. The classes are in `synthforge.curation.gates`."""
RULES: Registry[Any] = Registry("selection rule", "synthforge.curation.selection.rules")
"""Selection rules by name. They are defined in `synthforge.curation.selection.rules`."""
RuleName = Annotated[str, name_in(RULES, "auto")]
"""Name of a selection rule, or `auto`, which tries several rules and takes the best."""
Gates = Annotated[dict[str, Config], each_in(GATES, Config, "GatesConfig", "The gates, in the order in which they are applied.")]
"""The settings of each gate, by name."""


def each_once(names: list[str]) -> list[str]:
    """The names; raises ValueError if one is empty or given twice."""
    if "" in names:
        raise ValueError("a name is empty")
    if twice := [name for name, number in Counter(names).items() if number > 1]:
        raise ValueError(f"{twice[0]!r} is given twice")
    return names


class SizeConfig(Config):
    """How many images of each class are kept. Give at most one field.

    By default as many are kept as the class has real images in the fit part.
    """

    ratio: float | None = identity(None, gt=0, le=1e6)
    """Images kept for each real image of the class's fit part. None: 1, unless another field is given."""
    per_class: int | None = identity(None, ge=1, le=10**9)
    """Images kept of each class, the same number for all. None: see `ratio`."""
    quota: dict[ClassName, Annotated[int, Field(ge=0, le=10**9)]] | None = identity(None)
    """Images kept of each class, by class name. Classes without an entry get none. None: see `ratio`."""

    @model_validator(mode="after")
    def _one_of_three(self) -> SizeConfig:
        if sum(given is not None for given in (self.ratio, self.per_class, self.quota)) > 1:
            raise ValueError("give one of ratio, per_class and quota")
        return self

    def of(self, class_name: str, num_real: int) -> int:
        """Images to keep of a class that has `num_real` real images in the fit part."""
        if self.quota is not None:
            return self.quota.get(class_name, 0)
        if self.per_class is not None:
            return self.per_class
        return round((self.ratio if self.ratio is not None else 1.0) * num_real)


class SelectionConfig(Config):
    """How images are selected among those that pass the gates."""

    method: RuleName | None = identity(None)
    """The selection rule. `auto` trains a small classifier on each rule's picks and takes the best on the validation
    part. None: `mmd` for regime `s2r`; `random` for `da`, where matching the real images is not known to help."""
    size: SizeConfig = Field(default_factory=SizeConfig)
    """How many images of each class are kept."""
    dim: int | None = identity(32, ge=1, le=4096)
    """Principal components of a class's real images to which features are projected. None: all features are kept."""
    stop_at_floor: bool = identity(False)
    """Pick at random once the set is as near to the reference as an endless set of real images would be. Off by
    default: going on also came nearer to real images that were not matched
    (benchmarks/results/curation-fashion.json)."""
    seed: int = identity(0, ge=0, lt=2**63)
    """Seed of everything random in curation."""
    weights: bool = identity(False)
    """Keep all images that pass the gates, and give each an importance weight (kernel mean matching)."""

    @model_validator(mode="after")
    def _weights_or_size(self) -> SelectionConfig:
        if self.weights and self.size != SizeConfig():
            raise ValueError("weights keeps every image that passes the gates, so size would do nothing; give one of the two")
        return self


class TrialsConfig(Config):
    """Small classifiers, trained on selected images and tested on the validation part of the reference."""

    check: bool = identity(True)
    """At the end, train on the kept images and on as many random ones, and report whether training agrees with the
    gap."""
    seeds: int = identity(5, ge=1, le=100)
    """Training runs of each arm. All arms use the same seeds."""
    images: int = identity(32_000, ge=64, le=10**9)
    """Images that each training run sees, counted with repetitions; the same for all arms."""
    resolution: int = identity(32, ge=8, le=64, multiple_of=4)
    """Largest height and width of the training images, in pixels."""
    width: int = identity(16, ge=8, le=512, multiple_of=8)
    """Channels of the network's first layers."""


class CurationConfig(ReadingConfig):
    """Chooses the subset of the pool that best matches the real images."""

    regime: Regime = identity("s2r")
    """What the images are for. `s2r` (synthetic to real): training on synthetic images alone. `da` (data augmentation):
    training on them beside real ones."""
    encoder: AnyEncoder | None = None
    """Model whose features drive gates and selection. None: up to 64 px, classifiers cross-fitted on the reference;
    above, CLIP ViT-B-32 (LAION); for the built-in digits, an embedded model."""
    metric_encoder: AnyEncoder | None = renamed(None, was="judge")
    """Model whose features measure the gap; it must differ from `encoder`. None: up to 64 px, other cross-fitted
    classifiers; above, DINOv2 ViT-S/14; for the built-in digits, an embedded model."""
    gates: Gates = Field(default_factory=lambda: {name: gate() for name, gate in GATES.items()})
    """Tests that an image has to pass."""
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    """How images are selected among those that pass the gates."""
    trials: TrialsConfig = Field(default_factory=TrialsConfig)
    """Small classifiers that are trained on selections, for `auto` and for the check at the end."""
    index: IndexConfig = Field(default_factory=IndexConfig)
    """How nearest neighbours are searched."""
    classes: Annotated[list[ClassName], AfterValidator(each_once)] | None = identity(None)
    """Class names for data whose labels are numbers, in the order of the numbers. None: the names in the data."""
    orientation: Literal["upright", "kept"] = identity("upright")
    """`upright`: an image that its EXIF data turns is written with turned pixels, since many loaders ignore that data;
    all others keep their bytes. `kept`: all keep their bytes."""
    samples_per_shard: int = execution(1000, ge=1, le=1_000_000)
    """Images in one tar of the curated set."""
    cache: str | None = execution(None, min_length=1)
    """Folder where features are cached. None: synthforge's folder in the user's cache."""
    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one."""
    batch: int = execution(64, ge=1, le=65_536)
    """Images per batch of the encoder."""
    decoders: int | None = execution(None, ge=1, le=256)
    """Threads that decode images. None: one per CPU core, at most eight."""
    workers: int = execution(1, ge=1, le=1024)
    """Processes that compute features."""


def cache_folder(config: CurationConfig) -> Path:
    """The folder where features and search indices are cached."""
    return Path(resolve(config.cache)) if config.cache is not None else user_cache()
