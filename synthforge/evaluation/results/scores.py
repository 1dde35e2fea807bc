"""From predictions to figures with intervals: accuracy, recall, calibration, comparisons of arms, exchange rates.

Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from synthforge.arrays import Bools, Doubles, Floats, Ints
from synthforge.evaluation.results.types import ArmScore, Claim, Comparison, Kind, Worth
from synthforge.evaluation.trainer.train import Predictions
from synthforge.recipe.evaluation import ArmConfig, MixingConfig
from synthforge.statistics import Estimate, Measured, estimate, exchange, share, verdicts

BINS = 15
"""Bins of the calibration error."""


@dataclass(frozen=True)
class Outcomes:
    """Results of all trainings of one arm in one setting."""

    correct_DSV: Doubles
    calibration_DS: Doubles
    """Expected calibration error."""
    log_loss_DS: Doubles

    @classmethod
    def of(cls, results: Sequence[Sequence[Predictions]], truth_V: Ints) -> Outcomes:
        """From the predictions of each draw and seed."""
        correct = [[(one.predicted_V == truth_V).astype(np.float64) for one in by_seed] for by_seed in results]
        calibration = [[calibration_error(one.confidence_V, one.predicted_V == truth_V) for one in by_seed] for by_seed in results]
        log_loss = [[float(-np.log(np.maximum(one.probability_V.astype(np.float64), 1e-6)).mean()) for one in seeds] for seeds in results]
        return cls(np.array(correct), np.array(calibration), np.array(log_loss))


def calibration_error(confidence_V: Floats, correct_V: Bools) -> float:
    """Expected calibration error: mean gap of confidence and accuracy over bins (Guo et al. 2017, arXiv 1706.04599)."""
    bin_V = np.minimum((confidence_V * BINS).astype(np.int64), BINS - 1)
    distance = np.bincount(bin_V, weights=correct_V - confidence_V.astype(np.float64), minlength=BINS)
    return float(np.abs(distance).sum() / len(bin_V))


def arm_score(arm: str, outcomes: Outcomes, images: float, truth_V: Ints, classes: Sequence[str]) -> ArmScore:
    """Figures of one arm."""
    accuracy = estimate(outcomes.correct_DSV)
    recall = {name: Measured.share(one) for name, one in _by_class(outcomes.correct_DSV, truth_V, classes).items()}
    num_draws, num_seeds = outcomes.correct_DSV.shape[:2]
    return ArmScore(
        arm=arm,
        images=round(images),
        accuracy=Measured.share(accuracy),
        interval_over=accuracy.over,
        recall=recall,
        calibration_error=round(float(outcomes.calibration_DS.mean()), 5),
        log_loss=round(float(outcomes.log_loss_DS.mean()), 5),
        draws=num_draws,
        seeds=num_seeds,
    )


def _by_class(values_DSV: Doubles, truth_V: Ints, classes: Sequence[str]) -> dict[str, Estimate]:
    """The mean over the holdout images of each class that has some."""
    return {name: estimate(values_DSV[:, :, truth_V == number]) for number, name in enumerate(classes) if (truth_V == number).any()}


def pairs(arms: Mapping[str, ArmConfig], mixing: MixingConfig) -> list[tuple[str, str]]:
    """Arms to compare: each with real only, and curated images with random ones in their place."""
    pairs_of_arms = []
    by_parts = {(tuple(arm.of), arm.mixing or mixing): name for name, arm in arms.items()}
    real = next((name for name, arm in arms.items() if arm.of == ["real"]), None)
    for name, arm in arms.items():
        swap = {"curated": "random", "more-curated": "more"}
        plain = tuple(swap.get(source, source) for source in arm.of)
        if plain != tuple(arm.of) and (other := by_parts.get((plain, arm.mixing or mixing))) is not None:
            pairs_of_arms.append((name, other))
        if real is not None and name != real:
            pairs_of_arms.append((name, real))
    return pairs_of_arms


def compared(differences: Sequence[tuple[str, str, Doubles]], truth_V: Ints, classes: Sequence[str], margin: float) -> list[Comparison]:
    """Comparisons from all differences (D, S, V) of a table."""
    judged = verdicts([values_DSV for _, _, values_DSV in differences], margin)
    return [
        Comparison(
            arm=arm,
            against=against,
            difference=Measured.difference(one.difference),
            p_adjusted=round(one.p_adjusted, 5),
            verdict=one.word,
            draws_needed=one.draws_needed,
            interval_over=one.difference.over,
            by_class={name: Measured.difference(its) for name, its in _by_class(values_DSV, truth_V, classes).items()},
        )
        for (arm, against, values_DSV), one in zip(differences, judged, strict=True)
    ]


def claimed(kinds: Mapping[tuple[Kind, str], Sequence[Doubles]], margin: float) -> list[Claim]:
    """One claim for each kind, from the mean of its differences (D, S, V). Amounts are paired by draw number."""
    judged = verdicts([np.mean(differences, axis=0) for differences in kinds.values()], margin)
    return [
        Claim(
            kind=kind,
            what=what,
            comparisons=len(differences),
            difference=Measured.difference(one.difference),
            lowest=round(float(min(values.mean() for values in differences)), 5),
            highest=round(float(max(values.mean() for values in differences)), 5),
            p_adjusted=round(one.p_adjusted, 5),
            verdict=one.word,
            draws_needed=one.draws_needed,
            interval_over=one.difference.over,
        )
        for ((kind, what), differences), one in zip(kinds.items(), judged, strict=True)
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
        curve: real images per class and outcomes of the real-only arm; from few images to many.
        num_real: real images per class in the arm.
        num_others: other images per class in the arm.
        without: the arm's real images alone. None: `recovered` is not measured.
        more_real: the arm with more real images in place of its other ones. None: likewise.
    """
    rate_of = exchange([one.correct_DSV for _, one in curve], [size for size, _ in curve], outcomes.correct_DSV)
    recovered = None
    if without is not None and more_real is not None:
        recovered = share(outcomes.correct_DSV - without.correct_DSV, more_real.correct_DSV - without.correct_DSV)
    equivalent = rate_of.equivalent
    gain = Measured(value=equivalent.value - num_real, low=equivalent.low - num_real, high=equivalent.high - num_real)
    has_rate = gain.low > 0 and not (rate_of.is_at_least or rate_of.is_at_most or rate_of.low_is_end)
    rate = Measured(value=num_others / gain.value, low=num_others / gain.high, high=num_others / gain.low) if has_rate else None
    return Worth(
        arm=arm,
        equivalent=equivalent.rounded(2),
        low_is_end=rate_of.low_is_end,
        high_is_end=rate_of.high_is_end,
        at_least=rate_of.is_at_least,
        at_most=rate_of.is_at_most,
        more_real=gain.rounded(2),
        others_per_real=rate.rounded(3) if rate is not None else None,
        recovered=recovered.rounded(4) if recovered is not None else None,
    )
