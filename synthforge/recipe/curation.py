"""What curation depends on: encoder, metric encoder, gates, selection. No heavy import: `recipe check` loads no model.

Each part's Config stands beside its code; here they are composed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from synthforge.config import Config, execution, identity, part
from synthforge.data.storage import resolve, user_cache
from synthforge.features.config import IndexConfig
from synthforge.features.encoders.config import AnyEncoder
from synthforge.registry import Registry, each_in, name_in

DECISIONS, GAP = "decisions.parquet", "gap.json"
"""What `curate` leaves beside the shards."""
Regime = Literal["s2r", "da"]

GATES: Registry[Any] = Registry("gate", "synthforge.curation.gates")
"""Name to the class of each gate (see there), in the order in which they are applied."""
RULES: Registry[Any] = Registry("selection rule", "synthforge.curation.selection.rules")
"""Name to each rule (see there)."""
RuleName = Annotated[str, name_in(RULES, "auto")]
"""A rule, or `auto`, which tries some out."""
Gates = Annotated[dict[str, Config], each_in(GATES, Config, "GatesConfig", "The gates, in the order in which they are applied.")]
"""Every gate by name, in order."""


class SizeConfig(Config):
    """How many images of each class are kept: one of `ratio`, `per_class`, `quota`; nothing means as many as the reference has to fit."""

    ratio: float | None = identity(None, gt=0, le=1e6)
    """So many for each real image of the class's fit part."""
    per_class: int | None = identity(None, ge=1, le=10**9)
    """The same number for each class."""
    quota: dict[str, Annotated[int, Field(ge=0, le=10**9)]] | None = identity(None)
    """Class to number; classes that are not named get nothing."""

    @model_validator(mode="after")
    def _one_of_three(self) -> SizeConfig:
        if sum(given is not None for given in (self.ratio, self.per_class, self.quota)) > 1:
            raise ValueError("give one of ratio, per_class and quota")
        return self

    def of(self, class_name: str, num_real: int) -> int:
        """How many images of a class are asked for."""
        if self.quota is not None:
            return self.quota.get(class_name, 0)
        if self.per_class is not None:
            return self.per_class
        return round((self.ratio if self.ratio is not None else 1.0) * num_real)


class SelectionConfig(Config):
    """How the subset is chosen among the images that pass the gates."""

    method: RuleName | None = identity(None)
    """A rule, or `auto`: the one whose picks train the best small classifier, judged on the reference's validation part. Nothing means
    `mmd` for s2r, and for da, where matching what is there already is not known to help, `random` among what passes the gates."""
    size: SizeConfig = Field(default_factory=SizeConfig)
    """How many of each class."""
    dim: int | None = identity(32, ge=1, le=4096)
    """Features of a class are projected to so many principal components of its real images; null keeps all."""
    stop_at_floor: bool = identity(False)
    """Pick at random while the set is as near to the reference as an endless real set would be. Off, since with cross-fitted features
    going on came nearer to real images that were not matched, too, where it was measured (benchmarks/results/curation-fashion.json)."""
    seed: int = identity(0, ge=0, lt=2**63)
    """Of everything random in curation."""
    weights: bool = identity(False)
    """Keep all images that pass the gates, whatever `size` says, and give each an importance weight instead (kernel mean matching)."""

    @model_validator(mode="after")
    def _weights_or_size(self) -> SelectionConfig:
        if self.weights and self.size != SizeConfig():
            raise ValueError("weights keeps every image that passes the gates, so size would do nothing; give one of the two")
        return self


class TrialsConfig(Config):
    """Small classifiers that are trained on selections and scored on the reference's validation part."""

    check: bool = identity(True)
    """At the end, train on the kept images and on random ones, and say whether that agrees with the gap."""
    seeds: int = identity(5, ge=1, le=100)
    """Trainings of each arm; the same seeds for all."""
    images: int = identity(32_000, ge=64, le=10**9)
    """Images that each training sees; the same for all arms."""
    resolution: int = identity(32, ge=8, le=64, multiple_of=4)
    """At most so many pixels."""
    width: int = identity(16, ge=8, le=512, multiple_of=8)
    """Channels of the network's first layers."""


class CurationConfig(Config):
    """How the pool is matched to the real images."""

    regime: Regime = identity("s2r")
    """What the images are for: `s2r`, training on them alone; `da`, training on them beside the real ones."""
    encoder: AnyEncoder | None = None
    """Drives gates and selection. Nothing: the embedded one for the built-in digits, one fitted on the reference itself (cross-fitted)
    up to 64 px, else the CLIP ViT-B-32 of LAION."""
    metric_encoder: AnyEncoder | None = part(None, was="judge")
    """Measures the gap; never the encoder. Nothing: the embedded one for the built-in digits, a fitted one up to 64 px, else DINOv2."""
    gates: Gates = Field(default_factory=lambda: {name: gate() for name, gate in GATES.items()})
    """What an image has to pass."""
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    """What is chosen of the rest."""
    trials: TrialsConfig = Field(default_factory=TrialsConfig)
    """How selections are tried out."""
    index: IndexConfig = Field(default_factory=IndexConfig)
    """How neighbours are searched."""
    classes: list[str] | None = identity(None)
    """Names for pools whose labels are numbers."""
    samples_per_shard: int = execution(1000, ge=1, le=1_000_000)
    """Of the curated set."""
    cache: str | None = execution(None, min_length=1)
    """Where features are kept, by content; nothing means synthforge's folder in the user's cache."""
    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one."""
    batch: int = execution(64, ge=1, le=65_536)
    """Images per batch of the encoder."""
    decoders: int | None = execution(None, ge=1, le=256)
    """Threads that decode images; nothing means one per CPU core, at most eight."""
    workers: int = execution(1, ge=1, le=1024)
    """Processes that embed."""


def cache_folder(config: CurationConfig) -> Path:
    """Where features and indices are kept."""
    return Path(resolve(config.cache)) if config.cache is not None else user_cache()
