"""Figures, comparisons and the verdict in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

from synthforge.evaluation.results.types import ArmScore, Claim, Comparison, Kind, TableResult, Use, Worth
from synthforge.recipe.evaluation import MORE, REAL, REAL_SOURCES, ArmConfig
from synthforge.statistics import Measured, Over, Word


def points(one: Measured) -> str:
    """A difference in points of accuracy."""
    return f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def percent(one: Measured) -> str:
    """An accuracy."""
    return f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def number(value: float) -> str:
    """A number with three significant digits."""
    return f"{value + 0.0:.3g}"  # never "-0"


def most(comparison: Comparison) -> str:
    """The class whose recall changes most, if its interval leaves out 0; otherwise empty."""
    known = {name: one for name, one in comparison.by_class.items() if one.leaves_out_0}
    if not known:
        return ""
    name = max(known, key=lambda name: abs(known[name].value))
    return f"most of all class {name}, {points(known[name])}"


def told(comparison: Comparison | Claim) -> str:
    """A comparison's verdict; for `cannot tell`, what would tell."""
    if comparison.verdict != "cannot tell":
        return comparison.verdict
    if comparison.interval_over == "images":
        return "cannot tell of one training; raise seeds"
    if comparison.draws_needed is None:
        return "cannot tell, nor would more trainings with so small a holdout"
    return f"cannot tell; some {comparison.draws_needed} {_OF[comparison.interval_over]} probably would"


_OF: dict[Over, str] = {"draws and images": "draws", "seeds and images": "seeds"}
"""What more is needed to tell, by what varies in intervals."""


def sentence_of(
    per_class: float,
    budget: int,
    ratio: float,
    *,
    arms: Mapping[str, ArmScore],
    comparisons: Sequence[Comparison],
    worths: Mapping[str, Worth],
    missing: Mapping[str, str],
) -> str:
    """One setting in words."""
    parts = [f"{number(per_class)} real images per class ({budget:,} in all), {number(ratio)} synthetic for each"]
    if "real" in arms:
        parts.append(f"real only {percent(arms['real'].accuracy)}")
    parts += [f"{one.arm} less {one.against} {points(one.difference)}: {told(one)}" for one in comparisons]
    parts += [f"{one.arm}: {worth_in_words(one)}" for one in worths.values()]
    reasons: dict[str, list[str]] = {}
    for name, reason in missing.items():
        reasons.setdefault(reason, []).append(name)
    parts += [f"not measured: {', '.join(names)} ({reason})" for reason, names in reasons.items()]
    return "; ".join(parts) + "."


def worth_in_words(one: Worth) -> str:
    """An exchange rate."""
    low, high = ("≤ " if one.low_is_end else ""), ("≥ " if one.high_is_end else "")
    equal, gain, rate = one.equivalent, one.more_real, one.others_per_real
    at_end = f"as good as {number(equal.value)} real images per class, where the real learning curve"
    if one.at_least:
        return f"{at_end} ends, or more; " + ("how few is not known" if one.low_is_end else f"at least {number(equal.low)}")
    if one.at_most:
        return f"{at_end} begins, or fewer; " + ("how many is not known" if one.high_is_end else f"at most {number(equal.high)}")
    if gain.high <= 0 and not one.high_is_end:
        interval = f"[{number(-gain.high)}, {'≥ ' if one.low_is_end else ''}{number(-gain.low)}]"
        return f"its other images cost as much as {number(-gain.value)} {interval} real ones per class fewer"
    worth = f"its other images are worth {number(gain.value)} [{low}{number(gain.low)}, {high}{number(gain.high)}] real ones per class"
    if rate is None:
        return worth
    return f"{worth}, so {number(rate.value)} [{'≤ ' if one.high_is_end else ''}{number(rate.low)}, {number(rate.high)}] for each"


def verdict_of(tables: Sequence[TableResult], curve: Sequence[tuple[float, Measured]], arms: Mapping[str, ArmConfig]) -> str:
    """Whether to use the synthetic images, by the first table that compares anything."""
    table = next((table for table in tables if table.compares), None)
    if table is None:
        if not curve:
            return "nothing was compared"
        rising = ", ".join(f"{percent(accuracy)} with {number(size)}" for size, accuracy in curve)
        return f"Real only, tuned: {rising} images per class."
    kinds: dict[tuple[Kind, str], list[Comparison]] = {}
    for one in (one for setting in table.settings for one in setting.comparisons):
        kinds.setdefault(kind_of(arms[one.arm], arms[one.against]), []).append(one)
    claims = {(claim.kind, claim.what): claim for claim in table.claims}
    parts = []
    if table.origin == "elsewhere":
        parts.append("The generator comes from elsewhere and may have seen more real images than the arms have.")
    parts += [_summed(claims[kind], comparisons) for kind, comparisons in kinds.items()]
    parts += filter(None, [_SO[use_of(table, arms)]])
    return " ".join([*parts, *filter(None, [_steps_in_words(table)])])


