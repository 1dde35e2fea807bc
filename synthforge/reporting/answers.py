"""What the page says first: whether to use the images, and a reader's questions, each answered in a sentence with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthforge.curation.result import CurateResult
from synthforge.evaluation.results.types import (
    Advice,
    Cause,
    DiagnoseResult,
    EvaluateResult,
    Kind,
    PartName,
    SettingResult,
    TableDiagnosis,
    TableResult,
    Use,
)
from synthforge.evaluation.results.words import points
from synthforge.reporting.figures import part_of_loss
from synthforge.statistics import Word

TITLES: dict[PartName, str] = {
    "appearance": "appearance",
    "content": "content",
    "labels": "wrong labels",
    "interaction": "interaction",
    "rest": "the rest",
}
"""Of the parts of a loss."""
Tone = Literal["good", "bad", "unsure"]


@dataclass(frozen=True)
class Answer:
    """To one question."""

    question: str
    figure: str
    """Large."""
    text: str
    """The interval, and what it means."""
    tone: Tone
    """For the colour."""


def headline_of(evaluation: EvaluateResult | None) -> str:
    """Whether to use the images, in one sentence."""
    if evaluation is None or (table := evaluation.first) is None:
        return "Not measured yet: whether these images help is not known."
    claim = table.claim("adding")
    if claim is None:
        return "Whether these images help beside real ones was not measured."
    told = f"added to the real ones, {points(claim.difference)} points of accuracy"
    words: dict[Use, str] = {
        "everywhere": f"Use the synthetic images: {told}.",
        "where they helped": f"Use the synthetic images where they helped, and only there: {told} on average.",
        "nowhere": f"Don’t bother with synthetic images: {told}.",
        "no proof": f"No proof that synthetic images are worth it: {told}.",
        "not measured": f"Not told: {told}.",
    }
    short = any(not setting.has_enough_steps for setting in table.settings)
    notes = ["The generator may have seen more real images."] * (table.origin != "own")
    notes += ["But the trainings were short: more steps still change this."] * short
    return " ".join([words[evaluation.use], *notes])


def answers_of(evaluation: EvaluateResult | None, curation: CurateResult | None, diagnosis: DiagnoseResult | None) -> list[Answer]:
    """As far as results are there."""
    table = evaluation.first if evaluation is not None else None
    found: list[Answer | None] = []
    if table is not None:
        found += [
            _of_claim(table, "adding", "Do they help when added to the real images?", sign=1),
            _of_claim(table, "instead", "What is lost by training on random synthetic images instead of real ones?", sign=-1)
            or _of_claim(table, "curated-instead", "What is lost by training on curated synthetic images instead of real ones?", sign=-1),
            _of_claim(table, "curation", "What does curation win back, against a random choice?", sign=1),
        ]
    if diagnosis is not None and diagnosis.tables:
        found.append(_of_diagnosis(diagnosis.tables[0], diagnosis.draws))
    if table is not None:
        found.append(_of_worth(table))
    if diagnosis is not None and diagnosis.advice:
        found.append(_of_advice(diagnosis.advice[0], evaluation.use if evaluation is not None else "not measured"))
    if table is None and curation is not None:
        found.append(Answer("Is the curated set nearer to the real images?", f"{curation.kept:,} kept", curation.sentence, "unsure"))
    return [answer for answer in found if answer is not None]


_TONES: dict[Word, Tone] = {"helped": "good", "hurt": "bad", "did not help": "bad", "cannot tell": "unsure"}
_HOW_SURE: dict[Word, str] = {
    "helped": "proven",
    "hurt": "proven",
    "did not help": "no gain worth naming",
    "cannot tell": "may be chance",
}


def _of_claim(table: TableResult, kind: Kind, question: str, sign: int) -> Answer | None:
    claim = table.claim(kind)
    if claim is None:
        return None
    value = 100 * claim.difference.value
    figure = f"{value:+.1f} points"
    if sign < 0:  # asked for a loss
        figure = f"{abs(value):.1f} points" if value < 0 else f"nothing: {figure}"
    mean = _HOW_SURE[claim.verdict] + (" on average" if claim.comparisons > 1 else "")
    text = f"{points(claim.difference)} points of accuracy, {mean}; {_by_amount(table, kind)}"
    if kind == "instead" and (curated := table.claim("curated-instead")) is not None:
        text += f". Curated ones: {points(curated.difference)}; {_by_amount(table, 'curated-instead')}"
    return Answer(question, figure, text, _TONES[claim.verdict])


_PAIRS: dict[Kind, tuple[str, str]] = {
    "instead": ("random", "real"),
    "curated-instead": ("curated", "real"),
    "curation": ("curated", "random"),
}


def _by_amount(table: TableResult, kind: Kind) -> str:
    """The differences that a claim is the mean of, by the amount of real data; where there are others besides, their span."""
    claim, settings = table.claim(kind), table.settings
    assert claim is not None
    found = [
        f"{100 * one.difference.value:+.1f} with {_amount(setting, table)}"
        for setting in settings
        for one in setting.comparisons
        if (one.arm, one.against) == _PAIRS.get(kind)
    ]
    if len(found) == claim.comparisons > 1:
        return f"{', '.join(found)} real images per class"
    span = f", single ones from {100 * claim.lowest:+.1f} to {100 * claim.highest:+.1f}" if claim.comparisons > 1 else ""
    return f"with {', '.join(_amount(setting, table) for setting in settings)} real images per class{span}"


def _amount(setting: SettingResult, table: TableResult) -> str:
    """Of real data; with that of synthetic images where there are several."""
    is_one = len({one.synthetic_per_real for one in table.settings}) == 1
    return f"{setting.real_per_class:g}" + ("" if is_one else f" ({setting.synthetic_per_real:g} for each)")


def _of_diagnosis(table: TableDiagnosis, draws: int) -> Answer:
    whole, parts = table.mean.whole, table.mean.parts
    assert whole.loss is not None  # a table has real and random images
    amounts = ", ".join(f"{setting.real_per_class:g}" for setting in table.settings)
    told = [
        f"{TITLES[name]} {told}"
        for name, part in parts.items()
        if (told := part_of_loss(part)) and (name, part.verdict) != ("interaction", "not shown")  # content says it
    ]
    missing = [TITLES[name] for name, part in parts.items() if not part_of_loss(part)]
    shown = table.mean.shown if whole.verdict not in {"none", "gain"} else {}
    figure = " and ".join(TITLES[name] for name in shown)
    if shown.keys() == {"rest"}:
        figure = "mostly unexplained" if shown["rest"].value > whole.loss.value / 2 else "not told apart"
    elif not shown:
        figure = "not told apart" if whole.verdict == "loss" else "no loss proven"
    unknown = f"; not measured: {', '.join(missing)}" if missing else ""
    lost = f"{100 * whole.loss.value:.1f} points"
    text = f"of the {lost} that random ones lose with {amounts} real per class: {', '.join(told)}{unknown}"
    if whole.verdict == "cannot tell" and table.covers_real_images and draws == 1:
        text += "; other real images are allowed for, with which it may be no loss"
    return Answer("Why do synthetic images fall short?", figure, text, "bad" if shown else "unsure")


NEXT: dict[Cause, str] = {
    "appearance": "a better generator",
    "content": "curate, from a larger pool",
    "labels": "mind the labels",
    "interaction": "curate first",
    "rest": "more real images",
    "none": "nothing to mend",
    "unclear": "measure more",
}
"""An advice in few words."""


def _of_advice(advice: Advice, use: Use) -> Answer:
    """The first one, and what follows from whether adding them helps."""
    text = advice.text
    if advice.cause == "none" and use != "not measured":
        text = "Synthetic images do in place of real ones, as far as was measured. Whether to add them to these is said above."
    elif use in {"nowhere", "no proof"}:
        text = f"For now train on real images alone. {text}"
    return Answer("What to do next?", NEXT[advice.cause], text, "unsure")


def _of_worth(table: TableResult) -> Answer | None:
    """The rates of the first arm that has one, at every amount of real data."""
    question = "What is one more real image worth, in synthetic ones?"
    measured = [name for name in ("curated", "random") if any(name in setting.worth for setting in table.settings)]
    if not measured:
        return None
    for name in measured:
        told, rates, others = [], [], []
        for setting in table.settings:
            one, amount = setting.worth.get(name), _amount(setting, table)
            if one is None or one.others_per_real is None:
                others.append(amount)
                continue
            rate = one.others_per_real
            fewer = " or fewer" if one.high_is_end else ""
            told.append(f"with {amount} real per class {rate.value:.3g} [{rate.low:.3g}{fewer}, {rate.high:.3g}]")
            rates.append(f"{rate.value:.2g}")
        if told:
            figure = f"{' to '.join(dict.fromkeys((min(rates, key=float), max(rates, key=float))))} {name} ones"
            text = f"So many {name} synthetic images replace one real image: {', '.join(told)}"
            if others:
                text += (
                    f". With {', '.join(others)} it can't be told: no number of real images that was tried has their accuracy, or more of "
                    "these are no better there"
                )
            return Answer(question, figure, text, "unsure")
    return Answer(
        question, "not told", "the real learning curve begins or ends before it tells; evaluation.curve can name more amounts", "unsure"
    )
