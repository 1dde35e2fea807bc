"""The results of an evaluation and a diagnosis, as evaluation.json and diagnosis.json hold them. Imports nothing heavy.

Decisions use codes (verdicts, kinds of claims, causes). Texts are for people alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from synthforge.data.input_report import InputReport
from synthforge.data.layout import Document, Record
from synthforge.statistics import Measured, Over, Word

Origin = Literal["own", "elsewhere"]
"""Whether pools come from generators that have seen only the real images of each setting (`own`), or from others."""
ORIGINS: tuple[Origin, ...] = get_args(Origin)
Kind = Literal[
    "adding", "instead", "curated-instead", "curation", "curation-beside-real", "more-real", "other-real", "rule-on-real", "pair"
]
"""What a comparison is about, such as adding synthetic images to real ones; `pair`: none of the other kinds."""
Use = Literal["everywhere", "where they helped", "nowhere", "no proof", "not measured"]
PartName = Literal["appearance", "content", "labels", "interaction", "rest"]
PARTS: tuple[PartName, ...] = get_args(PartName)
"""In their order in results."""
LossVerdict = Literal["loss", "gain", "none", "cannot tell", "not shown", "not measured"]
Cause = Literal["appearance", "content", "labels", "interaction", "rest", "none", "unclear"]


# An evaluation


class ArmScore(Record):
    """Figures of one arm on the held-out test set."""

    arm: str
    images: int
    """Size of the training set, mean over draws and seeds."""
    accuracy: Measured
    interval_over: Over
    recall: dict[str, Measured]
    """Accuracy on the holdout images of each class."""
    calibration_error: float
    """Expected calibration error, mean over trainings."""
    log_loss: float
    draws: int
    seeds: int


class Comparison(Record):
    """The difference of two arms, paired by draw, seed and holdout image."""

    arm: str
    against: str
    difference: Measured
    p_adjusted: float
    """P-value of no difference, corrected for all comparisons of the table (Holm)."""
    verdict: Word
    draws_needed: int | None
    """For `cannot tell`: draws that would tell, or seeds of a single draw. None: no number would with these holdout
    images, or there is only one training run."""
    interval_over: Over
    by_class: dict[str, Measured]
    """Difference in recall of each class. Intervals are not corrected for their number."""
    steps_change: Measured | None = None
    """What twice the steps add to the difference, for one seed of each draw. None: a single draw, or not measured."""


class Claim(Record):
    """The mean over all comparisons of one kind, such as curation over random selection for all amounts."""

    kind: Kind
    what: str
    """The kind in words; for a pair its arms."""
    comparisons: int
    difference: Measured
    """Mean over the comparisons."""
    lowest: float
    """Smallest difference of a comparison."""
    highest: float
    """Largest difference of a comparison."""
    p_adjusted: float
    """P-value of no difference, corrected for all claims of the table (Holm)."""
    verdict: Word
    draws_needed: int | None
    interval_over: Over


class RequiredClaim(Record):
    """The result of a comparison that --require asks for."""

    arm: str
    against: str
    amount: str | None
    """Amount of real data. None: all amounts together."""
    claim: Claim
    """Corrected for the other requirements alone, since these are stated beforehand."""
    hurts_at: list[str]
    """Amounts of real data at which the arm is proven to hurt, corrected for these amounts alone."""


class Worth(Record):
    """How many real images give an arm's accuracy."""

    arm: str
    equivalent: Measured
    """Real images per class that give this accuracy, by the real learning curve."""
    low_is_end: bool
    """The interval begins at the curve's beginning, so the number may be lower."""
    high_is_end: bool
    """The interval ends at the curve's end, so the number may be higher."""
    at_least: bool
    """The accuracy reaches the curve's end, so the number is a lower bound."""
    at_most: bool
    """The accuracy does not exceed the curve's beginning, so the number is an upper bound."""
    more_real: Measured
    """`equivalent` less the real images of the arm: how many more real images its other images are worth."""
    others_per_real: Measured | None
    """How many of the arm's other images equal one more real image. None: they may be worth nothing, or the curve
    ends."""
    recovered: Measured | None
    """Share of the gain of as many more real images. For `curated` alone: share of what random images lose against as
    many real ones. None: that is not known to be a gain, or not measured."""


class SettingResult(Record):
    """One row of a table: an amount of real data, and a number of synthetic images for each real one."""

    amount: str
    real_per_class: float
    synthetic_per_real: float
    budget: int
    """Number of real images that anything behind the arms has seen, without `more` ones and those behind pretrained
    weights."""
    arms: dict[str, ArmScore]
    comparisons: list[Comparison]
    worth: dict[str, Worth]
    steps_check: dict[str, Measured]
    """What twice the steps add to accuracy, by arm, for one seed of each draw."""
    steps_check_mean: Measured | None
    """Mean of `steps_check` over arms."""
    has_enough_steps: bool
    """Twice the steps are not shown to change accuracy by more than the margin; also true if that was not measured."""
    sentence: str
    missing: dict[str, str]
    """Arms that could not be made, and why."""


