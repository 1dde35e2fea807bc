"""What the page says first: whether to use the images, and a reader's questions, each answered in a sentence with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

ADDING = "Adding synthetic images to real ones"
INSTEAD = "Training on synthetic images instead of real ones"
CURATION = "Curation over random selection"
PARTS = {"appearance": "appearance", "content": "content", "labels": "wrong labels", "interaction": "both together", "rest": "the rest"}


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
    table = _table(evaluation)
    if table is None:
        return "Not measured yet: whether these images help is not known."
    claim = _claim(table, ADDING)
    if claim is None:
        return "Whether these images help beside real ones was not measured."
    told = f"{_points(claim['difference'])} points of accuracy"
    words = {
        "helped": f"Use them: added to the real images they helped, {told}.",
        "hurt": f"Don’t use them: added to the real images they hurt, {told}.",
        "did not help": f"Don’t bother: added to the real images they did not help, {told}.",
        "cannot tell": f"No proof that they are worth it: added to the real images, {told}.",
    }
    origin = "" if table["origin"] == "own" else " (The generator may have seen more real images.)"
    return words[claim["verdict"]] + origin


def answers_of(evaluation: dict[str, Any] | None, gap: dict[str, Any] | None, diagnosis: dict[str, Any] | None) -> list[Answer]:
    """As far as results are there."""
    table = _table(evaluation)
    found = []
    if table is not None:
        found += [
            _of_claim(table, INSTEAD, "What is lost by training on made images instead of real ones?", sign=-1),
            _of_claim(table, CURATION, "What does curation win back, against a random choice?", sign=1),
        ]
    if diagnosis is not None and diagnosis["tables"]:
        found.append(_of_diagnosis(diagnosis["tables"][0]["mean"]))
    if table is not None:
        found += [_of_worth(table), _of_claim(table, ADDING, "Do they help when added to the real images?", sign=1)]
    if table is None and gap is not None:
        found.append(Answer("Is the curated set nearer to the real images?", f"{gap['kept']:,} kept", gap["sentence"], "unsure"))
    return [answer for answer in found if answer is not None]


def _table(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """The first that compares anything."""
    tables = evaluation["tables"] if evaluation is not None else []
    return next((table for table in tables if any(setting["comparisons"] for setting in table["settings"])), None)


def _claim(table: dict[str, Any], what: str) -> dict[str, Any] | None:
    return next((claim for claim in table["claims"] if claim["what"] == what), None)


def _of_claim(table: dict[str, Any], what: str, question: str, sign: int) -> Answer | None:
    claim = _claim(table, what)
    if claim is None:
        return None
    difference, verdict = claim["difference"], claim["verdict"]
    tone = {"helped": "good", "hurt": "bad", "did not help": "bad"}.get(verdict, "unsure")
    amounts = ", ".join(f"{setting['real_per_class']:g}" for setting in table["settings"])
    words = {"helped": "proven", "hurt": "proven", "did not help": "no gain worth naming", "cannot tell": "may be chance"}[verdict]
    span = _points(claim["lowest"], claim["highest"])
    over = f"{words}; mean over {amounts} real images per class and {claim['comparisons']} comparisons, {span}"
    lost = sign < 0
    figure = (
        f"{abs(100 * difference['value']):.1f} points" if lost and difference["value"] < 0 else f"{100 * difference['value']:+.1f} points"
    )
    interval = f"{_points(difference)} points of accuracy, 95 % interval; {over}"
    return Answer(question, figure, interval, tone)


def _of_diagnosis(mean: dict[str, Any]) -> Answer:
    parts = mean["parts"]
    told = [f"{title} {_points(parts[name]['loss'])}" for name, title in PARTS.items() if parts[name]["loss"] is not None]
    missing = [title for name, title in PARTS.items() if parts[name]["loss"] is None]
    shown = [title for name, title in PARTS.items() if parts[name]["verdict"] == "loss"]
    figure = " and ".join(shown) if shown else "not told apart" if mean["whole"]["verdict"] == "loss" else "no loss proven"
    unknown = f"; not measured: {', '.join(missing)}" if missing else ""
    return Answer("What is it that they lack?", figure, f"points lost: {', '.join(told)}{unknown}", "bad" if shown else "unsure")


def _of_worth(table: dict[str, Any]) -> Answer | None:
    """Of the arm with the most real images that has a rate, the curated one first."""
    question = "What is one more real image worth?"
    known = [
        (setting, setting["worth"][name])
        for name in ("curated", "random")
        for setting in reversed(table["settings"])
        if name in setting["worth"] and setting["worth"][name]["others_per_real"] is not None
    ]
    if known:
        setting, one = known[0]
        low, high = one["others_per_real_low"], one["others_per_real_high"]
        interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
        made = f"{setting['real_per_class'] * setting['synthetic_per_real']:g}"
        text = (
            f"{one['others_per_real']:.3g}{interval} {one['arm']} made ones: {made} of a class are worth {one['equivalent']:.3g} "
            f"[{one['equivalent_low']:.3g}, {one['equivalent_high']:.3g}] real ones, by the real learning curve"
        )
        return Answer(question, f"{one['others_per_real']:.2g} made ones", text, "unsure")
    some = [setting["worth"][name] for setting in table["settings"] for name in ("curated", "random") if name in setting["worth"]]
    if not some:
        return None
    text = "the real learning curve ends before it tells; more amounts of real data (evaluation.curve) may"
    return Answer(question, "not told", text, "unsure")


def _points(one: Any, high: float | None = None) -> str:
    """In points of accuracy: a figure with its interval, or a range."""
    if high is not None:
        return f"{100 * one:+.1f} to {100 * high:+.1f}"
    return f"{100 * one['value']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
