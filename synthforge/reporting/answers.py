"""What the page says first: whether to use the images, and a reader's questions, each answered in a sentence with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synthforge.evaluation.verdict import ADDING, CURATION, INSTEAD
from synthforge.reporting.figures import part_of_loss, points

PARTS = {"appearance": "appearance", "content": "content", "labels": "wrong labels", "interaction": "interaction", "rest": "the rest"}


@dataclass(frozen=True)
class Answer:
    """To one question."""

    question: str
    figure: str
    """Large."""
    text: str
    """The interval, and what it means."""
    tone: str
    """`good`, `bad` or `unsure`, for the colour."""


def headline_of(evaluation: dict[str, Any] | None) -> str:
    """Whether to use the images, in one sentence."""
    table = first_table(evaluation)
    if table is None:
        return "Not measured yet: whether these images help is not known."
    claim = claim_of(table, ADDING)
    if claim is None or evaluation is None:
        return "Whether these images help beside real ones was not measured."
    told = f"added to the real ones, {points(claim['difference'])} points of accuracy"
    words = {
        "everywhere": f"Use the synthetic images: {told}.",
        "where they helped": f"Use the synthetic images where they helped, and only there: {told} on average.",
        "nowhere": f"Don’t bother with synthetic images: {told}.",
        "no proof": f"No proof that synthetic images are worth it: {told}.",
    }
    short = any(not setting["has_enough_steps"] for setting in table["settings"])
    notes = ["The generator may have seen more real images."] * (table["origin"] != "own")
    notes += ["But the trainings were short: more steps still change this."] * short
    return " ".join([words.get(evaluation["use"], f"Not told: {told}."), *notes])


def answers_of(evaluation: dict[str, Any] | None, gap: dict[str, Any] | None, diagnosis: dict[str, Any] | None) -> list[Answer]:
    """As far as results are there."""
    table = first_table(evaluation)
    found = []
    if table is not None:
        found += [
            _of_claim(table, INSTEAD, "What is lost by training on made images instead of real ones?", sign=-1),
            _of_claim(table, CURATION, "What does curation win back, against a random choice?", sign=1),
        ]
    if diagnosis is not None and diagnosis["tables"]:
        found.append(_of_diagnosis(diagnosis["tables"][0]))
    if table is not None:
        found += [_of_worth(table), _of_claim(table, ADDING, "Do they help when added to the real images?", sign=1)]
    if table is None and gap is not None:
        found.append(Answer("Is the curated set nearer to the real images?", f"{gap['kept']:,} kept", gap["sentence"], "unsure"))
    return [answer for answer in found if answer is not None]


def first_table(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """The first that compares anything."""
    tables = evaluation["tables"] if evaluation is not None else []
    return next((table for table in tables if any(setting["comparisons"] for setting in table["settings"])), None)


def claim_of(table: dict[str, Any], what: str) -> dict[str, Any] | None:
    """What a table claims of one kind of comparison; None if it has none."""
    return next((claim for claim in table["claims"] if claim["what"] == what), None)


def _of_claim(table: dict[str, Any], what: str, question: str, sign: int) -> Answer | None:
    claim = claim_of(table, what)
    if claim is None:
        return None
    difference, verdict = claim["difference"], claim["verdict"]
    tone = {"helped": "good", "hurt": "bad", "did not help": "bad"}.get(verdict, "unsure")
    amounts = ", ".join(f"{setting['real_per_class']:g}" for setting in table["settings"])
    words = {"helped": "proven", "hurt": "proven", "did not help": "no gain worth naming", "cannot tell": "may be chance"}[verdict]
    over = f"{words}; with {amounts} real images per class"
    if claim["comparisons"] > 1:
        span = f"{100 * claim['lowest']:+.1f} to {100 * claim['highest']:+.1f}"
        alike = round(claim["lowest"], 3) == round(claim["highest"], 3)
        span = f"each {100 * claim['lowest']:+.1f}" if alike else f"which lie from {span}"
        over = f"{words}; mean over {claim['comparisons']} comparisons with {amounts} real images per class, {span}"
    figure = f"{100 * difference['value']:+.1f} points"
    if sign < 0:  # asked for a loss
        figure = f"{abs(100 * difference['value']):.1f} points" if difference["value"] < 0 else f"nothing: {figure}"
        over += _by_arm(table)
    interval = f"{points(difference)} points of accuracy, 95 % interval; {over}"
    return Answer(question, figure, interval, tone)


def _by_arm(table: dict[str, Any]) -> str:
    """What random and curated images lose, each by itself; means over amounts, for intervals are those of single comparisons."""
    comparisons = [one for setting in table["settings"] for one in setting["comparisons"] if one["against"] == "real"]
    told = [
        f"{name} ones {100 * sum(found) / len(found):+.1f}"
        for name in ("random", "curated")
        if (found := [one["difference"]["value"] for one in comparisons if one["arm"] == name])
    ]
    return f"; {' and '.join(told)}" if len(told) > 1 else ""


def _of_diagnosis(table: dict[str, Any]) -> Answer:
    mean = table["mean"]
    parts, amounts = mean["parts"], ", ".join(f"{setting['real_per_class']:g}" for setting in table["settings"])
    told = [f"{title} {told}" for name, title in PARTS.items() if (told := part_of_loss(parts[name]))]
    missing = [title for name, title in PARTS.items() if not part_of_loss(parts[name])]
    is_loss = mean["whole"]["verdict"] == "loss"
    is_none = mean["whole"]["verdict"] in {"none", "gain"}
    shown = [title for name, title in PARTS.items() if not is_none and parts[name]["verdict"] == "loss"]
    may_be_none = mean["whole"]["verdict"] == "cannot tell" and table["covers_real_images"]
    figure = " and ".join(shown) if shown else "not told apart" if is_loss else "may be chance" if may_be_none else "no loss proven"
    if shown == [PARTS["rest"]]:
        figure = "mostly unexplained" if parts["rest"]["loss"]["value"] > mean["whole"]["loss"]["value"] / 2 else "not told apart"
    unknown = f"; not measured: {', '.join(missing)}" if missing else ""
    lost = f"{100 * mean['whole']['loss']['value']:.1f} points"
    text = f"of the {lost} that random ones lose with {amounts} real per class: {', '.join(told)}{unknown}"
    text += "; with other real images it may be no loss" if may_be_none else ""
    return Answer("Why do made images fall short?", figure, text, "bad" if shown else "unsure")


def _of_worth(table: dict[str, Any]) -> Answer | None:
    """The rates of the first arm that has one, at every amount of real data."""
    question = "What is one more real image worth, in made ones?"
    measured = [name for name in ("curated", "random") if any(name in setting["worth"] for setting in table["settings"])]
    if not measured:
        return None
    for name in measured:
        known = [
            (setting, one)
            for setting in table["settings"]
            if (one := setting["worth"].get(name)) is not None and one["others_per_real"] is not None
        ]
        if known:
            told = [
                f"with {setting['real_per_class']:g} real per class {one['others_per_real']:.3g} "
                f"[{'≤ ' if one['high_is_end'] else ''}{one['others_per_real_low']:.3g}, {one['others_per_real_high']:.3g}]"
                for setting, one in known
            ]
            rates = [f"{one['others_per_real']:.2g}" for _, one in known]
            figure = f"{' to '.join(dict.fromkeys((min(rates, key=float), max(rates, key=float))))} {name}"
            text = f"so many {name} images, in place of real ones, do what one real image does: {', '.join(told)}"
            if others := [f"{setting['real_per_class']:g}" for setting in table["settings"] if setting not in [one for one, _ in known]]:
                text += f"; with {', '.join(others)} the real learning curve does not tell"
            return Answer(question, figure, text, "unsure")
    return Answer(
        question, "not told", "the real learning curve begins or ends before it tells; evaluation.curve can name more amounts", "unsure"
    )