class TableResult(Record):
    """Settings with pools of one origin."""

    origin: Origin
    generator: str
    settings: list[SettingResult]
    claims: list[Claim]
    """Means over all settings, for each kind of comparison."""
    required: list[RequiredClaim] = Field(default_factory=list)
    """Comparisons that --require asks for."""

    @property
    def compares(self) -> bool:
        """Whether anything is compared."""
        return any(setting.comparisons for setting in self.settings)

    def claim(self, kind: Kind) -> Claim | None:
        """The claim of a kind. None: there is no such comparison."""
        return next((claim for claim in self.claims if claim.kind == kind), None)


class CurvePoint(Record):
    """Accuracy of the real-only arm with so many images per class."""

    amount: str
    real_per_class: float
    accuracy: Measured


class TunedResult(Record):
    """Settings that tuning chose for one draw of real images."""

    amount: str
    draw: int
    chosen: dict[str, Any]
    on: str
    """What candidates were scored on."""
    scores: dict[str, float]
    """Mean log-probability of the true class, by candidate."""


class EvaluateResult(Document):
    """Result of `evaluate`, evaluation.json."""

    oldest = 2

    inputs: list[InputReport] = Field(default_factory=list)
    """The real images, synthetic sets that are given in place of a recipe, and the test set. Empty in files of earlier
    versions."""
    holdout: str
    holdout_images: int
    classes: list[str]
    verdict: str
    """In words."""
    tables: list[TableResult]
    """First the one whose generators have seen nothing but the real images of each setting, if there is one."""
    curve: list[CurvePoint]
    """The real learning curve."""
    tuned: list[TunedResult]
    trainer: dict[str, Any]
    steps: int
    copies_removed: dict[str, int]
    """Number of images left out because they copy a holdout image, by source."""
    notes: list[str]
    trainings: int
    device: str
    seconds: float
    """Since draws were prepared: the rest of the tuning, trainings and figures."""
    file: str | None = None
    requirements: dict[str, bool] = Field(default_factory=dict)
    """Text of each requirement to whether it holds."""
    use: Use = "not measured"
    """Where to add synthetic images to real ones, by the first table that compares anything."""
    schema_version: Literal[4] = 4

    @property
    def first(self) -> TableResult | None:
        """The first table that compares anything."""
        return next((table for table in self.tables if table.compares), None)

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Version 2 had claims without codes, and three fields for each figure of `Worth`."""
        if not isinstance(content, dict):
            return content
        if content.get("schema_version") == 3:  # without `inputs`
            return content | {"schema_version": 4}
        if content.get("schema") != 2:
            return content
        tables = [_table_of_2(table) for table in content["tables"]]
        return {name: value for name, value in content.items() if name != "schema"} | {"tables": tables, "schema_version": 4}


# A diagnosis


class LossPart(Record):
    """A part of the lost accuracy."""

    loss: Measured | None
    """None: not measured, or not shown."""
    verdict: LossVerdict
    """`none`: a loss of the margin or more is ruled out. `not shown`: the images can't be shown to differ in this, so
    nothing was trained for it; any such loss is in the rest."""
    share: Measured | None = None
    """Share of the whole loss. None: the whole can't be told from 0, so shares have no bounds."""


class Loss(Record):
    """Accuracy lost by training on random synthetic images instead of as many real ones, and its parts."""

    whole: LossPart
    parts: dict[PartName, LossPart]
    """In the order of `PARTS`."""

    @field_validator("parts")
    @classmethod
    def _in_order(cls, parts: dict[PartName, LossPart]) -> dict[PartName, LossPart]:
        return {name: parts[name] for name in PARTS}

    @property
    def shown(self) -> dict[PartName, Measured]:
        """The parts that are proven."""
        return {name: part.loss for name, part in self.parts.items() if part.loss is not None and part.verdict == "loss"}


class ImageFacts(Record):
    """Figures of the images that need no training; in results, means over draws."""

    doubted: float
    """Share of the pool's images that don't look like their class."""
    doubted_real: float
    """Share of the real images that don't look like their class, each judged by the others."""
    p_value: float
    """P-value of `doubted` at the rate of `doubted_real`; in results, the largest of any draw."""
    variety: float
    """How far pool images of a class lie apart, relative to as many real ones."""
    differing: float | None
    """Share of the classes that are shown to be distributed unlike the real ones; 0.05 by chance. None: no class has
    enough images for the test."""
    compared: float
    """Share of the real images that could be compared; with renderings, those that have one."""
    recognised: float | None
    """Share of the renderings that are nearest to their own real image. It falls if the strength is too high to keep
    content. None: there are no renderings."""


class SettingDiagnosis(Record):
    """One amount of real data."""

    amount: str
    real_per_class: float
    loss: Loss
    facts: ImageFacts | None
    accuracy: dict[str, Measured]
    """By arm."""
    missing: dict[str, str]
    """Arms that could not be made, and why."""
    sentence: str


