"""A reader's questions, answered from results."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

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
from synthforge.reporting.answers import Answer, answers_of
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
    lost = told["What is lost by training on random synthetic images instead of real ones?"]
    assert lost.figure == "10.0 points"
    assert "proven on average; -15.0 with 5, -5.0 with 20 real images per class. Curated ones: -4.0" in lost.text
    assert "-7.0 with 5, -1.0 with 20 real images per class" in lost.text
    assert "+8.0 with 5, +4.0 with 20" in told["What does curation win back, against a random choice?"].text


def test_without_random_images_what_curated_ones_lose_is_told() -> None:
    told = answered([setting(5, {("curated", "real"): -0.07})], claim("curated-instead", -0.07))
    (lost,) = told.values()
    assert lost.question == "What is lost by training on curated synthetic images instead of real ones?"
    assert lost.figure == "7.0 points" and "with 5 real images per class" in lost.text


def test_where_a_claim_has_other_comparisons_too_they_are_not_listed_as_all() -> None:
    settings = [setting(number, {("curated", "random"): 0.02, ("other", "random"): -0.02}) for number in (5, 20)]
    (won,) = answered(settings, claim("curation", 0.02, -0.02, 0.02, -0.02)).values()
    assert won.text.endswith("may be chance on average; with 5, 20 real images per class, single ones from -2.0 to +2.0")


def test_amounts_of_synthetic_images_are_named_where_there_are_several() -> None:
    settings = [setting(5, {("real+curated", "real"): 0.0}, 1), setting(5, {("real+curated", "real"): 0.0}, 4, curated=3.0)]
    told = answered(settings, claim("adding", 0.0, 0.0))
    worth = told["What is one more real image worth, in synthetic ones?"]
    assert "with 5 (4 for each) real per class 3 [1.5, 6]" in worth.text
    assert "With 5 (1 for each) it can't be told" in worth.text
    assert "with 5 (1 for each), 5 (4 for each) real images per class" in told["Do they help when added to the real images?"].text


def test_parts_that_are_proven_are_named_and_the_rest_alone_is_no_cause() -> None:
    def figure(whole: LossVerdict, **verdicts: LossVerdict) -> str:
        told = answered([setting(5, {})], found=diagnosis("rest", whole, **verdicts))
        return told["Why do synthetic images fall short?"].figure

    assert figure("loss", labels="loss", appearance="loss") == "appearance and wrong labels"
    assert figure("loss", rest="loss") == "not told apart"
    assert figure("loss") == "not told apart"
    assert figure("cannot tell") == "no loss proven"
    assert figure("gain", labels="loss") == "no loss proven"


@pytest.mark.parametrize(
    ("use", "advice", "begins"),
    [
        ("nowhere", "rest", "For now train on real images alone. The"),
        ("everywhere", "rest", "The"),
        ("nowhere", "none", "Synthetic images do"),
    ],
)
def test_the_advice_goes_with_whether_adding_them_helps(use: Use, advice: Cause, begins: str) -> None:
    told = answered([setting(5, {("real+curated", "real"): 0.0})], use=use, found=diagnosis(advice))
    assert told["What to do next?"].text.startswith(begins)
