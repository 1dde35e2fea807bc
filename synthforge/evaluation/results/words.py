"""An evaluation in words: differences, exchange rates, the verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from synthforge.evaluation.results.kinds import kind_of, use_of
from synthforge.evaluation.results.types import Claim, Comparison, Kind, SettingResult, TableResult, Use, Worth
from synthforge.recipe.evaluation import ArmConfig
from synthforge.statistics import Measured, Over, Word


def points(one: Measured) -> str:
    """A difference of accuracies in points, with its 95 % interval, for table cells: "+1.0 [+0.2, +1.8]"."""
    return f"{100 * one.value:+.1f} [{100 * one.low:+.1f}, {100 * one.high:+.1f}]"


def change(one: Measured, unit: str = "points of accuracy") -> str:
    """The same with its unit, for sentences: "+1.0 points of accuracy [+0.2, +1.8]"."""
    return points(one).replace(" [", f" {unit} [")


def lost(one: Measured, unit: str = "points of accuracy") -> str:
    """A loss of accuracy with its unit and 95 % interval: "3.1 points of accuracy [1.2, 5.0]"."""
    return f"{100 * one.value:.1f} {unit} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def listed(words: Sequence[str]) -> str:
    """An enumeration in a sentence: "5, 20 and 50"."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def percent(one: Measured) -> str:
    """An accuracy with its 95 % interval: "89.3 % [85.7, 92.9]"."""
    return f"{100 * one.value:.1f} % [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def number(value: float) -> str:
    """A number with three significant digits."""
    return f"{value + 0.0:.3g}"  # never "-0"


def most(comparison: Comparison) -> str:
    """The class whose recall changes most, among those whose interval excludes 0; empty if there is none."""
    known = {name: one for name, one in comparison.by_class.items() if one.leaves_out_0}
    if not known:
        return ""
    name = max(known, key=lambda name: abs(known[name].value))
    return f"largest change in class {name}: {change(known[name], 'points of recall')}"


def told(comparison: Comparison | Claim) -> str:
    """The verdict of a comparison. Where it is `cannot tell`, also what would decide it."""
    if comparison.verdict != "cannot tell":
        return comparison.verdict
    if comparison.interval_over == "images":
        return "cannot tell from one training run; raise `seeds`"
    if comparison.draws_needed is None:
        return "cannot tell; the test set is too small to decide it, however many seeds or draws are used"
    return f"cannot tell; about {comparison.draws_needed} {_REPEATS[comparison.interval_over]} would probably decide it"


_REPEATS: dict[Over, str] = {"draws and images": "draws", "seeds and images": "seeds"}
"""What to raise, by what an interval covers."""


def sentence_of(setting: SettingResult) -> str:
    """All figures of one setting, one sentence each."""
    real, ratio = setting.arms.get("real"), setting.synthetic_per_real
    amount = f"{number(setting.real_per_class)} real images per class ({setting.budget:,} in total)"
    parts = [f"With {amount} and {number(ratio)} synthetic {'image' if ratio == 1 else 'images'} per real image"]
    if real is not None:
        parts.append(f"Accuracy of `real`: {percent(real.accuracy)}")
    parts += [f"`{one.arm}` minus `{one.against}`: {change(one.difference)} ({told(one)})" for one in setting.comparisons]
    parts += [f"Exchange rate of `{one.arm}`: {worth_in_words(one)}" for one in setting.worth.values()]
    reasons: dict[str, list[str]] = {}
    for name, reason in setting.missing.items():
        reasons.setdefault(reason, []).append(name)
    parts += [f"Not measured: {', '.join(names)} ({reason})" for reason, names in reasons.items()]
    return parts[0] + ": " + ". ".join(parts[1:] or ["Nothing was measured"]) + "."


