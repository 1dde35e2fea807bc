"""What an evaluation and a diagnosis found, as evaluation.json and diagnosis.json hold it; no heavy import.

Decisions are made on codes (verdicts, kinds of claims, causes); texts are for people alone.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from synthforge.data.layout import Document, Record
from synthforge.statistics import Measured, Over, Word

Origin = Literal["own", "elsewhere"]
"""Of pools: made by generators that have seen nothing but the real images of each setting, or by others."""
ORIGINS: tuple[Origin, ...] = get_args(Origin)
Kind = Literal[
    "adding", "instead", "curated-instead", "curation", "curation-beside-real", "more-real", "other-real", "rule-on-real", "pair"
]
"""What a comparison is about, such as adding synthetic images to real ones; `pair` is two arms that stand for nothing else."""
Use = Literal["everywhere", "where they helped", "nowhere", "no proof", "not measured"]
PartName = Literal["appearance", "content", "labels", "interaction", "rest"]
PARTS: tuple[PartName, ...] = get_args(PartName)
"""In the order in which they are told."""
LossVerdict = Literal["loss", "gain", "none", "cannot tell", "not shown", "not measured"]
Cause = Literal["appearance", "content", "labels", "interaction", "rest", "none", "unclear"]


# An evaluation


class ArmScore(Record):
    """What one arm is worth on the holdout."""

    arm: str
    images: int
    """In its training set, the mean over draws and seeds."""
    accuracy: Measured
    interval_over: Over
    recall: dict[str, Measured]
    """Accuracy on the holdout images of each class."""
    calibration_error: float
    """Mean over trainings."""
    log_loss: float
    draws: int
    seeds: int


class Comparison(Record):
    """One arm less another, paired by draw, seed and holdout image."""

    arm: str
    against: str
    difference: Measured
    p_adjusted: float
    """For all comparisons of its table together (Holm)."""
    verdict: Word
    draws_needed: int | None
    """Of `cannot tell`: draws, or with a single draw seeds, that would tell; None if none would, with these holdout images, and of one
    training, which tells nothing of others."""
    interval_over: Over
    by_class: dict[str, Measured]
    """Difference of recall of each class; these intervals are not corrected for their number."""
    steps_change: Measured | None = None
    """What twice the steps add to the difference, of one seed in each draw; None with a single draw, or where it was not measured."""


class Claim(Record):
    """What all comparisons of one kind tell together, such as curation over random selection at every amount of real data."""

    kind: Kind
    what: str
    """The kind in words; of a pair its arms."""
    comparisons: int
    difference: Measured
    """Mean over them."""
    lowest: float
    """Of their differences, and the highest."""
    highest: float
    p_adjusted: float
    """For all claims of the table together (Holm)."""
    verdict: Word
    draws_needed: int | None
    interval_over: Over


class RequiredClaim(Record):
    """What was found of a comparison that --require asked for."""

    arm: str
    against: str
    amount: str | None
    """Of real data; None for all together."""
    claim: Claim
    """Corrected for the other requirements alone, since they were asked beforehand."""
    hurts_at: list[str]
    """Amounts of real data at which the arm is proven to hurt; corrected for these alone."""


class Worth(Record):
    """Of how many real images an arm is."""

    arm: str
    equivalent: Measured
    """Real images of each class that give this accuracy, by the real learning curve."""
    low_is_end: bool
    """The interval begins where the curve does: the number may be lower."""
    high_is_end: bool
    """It ends where the curve does: the number may be higher."""
    at_least: bool
    """It reaches the end of the curve: the number is a lower bound."""
    at_most: bool
    """It lies below the beginning of the curve."""
    more_real: Measured
    """`equivalent` less the real images of the arm: how many more its other images are worth."""
    others_per_real: Measured | None
    """How many of the arm's other images give what one more real image does; None where they may give nothing, or the curve ends."""
    recovered: Measured | None
    """Share of what as many more real images would have gained, and for `curated` alone of what random images lose to as many real ones;
    None where that is not known to be a gain, or was not measured."""


