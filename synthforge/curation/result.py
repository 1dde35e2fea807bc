"""The result of a curation, in the format of gap.json in the curated set. Imports nothing heavy."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthforge.data.input_report import InputReport
from synthforge.data.layout import Document, Record, canonical_json
from synthforge.recipe.curation import Regime
from synthforge.statistics import Measured

Nearer = Literal["smaller", "no different", "larger"]
"""Verdict on a difference of distances: whether the first distance is smaller."""
DistanceOver = Literal["images", "splits", "real draws"]
"""What an interval is over: bootstrap weights of images, random splits, or simulated draws of real images."""
Better = Literal["better", "no different", "worse"]


class GateReport(Record):
    """What one gate did."""

    gate: str
    """Name of the gate."""
    rule: str
    """Its threshold in words."""
    dropped: dict[str, int]
    """Number of images dropped for each reason, among those that passed the gates before."""


class ClassReport(Record):
    """Numbers of images of one class, from pool to curated set."""

    pool: int
    """Images in the pools."""
    passed: int
    """Images that passed the gates."""
    asked: int
    """Images to keep, by the settings."""
    kept: int
    """Images kept."""
    at_floor: int
    """Kept images that were picked at random, because the set was already as near to the reference as real images
    are."""


# The gap


class Distance(Record):
    """One metric of one set, with its 95 % interval. Value and interval are None together."""

    value: float | None
    """None: not measured, see `reason`."""
    low: float | None
    high: float | None
    n: int
    """Images of the set that were compared, in each view."""
    over: DistanceOver
    """What the interval is over."""
    reason: str | None = None
    """Why there is no value. None: there is one."""

    @property
    def measured(self) -> Measured | None:
        """Value and interval; None if there is no value."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return Measured(value=self.value, low=self.low, high=self.high)


class DistanceChange(Record):
    """A paired difference of two sets' distances, with its 95 % interval. Below 0 the first set is nearer to the real
    images."""

    value: float | None
    """None: not measured, see `reason`."""
    low: float | None
    high: float | None
    verdict: Nearer | None
    """Whether the interval excludes 0, and on which side."""
    reason: str | None = None
    """Why there is no value. None: there is one."""


class Distances(Record):
    """One metric of all sets."""

    before: Distance
    """The whole pool: every image that can be used."""
    after: Distance
    """The curated set."""
    random: Distance
    """Mean over random sets with as many images of each class as the curated set."""
    floor: Distance
    """Other real images, as many as in the curated set."""
    after_minus_random: DistanceChange | None = None
    """Curated set less random sets. None: not computed for this metric."""
    after_minus_before: DistanceChange | None = None
    """Curated set less whole pool. None: not computed for this metric."""


class Gap(Record):
    """Distances of the whole pool, the curated set and random sets to the real images."""

    primary: str
    """The metric that verdicts are about."""
    metrics: dict[str, Distances]
    """Each metric, over all classes."""
    per_class: dict[str, dict[str, Distances]]
    """The same for each class, by class name and metric."""
    num_views: int
    """Feature spaces over which distances are averaged."""
    num_real: int
    """Different real images in all views."""
    num_before: int
    """Images of the whole pool."""
    num_after: int
    """Images of the curated set."""
    num_random: int
    """Random sets."""
    nothing_chosen: bool = False
    """Whether all images that passed the gates were kept, so that every random set is the curated set."""
    num_bootstrap: int
    """Bootstrap replicates behind intervals over images."""
    num_splits: int
    """Random splits behind intervals over splits."""
    sigma: list[float]
    """Kernel width in each view: the median distance between real images."""
    most_images: int
    """Most images of a set that are compared. A larger set is represented by a random part."""

    @property
    def main(self) -> Distances:
        """The metric that verdicts are about."""
        return self.metrics[self.primary]

    @property
    def against_random(self) -> DistanceChange | None:
        """The curated set less random sets; None if that was not measured."""
        change = self.main.after_minus_random
        return change if change is not None and change.verdict is not None else None