class TableDiagnosis(Record):
    """Settings with pools of one origin."""

    origin: Origin
    generator: str
    settings: list[SettingDiagnosis]
    mean: Loss
    """Mean over all settings."""
    covers_real_images: bool
    """Whether the intervals of the whole loss and of the rest allow for other real images."""


class Advice(Record):
    """What to do next."""

    cause: Cause
    """The part of the loss. `none`: there is nothing to mend; `unclear`: no part is proven."""
    text: str


class DiagnoseResult(Document):
    """Result of `diagnose`, diagnosis.json."""

    oldest = 6

    verdict: str
    """The first table in words."""
    advice: list[Advice]
    """The most promising first."""
    tables: list[TableDiagnosis]
    """First the one whose generators have seen nothing but the real images of each setting, if there is one."""
    inputs: list[InputReport] = Field(default_factory=list)
    """The real images, synthetic sets that are given in place of a recipe, and the test set. Empty in files of earlier
    versions."""
    holdout: str
    holdout_images: int
    strength: float | None
    """Image-to-image strength with which real images were rendered. None: they were rendered elsewhere, or not at
    all."""
    trainer: dict[str, Any]
    draws: int
    seeds: int
    notes: list[str]
    trainings: int
    device: str
    seconds: float
    file: str | None = None
    schema_version: Literal[8] = 8

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Version 6 had advice without causes, another name for an arm, and three fields for each share."""
        if not isinstance(content, dict):
            return content
        if content.get("schema_version") == 7:  # without `inputs`
            return content | {"schema_version": 8}
        if content.get("schema") != 6:
            return content
        advice = [
            {"cause": next(cause for begin, cause in _ADVICE_OF_6.items() if text.startswith(begin)), "text": text}
            for text in content["advice"]
        ]
        tables = [_diagnosis_of_6(table) for table in content["tables"]]
        changed = {"advice": advice, "tables": tables, "schema_version": 8}
        return {name: value for name, value in content.items() if name != "schema"} | changed


# Files of the version before

_KINDS_OF_2: dict[str, Kind] = {
    "Adding synthetic images to real ones": "adding",
    "Training on synthetic images instead of real ones": "instead",
    "Training on curated synthetic images instead of real ones": "curated-instead",
    "Curation over random selection": "curation",
    "Curation over random selection, beside real images": "curation-beside-real",
    "More real images": "more-real",
    "Other real images instead": "other-real",
    "The same rule on real images, over random ones": "rule-on-real",
}
_INTERVALS_OF_2 = ("equivalent", "more_real", "others_per_real", "recovered")
_ADVICE_OF_6: dict[str, Cause] = {
    "Appearance:": "appearance",
    "Content:": "content",
    "Labels:": "labels",
    "Content and appearance": "interaction",
    "The unexplained rest": "rest",
    "Nothing to mend": "none",
    "": "unclear",
}
_ARMS_OF_6 = {"believed": "label-filtered"}


def in_new_names(by_arm: Mapping[str, Any]) -> dict[str, Any]:
    """Values by arm, whose names an earlier version may have written."""
    return {_ARMS_OF_6.get(arm, arm): value for arm, value in by_arm.items()}


def _table_of_2(table: dict[str, Any]) -> dict[str, Any]:
    def claim(content: dict[str, Any]) -> dict[str, Any]:
        return {**content, "kind": _KINDS_OF_2.get(content["what"], "pair")}

    def required(content: dict[str, Any]) -> dict[str, Any]:
        pair, _, amount = content["claim"]["what"].removesuffix(" real per class").partition(" with ")
        arm, _, against = pair.partition(" less ")
        return {**content, "arm": arm, "against": against, "amount": amount or None, "claim": {**content["claim"], "kind": "pair"}}

    settings = [
        {**one, "worth": {arm: _joined(worth, *_INTERVALS_OF_2) for arm, worth in one["worth"].items()}} for one in table["settings"]
    ]
    changed = {"claims": [*map(claim, table["claims"])], "required": [*map(required, table["required"])], "settings": settings}
    return {**table, **changed}


def _diagnosis_of_6(table: dict[str, Any]) -> dict[str, Any]:
    def loss(content: dict[str, Any]) -> dict[str, Any]:
        parts = {name: _joined(part, "share") for name, part in content["parts"].items()}
        return {"whole": _joined(content["whole"], "share"), "parts": parts}

    def setting(content: dict[str, Any]) -> dict[str, Any]:
        renamed = {field: in_new_names(content[field]) for field in ("accuracy", "missing")}
        return {**content, **renamed, "loss": loss(content["loss"])}

    return {**table, "mean": loss(table["mean"]), "settings": [setting(one) for one in table["settings"]]}


def _joined(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """Join `x`, `x_low` and `x_high` into one figure."""
    joined = {name: value for name, value in content.items() if name.removesuffix("_low").removesuffix("_high") not in names}
    for name in names:
        value, low, high = content[name], content[f"{name}_low"], content[f"{name}_high"]
        joined[name] = {"value": value, "low": low, "high": high} if value is not None else None
    return joined
