"""The verdict in words, and requirements such as "curated > random"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from synthforge.errors import RequestError
from synthforge.evaluation.config import EvaluationConfig
from synthforge.evaluation.scores import ArmScore, Comparison, Measured, Worth

if TYPE_CHECKING:
    from synthforge.evaluation.evaluate import EvaluateResult, TableResult

_REQUIREMENT = re.compile(r"^\s*([^<>=@]+?)\s*(>=|>)\s*([^<>=@]+?)\s*(?:@\s*(\w+)\s*)?$")


def points(one: Measured) -> str:
    """A difference in points of accuracy."""
    return f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def percent(one: Measured) -> str:
    """An accuracy."""
    return f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def number(value: float) -> str:
    """Few digits."""
    return f"{value:.3g}"


def told(comparison: Comparison) -> str:
    """A comparison's verdict with what it needs."""
    if comparison.verdict != "cannot tell":
        return comparison.verdict
    if comparison.draws_needed is None:
        return "cannot tell, and with this holdout more trainings would not"
    return f"cannot tell; some {comparison.draws_needed} draws would"


def sentence_of(
    per_class: float,
    budget: int,
    ratio: float,
    arms: Mapping[str, ArmScore],
    comparisons: Sequence[Comparison],
    worths: Mapping[str, Worth],
    checks: Mapping[str, Measured],
    config: EvaluationConfig,
) -> str:
    """One setting in words."""
    parts = [f"{number(per_class)} real images per class ({budget:,} in all), {number(ratio)} synthetic for each"]
    if "real" in arms:
        parts.append(f"real only {percent(arms['real'].accuracy)}")
    parts += [f"{one.arm} less {one.against} {points(one.difference)}: {told(one)}" for one in comparisons]
    parts += [worth_in_words(one) for name, one in worths.items() if name in {"real+curated", "real+random", "curated"}]
    parts += [
        f"twice the steps move {name} by {points(moved)}, so raise trainer.steps before believing this"
        for name, moved in checks.items()
        if moved.low > config.margin or moved.high < -config.margin
    ]
    return "; ".join(filter(None, parts)) + "."


def worth_in_words(one: Worth) -> str:
    """An exchange rate."""
    bound = "at least " if one.at_least else "at most " if one.at_most else ""
    if one.more_real <= 0:
        return f"{one.arm}: its other images are worth no real one"
    rate = f", so {number(one.others_per_real)} for each" if one.others_per_real is not None and not bound else ""
    interval = f" [{number(one.more_real_low)}, {number(one.more_real_high)}]"
    return f"{one.arm}: its other images are worth {bound}{number(one.more_real)}{interval} real ones per class{rate}"


def verdict_of(tables: Sequence[TableResult], curve: Sequence[tuple[float, Measured]]) -> str:
    """Whether to bother, over all settings of the first table."""
    if not tables or not any(setting.comparisons for table in tables for setting in table.settings):
        if not curve:
            return "nothing was compared"
        rising = ", ".join(f"{percent(accuracy)} with {number(size)}" for size, accuracy in curve)
        return f"Real only, tuned: {rising} images per class."
    table = tables[0]
    known = [one for setting in table.settings for one in setting.comparisons]
    parts = []
    if table.origin == "elsewhere":
        parts.append("The generator comes from elsewhere and may have seen more real images than the arms have.")
    adding = [one for one in known if one.against == "real" and one.arm.startswith("real+") and "more" not in one.arm]
    if adding:
        parts.append(_summed("Adding synthetic images to real ones", adding))
    alone = [one for one in known if one.against == "real" and one.arm in {"random", "curated"}]
    if alone:
        parts.append(_summed("Training on synthetic images instead of as many real ones", alone))
    selecting = [one for one in known if one.arm == "curated" and one.against == "random"]
    if selecting:
        parts.append(_summed("Curation over random selection", selecting))
    rest = [one for one in known if one not in [*adding, *alone, *selecting]]
    if not (adding or alone or selecting):
        parts += [f"{one.arm} less {one.against}: {points(one.difference)}, {told(one)}." for one in rest]
    if adding:
        helped = sum(one.verdict == "helped" for one in adding)
        hurt = sum(one.verdict == "hurt" for one in adding)
        parts.append(
            "So use them where they helped."
            if helped
            else "So don't bother."
            if hurt or all(_no_gain(one) for one in adding)
            else "So there is no proof that it is worth it."
        )
    return " ".join(parts)


def _no_gain(one: Comparison) -> bool:
    return one.verdict in {"hurt", "did not help"}


def _summed(what: str, comparisons: Sequence[Comparison]) -> str:
    counts = {word: sum(one.verdict == word for one in comparisons) for word in ("helped", "hurt", "did not help", "cannot tell")}
    if len(comparisons) == 1:
        return f"{what}: {points(comparisons[0].difference)} points of accuracy, {told(comparisons[0])}."
    lowest = min(one.difference.value for one in comparisons)
    highest = max(one.difference.value for one in comparisons)
    words = ", ".join(f"{word} in {num}" for word, num in counts.items() if num)
    return f"{what}: {100 * lowest:+.1f} to {100 * highest:+.1f} points of accuracy; {words} of {len(comparisons)} comparisons."


def parsed(requirement: str, arms: Sequence[str], amounts: Sequence[str]) -> tuple[str, str, str, str | None]:
    """Arm, `>` or `>=`, arm or accuracy, amount; raises RequestError."""
    match = _REQUIREMENT.match(requirement)
    if match is None:
        raise RequestError(f'--require {requirement!r}: write it like "curated > random", "real+curated >= real" or "curated > 0.9 @ 20"')
    arm, relation, other, amount = match.groups()
    for name in (arm, other):
        if name not in arms and not (name == other and _as_accuracy(name) is not None):
            raise RequestError(f"--require {requirement!r}: there is no arm {name!r}; there are {', '.join(arms)}")
    if amount is not None and amount not in amounts:
        raise RequestError(f"--require {requirement!r}: {amount} is none of the amounts of real data; there are {', '.join(amounts)}")
    return arm, relation, other, amount


def _as_accuracy(text: str) -> float | None:
    try:
        value = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def holds(requirement: str, result: EvaluateResult) -> bool:
    """Whether a requirement holds in every setting of the first table that it speaks of.

    `a > b`: a helped over b. `a >= b`: a is not proven to hurt. With an accuracy in place of b: the whole interval lies above it, or not
    all of it below.
    """
    settings = result.tables[0].settings if result.tables else []
    arms = [name for setting in settings for name in setting.arms]
    arm, relation, other, amount = parsed(requirement, arms, [setting.amount for setting in settings])
    found = []
    for setting in settings:
        if amount is not None and setting.amount != amount:
            continue
        level = None if other in setting.arms else _as_accuracy(other)
        if level is not None:
            accuracy = setting.arms[arm].accuracy
            found.append(accuracy.low > level if relation == ">" else accuracy.high >= level)
            continue
        one = next((one for one in setting.comparisons if (one.arm, one.against) == (arm, other)), None)
        if one is None:
            return False
        found.append(one.verdict == "helped" if relation == ">" else one.verdict != "hurt")
    return bool(found) and all(found)