class SettingResult(Record):
    """One row of a table: an amount of real data with so many synthetic images for each."""

    amount: str
    real_per_class: float
    synthetic_per_real: float
    budget: int
    """Every real image that anything behind the arms has seen, but for `more` ones and what came with weights from elsewhere."""
    arms: dict[str, ArmScore]
    comparisons: list[Comparison]
    worth: dict[str, Worth]
    steps_check: dict[str, Measured]
    """Accuracy after twice the steps less that after the steps of the evaluation, by arm; of one seed in each draw."""
    steps_check_mean: Measured | None
    """The same over all arms."""
    has_enough_steps: bool
    """Nothing shows that accuracy moves by more than the margin with twice the steps; true also where that was not measured."""
    sentence: str
    missing: dict[str, str]
    """Arms that could not be made, and why."""


class TableResult(Record):
    """Settings whose pools are of one origin."""

    origin: Origin
    generator: str
    settings: list[SettingResult]
    claims: list[Claim]
    """What comparisons of a kind tell together, over all settings."""
    required: list[RequiredClaim] = Field(default_factory=list)
    """Of the comparisons that --require asked for, apart from all others."""

    @property
    def compares(self) -> bool:
        """Whether anything is compared."""
        return any(setting.comparisons for setting in self.settings)

    def claim(self, kind: Kind) -> Claim | None:
        """What it claims of a kind of comparisons; None if it has none."""
        return next((claim for claim in self.claims if claim.kind == kind), None)


class CurvePoint(Record):
    """Real only, with so many images of each class."""

    amount: str
    real_per_class: float
    accuracy: Measured


class TunedResult(Record):
    """What the search on validation data chose for one draw of real images."""

    amount: str
    draw: int
    chosen: dict[str, Any]
    on: str
    """What it was scored on."""
    scores: dict[str, float]
    """Mean log-probability of the true class of each candidate."""


class EvaluateResult(Document):
    """What `evaluate` found; evaluation.json."""

    oldest = 2

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
    """Images left out because they copy a holdout image, by source."""
    notes: list[str]
    trainings: int
    device: str
    seconds: float
    """Since draws were prepared: what was left of the tuning, arms and figures."""
    file: str | None = None
    requirements: dict[str, bool] = Field(default_factory=dict)
    """What --require asked for, and whether it holds."""
    use: Use = "not measured"
    """Where synthetic images are worth adding to real ones, by the first table that compares anything."""
    schema_version: Literal[3] = 3

    @property
    def first(self) -> TableResult | None:
        """The first table that compares anything."""
        return next((table for table in self.tables if table.compares), None)

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Version 2 had claims without codes, and three fields for each interval of what arms are worth."""
        if not isinstance(content, dict) or content.get("schema") != 2:
            return content
        tables = [_table_of_2(table) for table in content["tables"]]
        return {name: value for name, value in content.items() if name != "schema"} | {"tables": tables, "schema_version": 3}


# A diagnosis


class LossPart(Record):
    """Some of the accuracy that is lost."""

    loss: Measured | None
    """None where it was not measured, or nothing is shown."""
    verdict: LossVerdict
    """`none`: a loss of the margin or more is ruled out; `not shown`: the images can't be shown to differ in this, so nothing was trained
    for it, and what there may be is in the rest."""
    share: Measured | None = None
    """Of the whole loss; None where that can't be told from 0, for then shares have no bounds."""


class Loss(Record):
    """The accuracy that is lost by training on random synthetic images instead of as many real ones, and its parts."""

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
    """What can be said of the images without training on them, mean over draws."""

    doubted: float
    """Share of the pool's images that don't look like their class."""
    doubted_real: float
    """Of the real images, each judged by the others."""
    p_value: float
    """Of the pool's share by chance, the largest of any draw."""
    variety: float
    """How far pool images of a class lie apart, over how far as many real ones do."""
    differing: float | None
    """Share of the classes whose images are shown to be distributed otherwise than the real ones; 0.05 of them are by chance. None if no
    class has images enough to tell."""
    compared: float
    """Share of the real images that could be compared, and have a rendering where any have."""
    recognised: float | None
    """Share of the rendered images that are nearest to the real image that they started from; None where none were rendered."""


