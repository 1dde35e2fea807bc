"""A reader's questions, answered from results as their files have them."""

from __future__ import annotations

from typing import Any

import pytest

from synthforge.evaluation.diagnosis.words import _ADVICE
from synthforge.evaluation.results.words import ADDING, CURATED_INSTEAD, CURATION, INSTEAD
from synthforge.reporting.answers import NEXT, Answer, answers_of


def measured(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def claim(what: str, *values: float) -> dict[str, Any]:
    mean = sum(values) / len(values)
    verdict = "helped" if mean > 0.01 else "hurt" if mean < -0.01 else "cannot tell"
    span = {"comparisons": len(values), "lowest": min(values), "highest": max(values)}
    return {"what": what, "difference": measured(mean), "verdict": verdict, **span}


def setting(per_class: float, pairs: dict[tuple[str, str], float], ratio: float = 1.0, **worth: float) -> dict[str, Any]:
    comparisons = [{"arm": arm, "against": against, "difference": measured(value)} for (arm, against), value in pairs.items()]
    rates = {
        name: {"others_per_real": rate, "others_per_real_low": rate / 2, "others_per_real_high": 2 * rate, "high_is_end": False}
        for name, rate in worth.items()
    }
    return {"real_per_class": per_class, "synthetic_per_real": ratio, "comparisons": comparisons, "worth": rates}


def answered(
    settings: list[dict[str, Any]], *claims: dict[str, Any], use: str = "no proof", advice: str | None = None
) -> dict[str, Answer]:
    evaluation = {"tables": [{"settings": settings, "claims": list(claims), "origin": "own"}], "use": use}
    part = {"verdict": "none", "loss": measured(0.0)}
    mean = {"whole": part, "parts": dict.fromkeys(("appearance", "content", "labels", "interaction", "rest"), part)}
    diagnosis = {"tables": [{"mean": mean, "settings": settings, "covers_real_images": True}], "advice": [advice], "draws": 1}
    return {one.question: one for one in answers_of(evaluation, None, diagnosis if advice is not None else None)}


def test_random_and_curated_losses_are_told_apart_by_amount() -> None:
    settings = [
        setting(number, {("random", "real"): random, ("curated", "real"): curated, ("curated", "random"): curated - random})
        for number, random, curated in [(5, -0.15, -0.07), (20, -0.05, -0.01)]
    ]
    told = answered(settings, claim(INSTEAD, -0.15, -0.05), claim(CURATED_INSTEAD, -0.07, -0.01), claim(CURATION, 0.08, 0.04))
    lost = told["What is lost by training on random synthetic images instead of real ones?"]
    assert lost.figure == "10.0 points"
    assert "proven on average; -15.0 with 5, -5.0 with 20 real images per class. Curated ones: -4.0" in lost.text
    assert "-7.0 with 5, -1.0 with 20 real images per class" in lost.text
    assert "+8.0 with 5, +4.0 with 20" in told["What does curation win back, against a random choice?"].text


def test_without_random_images_what_curated_ones_lose_is_told() -> None:
    told = answered([setting(5, {("curated", "real"): -0.07})], claim(CURATED_INSTEAD, -0.07))
    (lost,) = told.values()
    assert lost.question == "What is lost by training on curated synthetic images instead of real ones?"
    assert lost.figure == "7.0 points" and "with 5 real images per class" in lost.text


def test_where_a_claim_has_other_comparisons_too_they_are_not_listed_as_all() -> None:
    settings = [setting(number, {("curated", "random"): 0.02, ("other", "random"): -0.02}) for number in (5, 20)]
    (won,) = answered(settings, claim(CURATION, 0.02, -0.02, 0.02, -0.02)).values()
    assert won.text.endswith("may be chance on average; with 5, 20 real images per class, single ones from -2.0 to +2.0")


def test_amounts_of_synthetic_images_are_named_where_there_are_several() -> None:
    settings = [setting(5, {("real+curated", "real"): 0.0}, 1), setting(5, {("real+curated", "real"): 0.0}, 4, curated=3.0)]
    told = answered(settings, claim(ADDING, 0.0, 0.0))
    worth = told["What is one more real image worth, in synthetic ones?"]
    assert "with 5 (4 for each) real per class 3 [1.5, 6]" in worth.text
    assert "With 5 (1 for each) it can't be told" in worth.text
    assert "with 5 (1 for each), 5 (4 for each) real images per class" in told["Do they help when added to the real images?"].text


@pytest.mark.parametrize("advice", _ADVICE.values())
def test_every_advice_has_a_short_form(advice: str) -> None:
    assert any(advice.startswith(begin) for begin in NEXT)


@pytest.mark.parametrize(
    ("use", "advice", "begins"),
    [
        ("nowhere", "rest", "For now train on real images alone. The"),
        ("everywhere", "rest", "The"),
        ("nowhere", "none", "Synthetic images do"),
    ],
)
def test_the_advice_goes_with_whether_adding_them_helps(use: str, advice: str, begins: str) -> None:
    told = answered([setting(5, {("real+curated", "real"): 0.0})], use=use, advice=_ADVICE[advice])
    assert told["What to do next?"].text.startswith(begins)
