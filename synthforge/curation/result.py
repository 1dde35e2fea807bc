"""What a curation found, as gap.json in the curated set holds it; no heavy import."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from synthforge.data.layout import Document, Record, canonical_json
from synthforge.recipe.curation import Regime
from synthforge.statistics import Measured

Nearer = Literal["smaller", "no different", "larger"]
"""Of a difference of distances: whether the first set is nearer to the real images."""
DistanceOver = Literal["images", "splits", "real draws"]
"""What an interval is over: weights of a bootstrap, random splits, or simulated draws of real images alone."""
Better = Literal["better", "no different", "worse"]


class GateReport(Record):
    """What one gate did."""

    gate: str
    rule: str
    """Its threshold in words."""
    dropped: dict[str, int]
    """Reason to number of images, of those that passed the gates before."""


class ClassReport(Record):
    """One class, from pool to curated set."""

    pool: int
    passed: int
    """The gates."""
    asked: int
    kept: int
    at_floor: int
    """Picks made at random because the set was as near to the real one as real images are."""


# The gap


class Distance(Record):
    """A metric's figure of one set, with its 95 % interval; value and interval are there together, or not at all."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    """Images of the set that were compared, in each view."""
    over: DistanceOver
    reason: str | None = None
    """Why there is no value."""

    @property
    def measured(self) -> Measured | None:
        """Value and interval."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return Measured(value=self.value, low=self.low, high=self.high)


class DistanceChange(Record):
    """A paired difference of two sets' figures with its 95 % interval; smaller means that the first is nearer to the real images."""

    value: float | None
    low: float | None
    high: float | None
    verdict: Nearer | None
    reason: str | None = None


class Distances(Record):
    """One metric of all sets."""

    before: Distance
    """Every image of the pool that can be read."""
    after: Distance
    """The curated set."""
    random: Distance
    """Mean over random sets with as many images of each class as the curated one."""
    floor: Distance
    """Real against other real images, of the same sizes."""
    after_minus_random: DistanceChange | None = None
    after_minus_before: DistanceChange | None = None


class Gap(Record):
    """How far sets are from the real images."""

    primary: str
    """The metric that verdicts are about."""
    metrics: dict[str, Distances]
    per_class: dict[str, dict[str, Distances]]
    """Class to metric to figures."""
    num_views: int
    num_real: int
    """Different real images in all views."""
    num_before: int
    num_after: int
    num_random: int
    """Random sets."""
    nothing_chosen: bool = False
    """Whether every random set is the curated one: all that passed the gates was kept."""
    num_bootstrap: int
    num_splits: int
    sigma: list[float]
    """Kernel width in each view: the median distance between real images."""
    most_images: int

    @property
    def main(self) -> Distances:
        """Of the metric that verdicts are about."""
        return self.metrics[self.primary]

    @property
    def against_random(self) -> DistanceChange | None:
        """The curated set less random ones; None if that was not measured."""
        found = self.main.after_minus_random
        return found if found is not None and found.verdict is not None else None


class Region(Record):
    """A place in one class that holds fewer synthetic images than its share."""

    class_name: str
    view: int
    number: int
    """Of the region, in its class and view."""
    num_real: int
    num_pool: int
    real_share: float
    """Of the class's real images of this view."""
    pool_share: float
    """Of the class's synthetic images that count."""
    num_lacking: int
    """Images that the region lacks."""
    num_wanted: int
    """Images to make for it: what it lacks over the number of views, since each view finds the same holes once more."""
    p_value: float
    """Of so few synthetic images by chance."""
    p_adjusted: float
    """The smallest false discovery rate at which it counts as significant."""
    is_significant: bool
    real_keys: list[str]
    """Examples, nearest to the centre first."""
    pool_keys: list[str]
    """Synthetic images nearest to the centre, first the nearest; of the class, wherever they are counted."""


# Training on what was kept


class Score(Record):
    """What training on one arm gave, over seeds and validation images."""

    images: int
    accuracy: float
    probability: float
    """Mean probability of the true class."""
    accuracy_by_class: dict[str, float]
    seeds: int


class ScoreChange(Record):
    """One arm less another, with intervals over validation images and seeds."""

    probability: Measured
    """Mean probability of the true class."""
    accuracy: Measured


class Trial(Record):
    """Training on the kept images against training on random ones of the same size per class."""

    kept: Score
    random: Score
    difference: ScoreChange
    validation_images: int

    @property
    def direction(self) -> Better:
        """What training says."""
        probability = self.difference.probability
        return "better" if probability.low > 0 else "worse" if probability.high < 0 else "no different"


class CurateResult(Document):
    """What `curate` leaves behind; gap.json holds all but what is of one run alone."""

    of_one_run: ClassVar[frozenset[str]] = frozenset({"folder", "seconds", "contact_sheet"})

    folder: str = ""
    digest: str
    regime: Regime
    method: str
    pool: int
    """Images looked at."""
    unusable: dict[str, int]
    """Why images can't be used at all, to their number."""
    gates: list[GateReport]
    kept: int
    per_class: dict[str, ClassReport]
    gap: Gap
    """Against all real images that the metric encoder has not seen."""
    gap_held_out: Gap | None = None
    """Against those of the validation part alone, which nothing was matched to: what part of the gain is not the reference's own noise."""
    training: Trial | None = None
    """What a small classifier learns from the kept images, against random ones; None if it was not asked for."""
    sentence: str
    """Whether curation helped."""
    trials: dict[str, Score]
    """What `auto` tried, and how each rule's picks trained; empty if the rule was given."""
    regions: list[Region]
    """Where the curated set lacks images, the worst first, with the pool images that come nearest."""
    notes: list[str]
    encoder: list[dict[str, Any]] = Field(default_factory=list)
    """Of each view, as its features are named in the cache."""
    metric_encoder: list[dict[str, Any]] = Field(default_factory=list)
    seconds: float = 0.0
    contact_sheet: str | None = None
    schema_version: Literal[2] = 2

    @property
    def lacking(self) -> list[Region]:
        """Regions of which it is no chance that they lack images."""
        return [region for region in self.regions if region.is_significant]

    def to_bytes(self) -> bytes:
        """As gap.json: equal inputs give equal bytes."""
        return canonical_json(self.model_dump(mode="json", exclude=set(self.of_one_run)))

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Version 1 had no number, at first another word for the metric encoder, and intervals beside what they are of."""
        if not isinstance(content, dict) or "schema_version" in content:
            return content
        renamed = {{"judge": "metric_encoder"}.get(name, name): value for name, value in content.items()}
        if isinstance(training := renamed.get("training"), dict):
            old = training["difference"]
            change = {
                name: dict(zip(("value", "low", "high"), (old[name], *old[f"{name}_interval"]), strict=True))
                for name in ("probability", "accuracy")
            }
            renamed["training"] = {**training, "difference": change}
        if any(isinstance(region, dict) for region in renamed.get("regions", [])):
            renamed["regions"] = [{name: value for name, value in one.items() if name != "pool_rows"} for one in renamed["regions"]]
        return renamed