class SettingDiagnosis(Record):
    """One amount of real data."""

    amount: str
    real_per_class: float
    loss: Loss
    facts: ImageFacts | None
    accuracy: dict[str, Measured]
    """Of each arm."""
    missing: dict[str, str]
    """Arms that could not be made, and why."""
    sentence: str


class TableDiagnosis(Record):
    """Settings whose pools are of one origin."""

    origin: Origin
    generator: str
    settings: list[SettingDiagnosis]
    mean: Loss
    """Over all settings."""
    covers_real_images: bool
    """Whether the intervals of the whole loss and of the rest allow for other real images."""


class Advice(Record):
    """What to do next."""

    cause: Cause
    """The part of the loss that it is about; `none` where there is nothing to mend, `unclear` where no part is proven."""
    text: str


class DiagnoseResult(Document):
    """What `diagnose` found; diagnosis.json."""

    oldest = 6

    verdict: str
    """In words, of the first table."""
    advice: list[Advice]
    """The most promising first."""
    tables: list[TableDiagnosis]
    """First the one whose generators have seen nothing but the real images of each setting, if there is one."""
    holdout: str
    holdout_images: int
    strength: float | None
    """Of real guidance, with which real images were rendered; None where that was done elsewhere, or not at all."""
    trainer: dict[str, Any]
    draws: int
    seeds: int
    notes: list[str]
    trainings: int
    device: str
    seconds: float
    file: str | None = None
    schema_version: Literal[7] = 7

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Version 6 had advice without its cause, an arm of another name, and three fields for each interval of a share."""
        if not isinstance(content, dict) or content.get("schema") != 6:
            return content
        advice = [
            {"cause": next(cause for begin, cause in _ADVICE_OF_6.items() if text.startswith(begin)), "text": text}
            for text in content["advice"]
        ]
        tables = [_diagnosis_of_6(table) for table in content["tables"]]
        changed = {"advice": advice, "tables": tables, "schema_version": 7}
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


def _table_of_2(table: dict[str, Any]) -> dict[str, Any]:
    def claim(found: dict[str, Any]) -> dict[str, Any]:
        return {**found, "kind": _KINDS_OF_2.get(found["what"], "pair")}

    def required(found: dict[str, Any]) -> dict[str, Any]:
        pair, _, amount = found["claim"]["what"].removesuffix(" real per class").partition(" with ")
        arm, _, against = pair.partition(" less ")
        return {**found, "arm": arm, "against": against, "amount": amount or None, "claim": {**found["claim"], "kind": "pair"}}

    settings = [
        {**one, "worth": {arm: _joined(worth, *_INTERVALS_OF_2) for arm, worth in one["worth"].items()}} for one in table["settings"]
    ]
    changed = {"claims": [*map(claim, table["claims"])], "required": [*map(required, table["required"])], "settings": settings}
    return {**table, **changed}


def _diagnosis_of_6(table: dict[str, Any]) -> dict[str, Any]:
    def loss(found: dict[str, Any]) -> dict[str, Any]:
        parts = {name: _joined(part, "share") for name, part in found["parts"].items()}
        return {"whole": _joined(found["whole"], "share"), "parts": parts}

    def setting(found: dict[str, Any]) -> dict[str, Any]:
        renamed = {field: {_ARMS_OF_6.get(arm, arm): value for arm, value in found[field].items()} for field in ("accuracy", "missing")}
        return {**found, **renamed, "loss": loss(found["loss"])}

    return {**table, "mean": loss(table["mean"]), "settings": [setting(one) for one in table["settings"]]}


def _joined(content: dict[str, Any], *names: str) -> dict[str, Any]:
    """With one figure in place of `x`, `x_low` and `x_high`."""
    found = {name: value for name, value in content.items() if name.removesuffix("_low").removesuffix("_high") not in names}
    for name in names:
        value, low, high = content[name], content[f"{name}_low"], content[f"{name}_high"]
        found[name] = {"value": value, "low": low, "high": high} if value is not None else None
    return found
