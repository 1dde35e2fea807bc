"""From predictions to figures: accuracy, recall by class, calibration, comparisons of arms, exchange rates; each with its interval.

Shapes: D draws, S seeds, V holdout images, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synthforge.evaluation.results.types import ArmScore, Claim, Comparison, Kind, Worth
from synthforge.evaluation.trainer.train import Predictions
from synthforge.recipe.evaluation import ArmConfig, MixingConfig
from synthforge.statistics import Estimate, Measured, Verdict, estimate, exchange, recovered, verdicts

Floats = NDArray[np.float64]
BINS = 15
"""Of calibration."""


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


def arm_score(arm: str, outcomes: Outcomes, images: float, truth_V: NDArray[np.int64], classes: Sequence[str]) -> ArmScore:
    """Figures of one arm."""
    found = estimate(outcomes.correct_DSV)
    recall = {name: Measured.share(one) for name, one in _by_class(outcomes.correct_DSV, truth_V, classes).items()}
    num_draws, num_seeds = outcomes.correct_DSV.shape[:2]
    return ArmScore(
        arm=arm,
        images=round(images),
        accuracy=Measured.share(found),
        interval_over=found.over,
        recall=recall,
        calibration_error=round(float(outcomes.calibration_DS.mean()), 5),
        log_loss=round(float(outcomes.log_loss_DS.mean()), 5),
        draws=num_draws,
        seeds=num_seeds,
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
            arm=arm,
            against=against,
            difference=Measured.difference(one.difference),
            p_adjusted=round(one.p_adjusted, 5),
            verdict=one.word,
            draws_needed=one.draws_needed,
            interval_over=one.difference.over,
            by_class={name: Measured.difference(its) for name, its in _by_class(values_DSV, truth_V, classes).items()},
        )
        for (arm, against, values_DSV), one in zip(differences, told, strict=True)
    ]


def claimed(kinds: Mapping[tuple[Kind, str], Sequence[Floats]], margin: float) -> list[Claim]:
    """Verdicts on the means of differences (D, S, V) of each kind; draws of one number belong together, whatever their amount."""
    if not kinds:
        return []
    found = verdicts([np.mean(differences, axis=0) for differences in kinds.values()], margin)
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
        for ((kind, what), differences), one in zip(kinds.items(), found, strict=True)
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
    gained = (
        recovered(outcomes.correct_DSV, without.correct_DSV, more_real.correct_DSV)
        if without is not None and more_real is not None
        else None
    )
    equivalent = Measured(value=found.equivalent, low=found.low, high=found.high)
    gain = Measured(value=found.equivalent - num_real, low=found.low - num_real, high=found.high - num_real)
    has_rate = gain.low > 0 and not (found.is_at_least or found.is_at_most or found.low_is_end)
    rate = Measured(value=num_others / gain.value, low=num_others / gain.high, high=num_others / gain.low) if has_rate else None
    return Worth(
        arm=arm,
        equivalent=equivalent.rounded(2),
        low_is_end=found.low_is_end,
        high_is_end=found.high_is_end,
        at_least=found.is_at_least,
        at_most=found.is_at_most,
        more_real=gain.rounded(2),
        others_per_real=rate.rounded(3) if rate is not None else None,
        recovered=gained.rounded(4) if gained is not None else None,
    )