def _steps_in_words(table: TableResult) -> str:
    short = [setting for setting in table.settings if not setting.has_enough_steps]
    moved = _largest(one for setting in short for one in [*setting.steps_check.values(), setting.steps_check_mean])
    if moved:
        return (
            f"But the trainings were short: with twice the steps accuracy still moves by up to {100 * moved:.1f} points, and "
            "differences with it; raise trainer.steps before believing this."
        )
    moved = _largest(setting.steps_check_mean for setting in table.settings)
    if not moved:
        return ""
    return (
        f"Twice the steps still change accuracy, by up to {100 * moved:.1f} points over all arms, so smaller "
        "differences may come from unfinished trainings."
    )


def _largest(changes: Iterable[Measured | None]) -> float:
    """The largest change that is told from 0; 0 if there is none."""
    return max((abs(one.value) for one in changes if one is not None and one.leaves_out_0), default=0.0)


def use_of(table: TableResult, arms: Mapping[str, ArmConfig]) -> Use:
    """Where synthetic images are worth adding to real ones."""
    comparisons = [one for setting in table.settings for one in setting.comparisons]
    adding = [one for one in comparisons if kind_of(arms[one.arm], arms[one.against])[0] == "adding"]
    claim = table.claim("adding")
    if claim is None or not adding:
        return "not measured"
    has_hurt = any(one.verdict == "hurt" for one in adding)
    if all(one.verdict == "helped" for one in adding) or (claim.verdict == "helped" and not has_hurt):
        return "everywhere"
    if any(one.verdict == "helped" for one in adding):
        return "where they helped"
    return "nowhere" if claim.verdict in {"hurt", "did not help"} else "no proof"


_SO: dict[Use, str] = {
    "everywhere": "So use them.",
    "where they helped": "So use them where they helped, and only there.",
    "nowhere": "So don't bother.",
    "no proof": "So there is no proof that it is worth it.",
    "not measured": "",
}
_WHAT: dict[Kind, str] = {
    "adding": "Adding synthetic images to real ones",
    "instead": "Training on synthetic images instead of real ones",
    "curated-instead": "Training on curated synthetic images instead of real ones",
    "curation": "Curation over random selection",
    "curation-beside-real": "Curation over random selection, beside real images",
    "more-real": "More real images",
    "other-real": "Other real images instead",
    "rule-on-real": "The same rule on real images, over random ones",
}


def kind_of(arm: ArmConfig, against: ArmConfig) -> tuple[Kind, str]:
    """The kind of a comparison, and the kind in words."""
    kind = _kind(arm, against)
    return kind, _WHAT.get(kind, f"{arm.name} less {against.name}")


def _kind(arm: ArmConfig, against: ArmConfig) -> Kind:
    others = [source for source in arm.of if source not in REAL_SOURCES]
    if against.of == [REAL]:
        if others:
            return "adding" if REAL in arm.of else "curated-instead" if others == ["curated"] else "instead"
        return "more-real" if REAL in arm.of else "other-real"
    if "curated" in arm.of and against.of == ["random" if source == "curated" else source for source in arm.of]:
        return "curation-beside-real" if REAL in arm.of else "curation"
    if "more-curated" in arm.of and against.of == [MORE if source == "more-curated" else source for source in arm.of]:
        return "rule-on-real"
    return "pair"


def _summed(claim: Claim, comparisons: Sequence[Comparison]) -> str:
    """A claim and the verdicts of its comparisons."""
    if len(comparisons) == 1:
        return f"{claim.what}: {points(claim.difference)} points of accuracy, {told(claim)}."
    counts = {word: sum(one.verdict == word for one in comparisons) for word in get_args(Word)}
    words = ", ".join(f"{word} in {num}" for word, num in counts.items() if num)
    return (
        f"{claim.what}: {points(claim.difference)} points of accuracy on average, {told(claim)} ({100 * claim.lowest:+.1f} to "
        f"{100 * claim.highest:+.1f}; by itself each {words} of {len(comparisons)} comparisons)."
    )