def worth_in_words(one: Worth) -> str:
    """How many real images per class an arm, or what it adds to its real images, is worth."""
    low, high = ("≤ " if one.low_is_end else ""), ("≥ " if one.high_is_end else "")
    gain, rate, equal = one.more_real, one.others_per_real, number(one.equivalent.value)
    if one.at_least:
        bound = "lower bound unknown" if one.low_is_end else f"at least {number(one.equivalent.low)}"
        return f"is worth at least {equal} real images per class (95 % interval: {bound}; the learning curve ends there)"
    if one.at_most:
        bound = "upper bound unknown" if one.high_is_end else f"at most {number(one.equivalent.high)}"
        return f"is worth at most {equal} real images per class (95 % interval: {bound}; the learning curve starts there)"
    if gain.high <= 0 and not one.high_is_end:
        return (
            f"its added images cost as much accuracy as removing {number(-gain.value)} real images per class "
            f"[{number(-gain.high)}, {low and '≥ '}{number(-gain.low)}]"
        )
    # Equal: the arm has no real images.
    verb, some = ("is worth", "of its images") if gain == one.equivalent else ("its added images are worth", "of them")
    words = f"{verb} {number(gain.value)} real images per class [{low}{number(gain.low)}, {high}{number(gain.high)}]"
    if rate is None:
        return words
    return f"{words}, so {number(rate.value)} {some} replace one real image [{high and '≤ '}{number(rate.low)}, {number(rate.high)}]"


def verdict_of(tables: Sequence[TableResult], curve: Sequence[tuple[float, Measured]], arms: Mapping[str, ArmConfig]) -> str:
    """Whether to use the synthetic images, over all settings of the first table that compares anything."""
    table = next((table for table in tables if table.compares), None)
    if table is None:
        if not curve:
            return "No arms were compared."
        rising = ", ".join(f"{percent(accuracy)} with {number(size)}" for size, accuracy in curve)
        return f"Accuracy of tuned classifiers that were trained on real images only: {rising} images per class."
    kinds: dict[tuple[Kind, str], list[Comparison]] = {}
    for one in (one for setting in table.settings for one in setting.comparisons):
        kinds.setdefault(kind_of(arms[one.arm], arms[one.against]), []).append(one)
    claims = {(claim.kind, claim.what): claim for claim in table.claims}
    parts = []
    if table.origin == "elsewhere":
        parts.append("The generator was trained elsewhere, so it may have seen more real images than the classifiers.")
    parts += [_summed(claims[kind], found) for kind, found in kinds.items()]
    if (use := use_of(table, arms)) != "not measured":
        parts.append(f"{USES[use]}.")
    parts.append(_steps_in_words(table))
    return " ".join(filter(None, parts))


def _steps_in_words(table: TableResult) -> str:
    """What twice the steps change; empty if no change is significant."""
    short = [setting for setting in table.settings if not setting.has_enough_steps]
    if changed := _largest(one for setting in short for one in [*setting.steps_check.values(), setting.steps_check_mean]):
        return (
            f"Training was too short: with twice the steps, accuracy still changes by up to {100 * changed:.1f} points. "
            "Raise `trainer.steps` before you rely on these differences."
        )
    if changed := _largest(setting.steps_check_mean for setting in table.settings):
        return (
            f"With twice the steps, accuracy still changes by up to {100 * changed:.1f} points on average over all arms. "
            "Smaller differences may come from too few steps."
        )
    return ""


def _largest(changes: Iterable[Measured | None]) -> float:
    """The largest change whose interval excludes 0; 0 if there is none."""
    return max((abs(one.value) for one in changes if one is not None and one.leaves_out_0), default=0.0)


USES: dict[Use, str] = {
    "everywhere": "Use the synthetic images",
    "where they helped": "Use the synthetic images only for the amounts of real data where they helped",
    "nowhere": "Do not add these synthetic images to the real ones",
    "no proof": "It is unclear whether adding the synthetic images helps",
    "not measured": "There is no verdict on adding the synthetic images",
}
"""Whether to use the images, in words."""
_COUNTED: dict[Word, str] = {"helped": "helped", "hurt": "hurt", "did not help": "no relevant gain", "cannot tell": "not significant"}


def _summed(claim: Claim, comparisons: Sequence[Comparison]) -> str:
    if len(comparisons) == 1:
        return f"{claim.what}: {change(claim.difference)} ({told(claim)})."
    counts = {word: sum(one.verdict == word for one in comparisons) for word in _COUNTED}
    words = ", ".join(f"{num} {_COUNTED[word]}" for word, num in counts.items() if num)
    return (
        f"{claim.what}: {change(claim.difference, 'points of accuracy on average')} ({told(claim)}). The {len(comparisons)} comparisons "
        f"range from {100 * claim.lowest:+.1f} to {100 * claim.highest:+.1f} points: {words}."
    )
