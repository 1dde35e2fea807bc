"""Results in a few words: the headline (whether to use the images), cards of one question each, table cells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from synthforge.curation.result import CurateResult, Distance
from synthforge.evaluation.results import types
from synthforge.evaluation.results.words import USES, change, listed, lost
from synthforge.recipe.curation import Regime
from synthforge.statistics import Word

REGIMES: dict[Regime, str] = {"s2r": "training on synthetic images alone", "da": "training on synthetic and real images together"}
"""What a curated set is for."""
TITLES: dict[types.PartName, str] = {
    "appearance": "appearance",
    "content": "content",
    "labels": "wrong labels",
    "interaction": "interaction",
    "rest": "unexplained",
}
"""Names of the parts of a loss."""
Tone = Literal["good", "bad", "unsure"]


def part_of_loss(part: types.LossPart) -> str:
    """One part of a loss decomposition, such as "1.4 points [-0.6, 3.4]"; empty if it was not measured."""
    return lost(part.loss, "points") if part.loss is not None else "no measurable difference" if part.verdict == "not shown" else ""


def distance(one: Distance) -> str:
    """A distance with its 95 % interval, as far as it is known."""
    if one.value is None:
        return "unknown"
    return f"{one.value:.3g}" + (f" [{one.low:.3g}, {one.high:.3g}]" if one.low is not None else "")


@dataclass(frozen=True)
class Answer:
    """One card."""

    question: str
    figure: str
    """Short and large: the figure or word that answers the question."""
    text: str
    """The interval, and the figures behind it."""
    tone: Tone
    """Decides the card's colour."""


def headline_of(evaluation: types.EvaluateResult | None) -> str:
    """Whether to use the images, in one to three sentences."""
    if evaluation is None or (table := evaluation.first) is None:
        return "Not evaluated yet: it is unknown whether these images help."
    claim = table.claim("adding")
    if claim is None:
        return "It was not measured whether these images help when they are added to real ones."
    sentences = [f"{USES[evaluation.use]}: accuracy changes by {_mean_change(claim)}."]
    if table.origin != "own":
        sentences.append("The generator may have seen more real images than the classifiers.")
    if not all(setting.has_enough_steps for setting in table.settings):
        sentences.append("Training was too short to rely on this.")
    return " ".join(sentences)


def answers_of(
    evaluation: types.EvaluateResult | None, curation: CurateResult | None, diagnosis: types.DiagnoseResult | None
) -> list[Answer]:
    """The cards, as far as there are results for them."""
    table = evaluation.first if evaluation is not None else None
    answers: list[Answer | None] = []
    if table is not None:
        answers += [
            _comparison(table, "adding", "Do synthetic images help when added to real ones?"),
            _comparison(table, "instead", "How much accuracy is lost if random synthetic images replace the real ones?")
            or _comparison(table, "curated-instead", "How much accuracy is lost if curated synthetic images replace the real ones?"),
            _comparison(table, "curation", "Is training on curated images better than on random ones?"),
        ]
    if diagnosis is not None and diagnosis.tables:
        answers.append(_causes(diagnosis.tables[0], diagnosis.draws))
    if table is not None:
        answers.append(_exchange_rate(table))
    if diagnosis is not None and diagnosis.advice:
        answers.append(_next_step(diagnosis.advice[0], evaluation.use if evaluation is not None else "not measured"))
    if table is None and curation is not None:
        answers.append(Answer("Is the curated set nearer to the real images?", f"{curation.kept:,} kept", curation.sentence, "unsure"))
    return [answer for answer in answers if answer is not None]


_VERDICTS: dict[Word, tuple[Tone, str]] = {
    "helped": ("good", "statistically significant"),
    "hurt": ("bad", "statistically significant"),
    "did not help": ("bad", "a relevant gain is ruled out"),
    "cannot tell": ("unsure", "not statistically significant (too imprecise to tell)"),
}
_PAIRS: dict[types.Kind, tuple[str, str]] = {
    "adding": ("real+curated", "real"),
    "instead": ("random", "real"),
    "curated-instead": ("curated", "real"),
    "curation": ("curated", "random"),
}
"""The arms of the comparisons behind a card."""


def _comparison(table: types.TableResult, kind: types.Kind, question: str) -> Answer | None:
    claim = table.claim(kind)
    if claim is None:
        return None
    points = 100 * claim.difference.value
    figure = f"{points:+.1f} points of accuracy"
    if kind in {"instead", "curated-instead"}:  # these ask for a loss
        figure = f"{abs(points):.1f} points of accuracy" if points < 0 else "no loss"
    tone, significance = _VERDICTS[claim.verdict]
    text = f"Change in accuracy: {_mean_change(claim)}, {significance}. {_by_amount(table, kind)}"
    if kind == "instead" and (curated := table.claim("curated-instead")) is not None:
        text += f" With curated images: {_mean_change(curated)}. {_by_amount(table, 'curated-instead')}"
    return Answer(question, figure, text, tone)


