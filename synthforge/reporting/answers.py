"""What the page says first: whether to use the images, and a reader's questions, each answered in a sentence with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from synthforge.evaluation.results.words import ADDING, CURATED_INSTEAD, CURATION, INSTEAD
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
            _of_claim(table, ADDING, "Do they help when added to the real images?", sign=1),
            _of_claim(table, INSTEAD, "What is lost by training on random synthetic images instead of real ones?", sign=-1)
            or _of_claim(table, CURATED_INSTEAD, "What is lost by training on curated synthetic images instead of real ones?", sign=-1),
            _of_claim(table, CURATION, "What does curation win back, against a random choice?", sign=1),
        ]
    if diagnosis is not None and diagnosis["tables"]:
        found.append(_of_diagnosis(diagnosis["tables"][0], diagnosis["draws"]))
    if table is not None:
        found.append(_of_worth(table))
    if diagnosis is not None and diagnosis["advice"]:
        found.append(_of_advice(diagnosis["advice"][0], evaluation))
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
    words = {"helped": "proven", "hurt": "proven", "did not help": "no gain worth naming", "cannot tell": "may be chance"}[verdict]
    figure = f"{100 * difference['value']:+.1f} points"
    if sign < 0:  # asked for a loss
        figure = f"{abs(100 * difference['value']):.1f} points" if difference["value"] < 0 else f"nothing: {figure}"
    mean = f"{words} on average" if claim["comparisons"] > 1 else words
    text = f"{points(difference)} points of accuracy, {mean}; {_by_amount(table, what)}"
    if what == INSTEAD and (curated := claim_of(table, CURATED_INSTEAD)) is not None:
        text += f". Curated ones: {points(curated['difference'])}; {_by_amount(table, CURATED_INSTEAD)}"
    return Answer(question, figure, text, tone)


_PAIRS = {INSTEAD: ("random", "real"), CURATED_INSTEAD: ("curated", "real"), CURATION: ("curated", "random")}


def _by_amount(table: dict[str, Any], what: str) -> str:
    """The differences that a claim is the mean of, by the amount of real data; where there are others besides, their span."""
    claim, settings = claim_of(table, what), table["settings"]
    assert claim is not None
    found = [
        f"{100 * one['difference']['value']:+.1f} with {_amount(setting, table)}"
        for setting in settings
        for one in setting["comparisons"]
        if (one["arm"], one["against"]) == _PAIRS.get(what)
    ]
    if len(found) == claim["comparisons"] > 1:
        return f"{', '.join(found)} real images per class"
    span = f", single ones from {100 * claim['lowest']:+.1f} to {100 * claim['highest']:+.1f}" if claim["comparisons"] > 1 else ""
    return f"with {', '.join(_amount(setting, table) for setting in settings)} real images per class{span}"


def _amount(setting: dict[str, Any], table: dict[str, Any]) -> str:
    """Of real data; with that of synthetic images where there are several."""
    is_one = len({one["synthetic_per_real"] for one in table["settings"]}) == 1
    return f"{setting['real_per_class']:g}" + ("" if is_one else f" ({setting['synthetic_per_real']:g} for each)")


def _of_diagnosis(table: dict[str, Any], draws: int) -> Answer:
    mean = table["mean"]
    parts, amounts = mean["parts"], ", ".join(f"{setting['real_per_class']:g}" for setting in table["settings"])
    told = [
        f"{title} {told}"
        for name, title in PARTS.items()
        if (told := part_of_loss(parts[name])) and (name, parts[name]["verdict"]) != ("interaction", "not shown")  # content says it
    ]
    missing = [title for name, title in PARTS.items() if not part_of_loss(parts[name])]
    is_loss = mean["whole"]["verdict"] == "loss"
    is_none = mean["whole"]["verdict"] in {"none", "gain"}
    shown = [title for name, title in PARTS.items() if not is_none and parts[name]["verdict"] == "loss"]
    figure = " and ".join(shown) if shown else "not told apart" if is_loss else "no loss proven"
    if shown == [PARTS["rest"]]:
        figure = "mostly unexplained" if parts["rest"]["loss"]["value"] > mean["whole"]["loss"]["value"] / 2 else "not told apart"
    unknown = f"; not measured: {', '.join(missing)}" if missing else ""
    lost = f"{100 * mean['whole']['loss']['value']:.1f} points"
    text = f"of the {lost} that random ones lose with {amounts} real per class: {', '.join(told)}{unknown}"
    if mean["whole"]["verdict"] == "cannot tell" and table["covers_real_images"] and draws == 1:
        text += "; other real images are allowed for, with which it may be no loss"
    return Answer("Why do synthetic images fall short?", figure, text, "bad" if shown else "unsure")


NEXT = {
    "Appearance:": "a better generator",
    "Content:": "curate, from a larger pool",
    "Labels:": "mind the labels",
    "Content and appearance": "curate first",
    "The unexplained rest:": "more real images",
    "Nothing to mend": "nothing to mend",
    "More to tell from": "measure more",
}
"""An advice in few words, by how it begins."""


def _of_advice(advice: str, evaluation: dict[str, Any] | None) -> Answer:
    """The first one, and what follows from whether adding them helps."""
    figure = next((short for begin, short in NEXT.items() if advice.startswith(begin)), "")
    use = evaluation["use"] if evaluation is not None else "not measured"
    if figure == NEXT["Nothing to mend"] and use != "not measured":
        advice = "Synthetic images do in place of real ones, as far as was measured. Whether to add them to these is said above."
    elif use in {"nowhere", "no proof"}:
        advice = f"For now train on real images alone. {advice}"
    return Answer("What to do next?", figure, advice, "unsure")


def _of_worth(table: dict[str, Any]) -> Answer | None:
    """The rates of the first arm that has one, at every amount of real data."""
    question = "What is one more real image worth, in synthetic ones?"
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
                f"with {_amount(setting, table)} real per class {one['others_per_real']:.3g} "
                f"[{one['others_per_real_low']:.3g}{' or fewer' if one['high_is_end'] else ''}, {one['others_per_real_high']:.3g}]"
                for setting, one in known
            ]
            rates = [f"{one['others_per_real']:.2g}" for _, one in known]
            figure = f"{' to '.join(dict.fromkeys((min(rates, key=float), max(rates, key=float))))} {name} ones"
            text = f"So many {name} synthetic images replace one real image: {', '.join(told)}"
            if others := [_amount(setting, table) for setting in table["settings"] if setting not in [one for one, _ in known]]:
                text += (
                    f". With {', '.join(others)} it can't be told: no number of real images that was tried has their accuracy, or more of "
                )
                text += "these are no better there"
            return Answer(question, figure, text, "unsure")
    return Answer(
        question, "not told", "the real learning curve begins or ends before it tells; evaluation.curve can name more amounts", "unsure"
    )
