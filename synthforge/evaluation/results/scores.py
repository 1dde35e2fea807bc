"""From predictions to figures: accuracy, recall by class, calibration, comparisons of arms, exchange rates; each with its interval.

Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthforge.evaluation.trainer.train import Predictions
from synthforge.recipe.evaluation import ArmConfig, MixingConfig
from synthforge.statistics import Estimate, Verdict, estimate, exchange, recovered, verdicts

Floats = NDArray[np.float64]
BINS = 15
"""Of calibration."""


@dataclass(frozen=True)
class Measured:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, one: Estimate) -> Measured:
        """Of an estimate."""
        low, high = one.interval()
        return cls(round(one.value, 5), round(low, 5), round(high, 5))

    @classmethod
    def share(cls, one: Estimate) -> Measured:
        """Of an estimate that lies between 0 and 1."""
        found = cls.of(one)
        return cls(found.value, max(found.low, 0.0), min(found.high, 1.0))

    @classmethod
    def difference(cls, one: Estimate, largest: float = 1.0) -> Measured:
        """Of an estimate that lies between -largest and largest."""
        found = cls.of(one)
        return cls(found.value, max(found.low, -largest), min(found.high, largest))


@dataclass(frozen=True)
class Outcomes:
    """All trainings of one arm in one setting."""

    correct_DSV: Floats
    calibration_DS: Floats
    """Expected calibration error."""
    log_loss_DS: Floats

    @classmethod
    def of(cls, results: Sequence[Sequence[Predictions]], truth_V: NDArray[np.int64]) -> Outcomes:
        """From the predictions of each draw and seed."""
        correct = [[(one.predicted_V == truth_V).astype(np.float64) for one in by_seed] for by_seed in results]
        calibration = [[calibration_error(one.confidence_V, one.predicted_V == truth_V) for one in by_seed] for by_seed in results]
        log_loss = [[float(-np.log(np.maximum(one.probability_V.astype(np.float64), 1e-6)).mean()) for one in seeds] for seeds in results]
        return cls(np.array(correct), np.array(calibration), np.array(log_loss))


def calibration_error(confidence_V: NDArray[np.float32], correct_V: NDArray[np.bool_]) -> float:
    """Mean distance between confidence and accuracy over bins of equal confidence (Guo et al. 2017, arXiv 1706.04599)."""
    bin_V = np.minimum((confidence_V * BINS).astype(np.int64), BINS - 1)
    distance = np.bincount(bin_V, weights=correct_V - confidence_V.astype(np.float64), minlength=BINS)
    return float(np.abs(distance).sum() / len(bin_V))


@dataclass(frozen=True)
class ArmScore:
    """What one arm is worth on the holdout."""

    arm: str
    images: int
    """In its training set, the mean over draws and seeds."""
    accuracy: Measured
    interval_over: str
    recall: dict[str, Measured]
    """Accuracy on the holdout images of each class."""
    calibration_error: float
    """Mean over trainings."""
    log_loss: float
    draws: int
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """One arm less another, paired by draw, seed and holdout image."""

    arm: str
    against: str
    difference: Measured
    p_adjusted: float
    """For all comparisons of its table together (Holm)."""
    verdict: str
    draws_needed: int | None
    """Of `cannot tell`: draws, or with a single draw seeds, that would tell; None if none would, with these holdout images, and of one
    training, which tells nothing of others."""
    interval_over: str
    by_class: dict[str, Measured]
    """Difference of recall of each class; these intervals are not corrected for their number."""
    steps_change: Measured | None = None
    """What twice the steps add to the difference, of one seed in each draw; None with a single draw, or where it was not measured."""


@dataclass(frozen=True)
class Claim:
    """What all comparisons of one kind tell together, such as curation over random selection at every amount of real data."""

    what: str
    comparisons: int
    difference: Measured
    """Mean over them."""
    lowest: float
    """Of their differences, and the highest."""
    highest: float
    p_adjusted: float
    """For all claims of the table together (Holm)."""
    verdict: str
    draws_needed: int | None
    interval_over: str


@dataclass(frozen=True)
class Answer:
    """To a requirement that compares two arms."""

    claim: Claim
    """Corrected for the other requirements alone, since they were asked beforehand."""
    hurts_at: list[str]
    """Amounts of real data at which the arm is proven to hurt; corrected for these alone."""


@dataclass(frozen=True)
class Worth:
    """Of how many real images an arm is."""

    arm: str
    equivalent: float
    """Real images of each class that give this accuracy, by the real learning curve."""
    equivalent_low: float
    equivalent_high: float
    low_is_end: bool
    """The interval begins where the curve does: the number may be lower."""
    high_is_end: bool
    """It ends where the curve does: the number may be higher."""
    at_least: bool
    """It reaches the end of the curve: the number is a lower bound."""
    at_most: bool
    """It lies below the beginning of the curve."""
    more_real: float
    """`equivalent` less the real images of the arm: how many more its other images are worth."""
    more_real_low: float
    more_real_high: float
    others_per_real: float | None
    """How many of the arm's other images give what one more real image does; None where they may give nothing, or the curve ends."""
    others_per_real_low: float | None
    others_per_real_high: float | None
    recovered: float | None
    """Share of what as many more real images would have gained, and for `curated` alone of what random images lose to as many real ones;
    None where that is not known to be a gain, or was not measured."""
    recovered_low: float | None
    recovered_high: float | None