class Region(Record):
    """A cluster of real images of one class that holds fewer synthetic images than its share."""

    class_name: str
    view: int
    """Index of the feature space."""
    number: int
    """Index of the region in its class and view."""
    num_real: int
    """Real images in the region."""
    num_pool: int
    """Synthetic images in the region."""
    real_share: float
    """Share of the class's real images that lie in the region."""
    pool_share: float
    """Share of the class's synthetic images that lie in the region."""
    num_lacking: int
    """Synthetic images that the region has less than its share."""
    num_wanted: int
    """Images to generate for it: `num_lacking` divided by the number of views, since each view finds the same holes
    again."""
    p_value: float
    """Probability of so few synthetic images by chance."""
    p_adjusted: float
    """Smallest false discovery rate at which the region counts as significant."""
    is_significant: bool
    """Whether `p_adjusted` is small enough."""
    real_keys: list[str]
    """Keys of real images in the region, nearest to its centre first."""
    pool_keys: list[str]
    """Keys of the class's synthetic images nearest to its centre, nearest first."""


# Training on what was kept


class Score(Record):
    """Result of training on one arm: means over seeds and validation images."""

    images: int
    """Synthetic images that the arm trained on."""
    accuracy: float
    """Share of validation images classified correctly."""
    probability: float
    """Mean probability of the true class."""
    accuracy_by_class: dict[str, float]
    seeds: int
    """Training runs."""


class ScoreChange(Record):
    """Difference of two arms, with intervals over validation images and seeds."""

    probability: Measured
    """Difference in the mean probability of the true class."""
    accuracy: Measured


class Trial(Record):
    """Training on the kept images, compared with training on as many random images of each class."""

    kept: Score
    random: Score
    difference: ScoreChange
    """Kept less random."""
    validation_images: int
    """Images that both were tested on."""

    @property
    def direction(self) -> Better:
        """Whether the kept images trained better than random ones."""
        probability = self.difference.probability
        return "better" if probability.low > 0 else "worse" if probability.high < 0 else "no different"


class CurateResult(Document):
    """Result of `curate`. gap.json holds all fields except those of a single run."""

    of_one_run: ClassVar[frozenset[str]] = frozenset({"folder", "seconds", "contact_sheet"})

    folder: str = ""
    """Address of the curated set."""
    digest: str
    """Digest of inputs and settings."""
    regime: Regime
    method: str
    """The selection rule, or `weights`."""
    inputs: list[InputReport] = Field(default_factory=list)
    """The pools, then the reference. Empty in files of earlier versions."""
    pool: int
    """Images in the pools."""
    unusable: dict[str, int]
    """Number of images that can't be used, by reason."""
    gates: list[GateReport]
    kept: int
    """Images kept."""
    per_class: dict[str, ClassReport]
    gap: Gap
    """The gap to all real images that the metric encoder has not seen."""
    gap_held_out: Gap | None = None
    """The gap to the validation part alone, which nothing was matched to: a gain here is not just the reference's
    noise."""
    training: Trial | None = None
    """The check by training on kept and random images. None: it was off, or not possible."""
    sentence: str
    """Whether curation helped."""
    trials: dict[str, Score]
    """Result of training on the picks of each rule that `auto` tried. Empty if a rule was given."""
    regions: list[Region]
    """Regions where the curated set lacks images, those that lack most first."""
    notes: list[str]
    encoder: list[dict[str, Any]] = Field(default_factory=list)
    """Identity of the encoder's model in each view."""
    metric_encoder: list[dict[str, Any]] = Field(default_factory=list)
    """Identity of the metric encoder's model in each view."""
    seconds: float = 0.0
    """Run time of `curate`."""
    contact_sheet: str | None = None
    """Path of the picture of real, kept and dropped images. None: not drawn."""
    schema_version: Literal[2] = 2

    @property
    def lacking(self) -> list[Region]:
        """Regions that significantly lack images."""
        return [region for region in self.regions if region.is_significant]

    def to_bytes(self) -> bytes:
        """Content of gap.json. Equal inputs give equal bytes."""
        return canonical_json(self.model_dump(mode="json", exclude=set(self.of_one_run)))

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Read version 1, which had no number. It called the metric encoder `judge`, and kept intervals in fields of
        their own."""
        if not isinstance(content, dict) or "schema_version" in content:
            return content
        upgraded = {{"judge": "metric_encoder"}.get(name, name): value for name, value in content.items()}
        if isinstance(training := upgraded.get("training"), dict):
            old = training["difference"]
            change = {
                name: dict(zip(("value", "low", "high"), (old[name], *old[f"{name}_interval"]), strict=True))
                for name in ("probability", "accuracy")
            }
            upgraded["training"] = {**training, "difference": change}
        if any(isinstance(region, dict) for region in upgraded.get("regions", [])):
            upgraded["regions"] = [{name: value for name, value in region.items() if name != "pool_rows"} for region in upgraded["regions"]]
        return upgraded