def _mean_change(claim: types.Claim) -> str:
    return change(claim.difference, "points") + (" on average" if claim.comparisons > 1 else "")


def _by_amount(table: types.TableResult, kind: types.Kind) -> str:
    """The differences behind a claim, by the amount of real data; only their range where they are of several arms."""
    claim, settings = table.claim(kind), table.settings
    assert claim is not None
    differences = [
        f"{100 * comparison.difference.value:+z.1f} with {_amount(setting, table)}"
        for setting in settings
        for comparison in setting.comparisons
        if (comparison.arm, comparison.against) == _PAIRS[kind]
    ]
    if len(differences) == claim.comparisons > 1:
        return f"By amount of real data: {listed(differences)} real images per class."
    amounts = listed([_amount(setting, table) for setting in settings])
    span = f": from {100 * claim.lowest:+.1f} to {100 * claim.highest:+.1f} points" if claim.comparisons > 1 else ""
    return f"Measured with {amounts} real images per class{span}."


def _amount(setting: types.SettingResult, table: types.TableResult) -> str:
    """The amount of real data; also that of synthetic images where the table has several."""
    has_one_ratio = len({setting.synthetic_per_real for setting in table.settings}) == 1
    return f"{setting.real_per_class:g}" + ("" if has_one_ratio else f" (and {setting.synthetic_per_real:g} synthetic per real image)")


_WITHOUT_CAUSE: dict[types.LossVerdict, str] = {
    "loss": "unexplained",
    "cannot tell": "no significant loss",
    "none": "no relevant loss",
    "gain": "no loss",
}


def _causes(table: types.TableDiagnosis, draws: int) -> Answer:
    whole, parts = table.mean.whole, table.mean.parts
    assert whole.loss is not None  # a table has real and random images
    amounts = listed([f"{setting.real_per_class:g}" for setting in table.settings])
    figures = [
        f"{TITLES[name]}: {figure}"
        for name, part in parts.items()
        if (figure := part_of_loss(part)) and (name, part.verdict) != ("interaction", "not shown")  # content says it
    ]
    missing = [TITLES[name] for name, part in parts.items() if not part_of_loss(part)]
    shown = table.mean.shown if whole.verdict not in {"none", "gain"} else {}
    title = ", ".join(TITLES[name] for name in shown) or _WITHOUT_CAUSE[whole.verdict]
    average = "on average " if len(table.settings) > 1 else ""
    text = f"Random synthetic images cost {lost(whole.loss)} {average}with {amounts} real images per class. Of these: {'; '.join(figures)}."
    if missing:
        text += f" Not measured: {listed(missing)}."
    if whole.verdict == "cannot tell" and table.covers_real_images and draws == 1:
        text += " The interval also covers other real images. With these there may be no loss."
    return Answer("Why do synthetic images cost accuracy?", title, text, "bad" if shown else "unsure")


NEXT: dict[types.Cause, str] = {
    "appearance": "improve the generator",
    "content": "curate from a larger pool",
    "labels": "reduce wrong labels",
    "interaction": "curate first",
    "rest": "collect more real images",
    "none": "no change needed",
    "unclear": "measure more precisely",
}
"""The advice in a few words."""


def _next_step(advice: types.Advice, use: types.Use) -> Answer:
    """The first advice, together with whether to add the images."""
    text = advice.text
    if advice.cause == "none" and use != "not measured":
        text = "Synthetic images can replace real ones without a relevant loss. The first card says whether to add them to real ones."
    elif use in {"nowhere", "no proof"}:
        text = f"For now, train on real images only. {text}"
    return Answer("What should you do next?", NEXT[advice.cause], text, "unsure")


def _exchange_rate(table: types.TableResult) -> Answer | None:
    """The exchange rates of the first arm that has one, at every amount of real data."""
    question = "How many synthetic images replace one real image?"
    measured = [name for name in ("curated", "random") if any(name in setting.worth for setting in table.settings)]
    for name in measured:
        figures, rates, others = [], [], []
        for setting in table.settings:
            worth, amount = setting.worth.get(name), _amount(setting, table)
            if worth is None or worth.others_per_real is None:
                others.append(amount)
                continue
            rate, fewer = worth.others_per_real, " or fewer" if worth.high_is_end else ""
            figures.append(f"{rate.value:.3g} [{rate.low:.3g}{fewer}, {rate.high:.3g}] with {amount}")
            rates.append(rate.value)
        if figures:
            least, largest = f"{min(rates):.2g}", f"{max(rates):.2g}"
            span = least if least == largest else f"{least} to {largest}"
            text = f"{name.capitalize()} synthetic images per real image: {listed(figures)} real images per class."
            if others:
                text += f" No figure with {listed(others)}: the accuracy is outside the learning curve of real images, or it is flat."
            return Answer(question, f"{span} {name} image{'' if span == '1' else 's'}", text, "unsure")
    text = "The accuracy is outside the learning curve of real images. Add more amounts of real data to `evaluation.curve`."
    return Answer(question, "not measurable", text, "unsure") if measured else None