def arm_score(arm: str, outcomes: Outcomes, images: float, truth_V: NDArray[np.int64], classes: Sequence[str]) -> ArmScore:
    """Figures of one arm."""
    found = estimate(outcomes.correct_DSV)
    recall = {name: Measured.share(one) for name, one in _by_class(outcomes.correct_DSV, truth_V, classes).items()}
    num_draws, num_seeds = outcomes.correct_DSV.shape[:2]
    return ArmScore(
        arm,
        round(images),
        Measured.share(found),
        found.over,
        recall,
        round(float(outcomes.calibration_DS.mean()), 5),
        round(float(outcomes.log_loss_DS.mean()), 5),
        num_draws,
        num_seeds,
    )


def _by_class(values_DSV: Floats, truth_V: NDArray[np.int64], classes: Sequence[str]) -> dict[str, Estimate]:
    """The mean over the holdout images of each class that has some."""
    return {name: estimate(values_DSV[:, :, truth_V == number]) for number, name in enumerate(classes) if (truth_V == number).any()}


def pairs(arms: Mapping[str, ArmConfig], mixing: MixingConfig) -> list[tuple[str, str]]:
    """Which arms are compared: each with real only, and the curated with the random in its place."""
    found = []
    by_parts = {(tuple(arm.of), arm.mixing or mixing): name for name, arm in arms.items()}
    real = next((name for name, arm in arms.items() if arm.of == ["real"]), None)
    for name, arm in arms.items():
        swap = {"curated": "random", "more-curated": "more"}
        plain = tuple(swap.get(source, source) for source in arm.of)
        if plain != tuple(arm.of) and (other := by_parts.get((plain, arm.mixing or mixing))) is not None:
            found.append((name, other))
        if real is not None and name != real:
            found.append((name, real))
    return found


def compared(
    differences: Sequence[tuple[str, str, Floats]], truth_V: NDArray[np.int64], classes: Sequence[str], margin: float
) -> list[Comparison]:
    """Verdicts over the differences (D, S, V) of a whole table."""
    told: list[Verdict] = verdicts([values for _, _, values in differences], margin) if differences else []
    return [
        Comparison(
            arm,
            against,
            Measured.difference(one.difference),
            round(one.p_adjusted, 5),
            one.word,
            one.draws_needed,
            one.difference.over,
            {name: Measured.difference(its) for name, its in _by_class(values_DSV, truth_V, classes).items()},
        )
        for (arm, against, values_DSV), one in zip(differences, told, strict=True)
    ]


def claimed(kinds: Mapping[str, Sequence[Floats]], margin: float) -> list[Claim]:
    """Verdicts on the means of differences (D, S, V) of each kind; draws of one number belong together, whatever their amount."""
    if not kinds:
        return []
    found = verdicts([np.mean(differences, axis=0) for differences in kinds.values()], margin)
    return [
        Claim(
            what,
            len(differences),
            Measured.difference(one.difference),
            round(float(min(values.mean() for values in differences)), 5),
            round(float(max(values.mean() for values in differences)), 5),
            round(one.p_adjusted, 5),
            one.word,
            one.draws_needed,
            one.difference.over,
        )
        for (what, differences), one in zip(kinds.items(), found, strict=True)
    ]


def worth(
    arm: str,
    outcomes: Outcomes,
    curve: Sequence[tuple[float, Outcomes]],
    *,
    num_real: float,
    num_others: float,
    without: Outcomes | None,
    more_real: Outcomes | None,
) -> Worth:
    """The exchange rate of an arm.

    Args:
        curve: outcomes of real only for each number of real images per class, rising.
        num_real: real images per class in the arm.
        num_others: other images per class in the arm.
        without: the same arm with its real images alone; for arms without real images, None.
        more_real: the same arm with more real images in place of the others.
    """
    found = exchange([one.correct_DSV for _, one in curve], [size for size, _ in curve], outcomes.correct_DSV)
    share, interval = (
        recovered(outcomes.correct_DSV, without.correct_DSV, more_real.correct_DSV)
        if without is not None and more_real is not None
        else (None, None)
    )
    gain = found.equivalent - num_real
    has_rate = found.low > num_real and not (found.is_at_least or found.is_at_most or found.low_is_end)
    rates = [round(num_others / size, 3) if has_rate else None for size in (gain, found.high - num_real, found.low - num_real)]
    return Worth(
        arm=arm,
        equivalent=round(found.equivalent, 2),
        equivalent_low=round(found.low, 2),
        equivalent_high=round(found.high, 2),
        low_is_end=found.low_is_end,
        high_is_end=found.high_is_end,
        at_least=found.is_at_least,
        at_most=found.is_at_most,
        more_real=round(gain, 2),
        more_real_low=round(found.low - num_real, 2),
        more_real_high=round(found.high - num_real, 2),
        others_per_real=rates[0],
        others_per_real_low=rates[1],
        others_per_real_high=rates[2],
        recovered=round(share, 4) if share is not None else None,
        recovered_low=round(interval[0], 4) if interval is not None else None,
        recovered_high=round(interval[1], 4) if interval is not None else None,
    )
