"""A reader's questions, answered from results; figures as short texts."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from synthforge.curation.result import Distance
from synthforge.evaluation.diagnosis.words import ADVICE
from synthforge.evaluation.results.types import (
    PARTS,
    Advice,
    Cause,
    Claim,
    DiagnoseResult,
    Kind,
    Loss,
    LossPart,
    LossVerdict,
    SettingDiagnosis,
    SettingResult,
    TableDiagnosis,
    Use,
)
from synthforge.reporting.answers import Answer, answers_of, distance, part_of_loss
from synthforge.statistics import Measured
from tests.evaluation.results import made
from tests.evaluation.results.made import measured


def claim(kind: Kind, *values: float) -> Claim:
    return made.claim(kind, kind, *values)


def setting(per_class: float, pairs: dict[tuple[str, str], float], ratio: float = 1.0, **worth: float) -> SettingResult:
    comparisons = [made.comparison(*pair, value=value) for pair, value in pairs.items()]
    return made.setting(comparisons, per_class=per_class, ratio=ratio, **worth)


def diagnosis(cause: Cause, whole: LossVerdict = "none", **verdicts: LossVerdict) -> DiagnoseResult:
    """One amount, of which all parts are of one point; `none` unless another verdict is given."""
    parts = {name: LossPart(loss=measured(0.01), verdict=verdicts.get(name, "none")) for name in PARTS}
    loss = Loss(whole=LossPart(loss=measured(0.03), verdict=whole), parts=parts)
    amount = SettingDiagnosis(amount="5", real_per_class=5.0, loss=loss, facts=None, accuracy={}, missing={}, sentence="")
    table = TableDiagnosis(origin="own", generator="", settings=[amount], mean=loss, covers_real_images=True)
    return DiagnoseResult(
        verdict="",
        advice=[Advice(cause=cause, text=ADVICE[cause])],
        tables=[table],
        holdout="holdout",
        holdout_images=100,
        strength=None,
        trainer={},
        draws=1,
        seeds=2,
        notes=[],
        trainings=4,
        device="cpu",
        seconds=1.0,
    )


def answered(
    settings: Sequence[SettingResult], *claims: Claim, use: Use = "no proof", found: DiagnoseResult | None = None
) -> dict[str, Answer]:
    evaluation = made.evaluation(made.table(settings, claims), use=use)
    return {one.question: one for one in answers_of(evaluation, None, found)}


def test_random_and_curated_losses_are_told_apart_by_amount() -> None:
    settings = [
        setting(number, {("random", "real"): random, ("curated", "real"): curated, ("curated", "random"): curated - random})
        for number, random, curated in [(5, -0.15, -0.07), (20, -0.05, -0.01)]
    ]
    told = answered(settings, claim("instead", -0.15, -0.05), claim("curated-instead", -0.07, -0.01), claim("curation", 0.08, 0.04))
    lost = told["How much accuracy is lost if random synthetic images replace the real ones?"]
    assert lost.figure == "10.0 points of accuracy"
    assert "By amount of real data: -15.0 with 5 and -5.0 with 20 real images per class. With curated images: -4.0" in lost.text
    assert "-7.0 with 5 and -1.0 with 20 real images per class" in lost.text
    assert "+8.0 with 5 and +4.0 with 20" in told["Is training on curated images better than on random ones?"].text


def test_without_random_images_what_curated_ones_cost_is_told() -> None:
    told = answered([setting(5, {("curated", "real"): -0.07})], claim("curated-instead", -0.07))
    (lost,) = told.values()
    assert lost.question == "How much accuracy is lost if curated synthetic images replace the real ones?"
    assert lost.figure == "7.0 points of accuracy" and "with 5 real images per class" in lost.text


def test_where_a_claim_has_other_comparisons_too_they_are_not_listed_as_all() -> None:
    settings = [setting(number, {("curated", "random"): 0.02, ("other", "random"): -0.02}) for number in (5, 20)]
    (won,) = answered(settings, claim("curation", 0.02, -0.02, 0.02, -0.02)).values()
    assert won.text.endswith("(too imprecise to tell). Measured with 5 and 20 real images per class: from -2.0 to +2.0 points.")


def test_amounts_of_synthetic_images_are_named_where_there_are_several() -> None:
    settings = [setting(5, {("real+curated", "real"): 0.0}, 1), setting(5, {("real+curated", "real"): 0.0}, 4, curated=3.0)]
    told = answered(settings, claim("adding", 0.0, 0.0))
    worth = told["How many synthetic images replace one real image?"]
    assert "3 [1.5, 6] with 5 (and 4 synthetic per real image) real images per class" in worth.text
    assert "No figure with 5 (and 1 synthetic per real image)" in worth.text
    assert (
        "+0.0 with 5 (and 1 synthetic per real image) and +0.0 with 5 (and 4 synthetic per real image)"
        in told["Do synthetic images help when added to real ones?"].text
    )


def test_parts_that_are_proven_are_named_and_the_rest_alone_is_no_cause() -> None:
    def figure(whole: LossVerdict, **verdicts: LossVerdict) -> str:
        told = answered([setting(5, {})], found=diagnosis("rest", whole, **verdicts))
        return told["Why do synthetic images cost accuracy?"].figure

    assert figure("loss", labels="loss", appearance="loss") == "appearance, wrong labels"
    assert figure("loss", rest="loss") == "unexplained"
    assert figure("loss") == "unexplained"
    assert figure("cannot tell") == "no significant loss"
    assert figure("none") == "no relevant loss"
    assert figure("gain", labels="loss") == "no loss"


@pytest.mark.parametrize(
    ("use", "advice", "begins"),
    [
        ("nowhere", "rest", "For now, train on real images only. Collect"),
        ("everywhere", "rest", "Collect"),
        ("nowhere", "none", "Synthetic images can replace"),
    ],
)
def test_the_advice_goes_with_whether_adding_them_helps(use: Use, advice: Cause, begins: str) -> None:
    told = answered([setting(5, {("real+curated", "real"): 0.0})], use=use, found=diagnosis(advice))
    assert told["What should you do next?"].text.startswith(begins)


def test_a_part_of_the_loss_has_a_unit_and_an_interval_if_it_was_measured() -> None:
    loss = Measured(value=0.031, low=0.012, high=0.05)
    assert part_of_loss(LossPart(loss=loss, verdict="loss")) == "3.1 points [1.2, 5.0]"
    assert part_of_loss(LossPart(loss=None, verdict="not shown")) == "no measurable difference"
    assert part_of_loss(LossPart(loss=None, verdict="not measured")) == ""


def test_a_distance_is_told_as_far_as_it_is_known() -> None:
    known = Distance(value=0.12345, low=0.1, high=0.2, n=10, over="images")
    assert distance(known) == "0.123 [0.1, 0.2]"
    assert distance(known.model_copy(update={"low": None, "high": None})) == "0.123"
    assert distance(known.model_copy(update={"value": None})) == "unknown"
