"""Means, paired differences, verdicts and exchange rates of arms, with intervals over draws, seeds and holdout images.

Every training of an arm is scored on every holdout image. Trainings come in *draws*: a subset of the real images, with
the generator and pool made from it, trained with some seeds. Draws and seeds are paired across arms.

Variance: draws and images are crossed. The variance of a mean, or of a contrast of arms, is that of the means of draws,
plus that of the means of images, less what both contain. This is two-way clustering (Cameron, Gelbach, Miller 2011,
J. Bus. Econ. Stat. 29), and equals the unbiased estimate of a two-way random-effects model.

Intervals are Student's, with the degrees of freedom of all parts together (Satterthwaite 1946). A bootstrap of five
draws would be much too narrow: its variance is too small by the factor (D - 1) / D, and its tails are not those of t.

Two imagined images are added on which arms differ as much as they can, one each way (Agresti and Min 2005, Stat. Med.
24). Without them, few or no differing images would pass for certainty.

With one draw nothing is known of other draws. Seeds take their place, and the interval is about that draw alone, unless
the variance of other draws is given.

Not covered: dependence among holdout images, such as several images of one person.

Shapes: A arms, D draws, S seeds, V holdout images, K sizes of the real learning curve.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

Doubles = NDArray[np.float64]

CONFIDENCE = 0.95
POWER = 0.8
"""Probability with which `draws_needed` draws find a difference."""
_SIMULATED = 2000
"""Number of simulated means behind an exchange rate's interval."""
_MOST_DRAWS = 1000
"""Largest answer of `draws_needed`."""

Word = Literal["helped", "hurt", "did not help", "cannot tell"]
Over = Literal["draws and images", "seeds and images", "images"]
"""What varies in an interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty."""

    value: float
    error: float
    """Standard error."""
    freedom: float
    """Degrees of freedom of Student's distribution."""
    over: Over

    def interval(self, confidence: float = CONFIDENCE) -> tuple[float, float]:
        """Low and high."""
        half = float(scipy.stats.t.ppf((1 + confidence) / 2, self.freedom)) * self.error
        return self.value - half, self.value + half

    @property
    def p(self) -> float:
        """Two-sided p-value of the hypothesis that the mean is 0; 1 if the mean is 0 and nothing varies."""
        if self.error == 0:
            return 0.0 if self.value else 1.0
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))


class Measured(BaseModel):
    """A figure with its 95 % interval, as results keep it."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, one: Estimate, digits: int = 5) -> Measured:
        """An estimate with its interval, rounded."""
        low, high = one.interval()
        return cls(value=one.value, low=low, high=high).rounded(digits)

    def rounded(self, digits: int) -> Measured:
        """Rounded to so many digits after the point."""
        return Measured(value=round(self.value, digits), low=round(self.low, digits), high=round(self.high, digits))

    @classmethod
    def share(cls, one: Estimate) -> Measured:
        """An estimate with its interval, which lies between 0 and 1."""
        return cls.of(one)._within(0.0, 1.0)

    @classmethod
    def difference(cls, one: Estimate, largest: float = 1.0) -> Measured:
        """An estimate with its interval, which lies between -largest and largest."""
        return cls.of(one)._within(-largest, largest)

    @property
    def leaves_out_0(self) -> bool:
        """Whether the whole interval lies on one side of 0."""
        return self.is_beyond(0.0)

    def is_beyond(self, margin: float) -> bool:
        """Whether the whole interval lies above `margin`, or below `-margin`."""
        return self.low > margin or self.high < -margin

    def _within(self, smallest: float, largest: float) -> Measured:
        return Measured(value=self.value, low=max(self.low, smallest), high=min(self.high, largest))


@dataclass(frozen=True)
class _Parts:
    """Variances of a contrast's mean: by draws, by images, and what both contain."""

    of_draws: float
    of_images: float
    shared: float
    num_draws: int
    num_images: int
    of_other_draws: float = 0.0
    """Variance by other draws than the only one, estimated from `num_draws` seeds."""

    @property
    def variance(self) -> float:
        """At least what either alone would give."""
        return max(self.of_draws + self.of_images - self.shared, self.of_draws, self.of_images) + self.of_other_draws

    @property
    def freedom(self) -> float:
        draws, images = max(self.num_draws - 1, 1), max(self.num_images - 1, 1)
        of_draws = self.of_draws + self.of_other_draws  # estimated from the same seeds
        spread = of_draws**2 / draws + self.of_images**2 / images + self.shared**2 / (draws * images)
        return max(self.variance**2 / spread, 1.0) if spread > 0 else float(images)

    def with_draws(self, num: int) -> _Parts:
        """Expected variances with so many draws."""
        share = self.num_draws / num
        only_images = max(self.of_images - self.shared, 0.0)
        return _Parts(self.of_draws * share, only_images + self.shared * share, self.shared * share, num, self.num_images)


def _clusters(values_DSV: Doubles) -> Doubles:
    """Means (clusters, V). Clusters are draws, or the seeds of a single draw."""
    cells_DV: Doubles = values_DSV[0] if len(values_DSV) == 1 else values_DSV.mean(axis=1)
    return cells_DV


def _parts(values_DSV: Doubles, *, of_counts: bool = True, largest: float = 1.0, of_other_draws: float = 0.0) -> _Parts:
    cells_DV = _clusters(values_DSV)
    num_draws, num_images = cells_DV.shape
    mean_D, mean_V = cells_DV.mean(axis=1), cells_DV.mean(axis=0)
    of_draws = float(mean_D.var(ddof=1)) / num_draws if num_draws > 1 else 0.0
    of_images = _of_images(mean_V, of_counts=of_counts, largest=largest)
    shared = 0.0
    if num_draws > 1 and num_images > 1:
        left_DV = cells_DV - mean_D[:, None] - mean_V + cells_DV.mean()
        shared = float((left_DV**2).sum()) / ((num_draws - 1) * (num_images - 1) * num_draws * num_images)
    return _Parts(of_draws, of_images, shared, num_draws, num_images=num_images, of_other_draws=of_other_draws)


def _of_images(mean_V: Doubles, *, of_counts: bool = True, largest: float = 1.0) -> float:
    """Variance of a mean over images by the choice of images; values lie between -largest and largest."""
    num = len(mean_V)
    return (float(((mean_V - mean_V.mean()) ** 2).sum()) + 2 * largest**2 * of_counts) / (num * max(num - 1, 1))


def estimate(values_DSV: Doubles, *, of_counts: bool = True, largest: float = 1.0, of_other_draws: float = 0.0) -> Estimate:
    """The mean of one arm, or of the paired difference of two, with its standard error.

    Args:
        values_DSV: value of every draw, seed and holdout image.
        of_counts: values say whether an answer is right, or how that differs; False for probabilities.
        largest: largest value of an image: 1, or 2 for a difference of differences.
        of_other_draws: variance by other draws than the only one, estimated from the seeds.
    """
    parts = _parts(values_DSV, of_counts=of_counts, largest=largest, of_other_draws=of_other_draws)
    over: Over = (
        "draws and images" if len(values_DSV) > 1 or of_other_draws else "seeds and images" if values_DSV.shape[1] > 1 else "images"
    )
    return Estimate(float(values_DSV.mean()), parts.variance**0.5, parts.freedom, over)


def of_two_trainings(difference_V: Doubles, correct_SV: Doubles) -> Estimate:
    """The difference of two single trainings that vary as trainings with other seeds do. Intervals are rather too wide.

    Args:
        difference_V: of the two trainings, on each holdout image.
        correct_SV: of trainings with all seeds. With one seed the interval covers holdout images only.
    """
    of_images = _of_images(difference_V)
    # A single training varies S times as much as the mean over all S. What seeds and images share is not counted twice.
    num, parts = len(correct_SV), _parts(correct_SV[None])
    of_seeds, shared = 2 * num * parts.of_draws, 2 * num * parts.shared
    variance = max(of_images + of_seeds - shared, of_images, of_seeds)
    spread = of_images**2 / max(len(difference_V) - 1, 1) + of_seeds**2 / max(num - 1, 1)
    freedom = max(variance**2 / spread, 1.0) if spread > 0 else float(max(len(difference_V) - 1, 1))
    return Estimate(float(difference_V.mean()), variance**0.5, freedom, "seeds and images" if num > 1 else "images")


def adjusted(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979)."""
    order, num = np.argsort(p_values), len(p_values)
    corrected = np.empty(num)
    corrected[order] = np.maximum.accumulate(np.minimum(np.arange(num, 0, -1) * np.asarray(p_values, np.float64)[order], 1.0))
    return [float(p) for p in corrected]


@dataclass(frozen=True)
class Judged:
    """A verdict on whether one arm is better than another."""

    word: Word
    difference: Estimate
    p_adjusted: float
    """P-value of no difference, corrected for the number of comparisons."""
    draws_needed: int | None
    """For `cannot tell`: draws, or seeds of a single draw, that would find this difference with probability `POWER`.
    None: no number would with these images, or there is only one training."""


def verdicts(
    differences: Sequence[Doubles], margin: float, largest: Sequence[float] | None = None, of_other_draws: Sequence[float] | None = None
) -> list[Judged]:
    """A verdict for each paired difference (D, S, V), corrected for their number.

    - `helped`, `hurt`: the difference is not 0. If all arms are the same, at most one evaluation in twenty says so.
    - `did not help`: a gain of `margin` or more is ruled out, wrongly in at most one evaluation in forty.
    - `cannot tell`: neither. One training of each arm (D = S = 1) never tells, since other seeds may differ.

    Args:
        margin: a smaller gain is not worth having.
        largest, of_other_draws: for each difference, as for `estimate`.
    """
    largest, of_other_draws = largest or [1.0] * len(differences), of_other_draws or [0.0] * len(differences)
    estimates = [
        estimate(values_DSV, largest=most, of_other_draws=others)
        for values_DSV, most, others in zip(differences, largest, of_other_draws, strict=True)
    ]
    nonzero = adjusted([one.p for one in estimates])
    smaller = adjusted([_p_below(one, margin) for one in estimates])
    judged = []
    for values_DSV, most, one, p, p_small in zip(differences, largest, estimates, nonzero, smaller, strict=True):
        word, needed = _word(one, p, p_small), None
        if word == "cannot tell" and one.over != "images":
            needed = _draws_needed(_parts(values_DSV, largest=most), one.value, margin, len(estimates))
        judged.append(Judged(word, one, p, needed))
    return judged


def _word(one: Estimate, p_nonzero: float, p_small: float) -> Word:
    if one.over != "images" and p_nonzero < 1 - CONFIDENCE:
        return "helped" if one.value > 0 else "hurt"
    return "did not help" if one.over != "images" and p_small < (1 - CONFIDENCE) / 2 else "cannot tell"


def _p_below(one: Estimate, margin: float) -> float:
    """One-sided p-value of the hypothesis that the mean is at least `margin`."""
    if one.error == 0:
        return 0.0 if one.value < margin else 1.0
    return float(scipy.stats.t.cdf((one.value - margin) / one.error, one.freedom))


def _draws_needed(parts: _Parts, value: float, margin: float, comparisons: int) -> int | None:
    """Fewest draws that tell a difference of this size from 0, or from the margin, with probability `POWER`."""
    wanted = max(abs(value), margin - value)
    level = 1 - (1 - CONFIDENCE) / 2 / comparisons

    def tells(num: int) -> bool:
        expected = parts.with_draws(num)
        errors = scipy.stats.t.ppf(level, expected.freedom) + scipy.stats.t.ppf(POWER, expected.freedom)
        return bool(errors * expected.variance**0.5 <= wanted)

    first = parts.num_draws + 1
    fewest = first + bisect.bisect_left(range(first, _MOST_DRAWS + 1), True, key=tells)
    return fewest if fewest <= _MOST_DRAWS else None


# Exchange rate


@dataclass(frozen=True)
class Exchange:
    """How many real images give an accuracy."""

    equivalent: Measured
    """Real images per class that give this accuracy, by the real learning curve; at most its ends."""
    low_is_end: bool
    """The interval begins at the curve's beginning, so the number may be lower."""
    high_is_end: bool
    """The interval ends at the curve's end, so the number may be higher."""
    is_at_least: bool
    """The accuracy reaches the curve's end, so the number is a lower bound."""
    is_at_most: bool
    """The accuracy does not exceed the curve's beginning, so the number is an upper bound."""


def exchange(curve: Sequence[Doubles], sizes: Sequence[float], arm: Doubles, seed: int = 0) -> Exchange:
    """How many real images per class give the arm's accuracy.

    The curve is linear in the logarithm of the number between measured sizes, and made monotone (isotonic regression).
    The interval: all means are drawn together from Student's distribution with their covariance, and each draw is
    inverted.

    Args:
        curve: correct (D, S, V) at each of K sizes, with the arm's draws, seeds and images.
        sizes: real images per class, increasing.
        arm: correct (D, S, V).
    """
    mean_A, root_AA, freedom = _joint([*curve, arm])
    rng = np.random.default_rng(seed)
    normal = rng.standard_normal((_SIMULATED, len(mean_A))) @ root_AA.T
    scale = np.sqrt(freedom / rng.chisquare(freedom, (_SIMULATED, 1)))
    logs_K = np.log(np.asarray(sizes, np.float64))
    weights_K = 1 / np.maximum((root_AA**2).sum(axis=1)[:-1], 1e-12)
    places = [_invert(logs_K, means[:-1], float(means[-1]), weights_K) for means in (mean_A, *(mean_A + normal * scale))]
    low, high = np.quantile(np.exp(places[1:]), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Exchange(
        equivalent=Measured(value=float(np.exp(places[0])), low=float(low), high=float(high)),
        low_is_end=bool(np.log(low) <= logs_K[0] + 1e-9),
        high_is_end=bool(np.log(high) >= logs_K[-1] - 1e-9),
        is_at_least=bool(places[0] >= logs_K[-1]),
        is_at_most=bool(places[0] <= logs_K[0]),
    )


def _joint(arms: Sequence[Doubles], of_other_draws: Sequence[float] = ()) -> tuple[Doubles, Doubles, float]:
    """Means (A,), a root of their covariance (A, A), and the fewest degrees of freedom of any arm.

    Other draws are assumed to move all arms alike.
    """
    others_A = np.array(of_other_draws or [0.0] * len(arms))
    cells_ADV = np.stack([_clusters(values) for values in arms])
    _, num_draws, num_images = cells_ADV.shape
    mean_A, mean_AD, mean_AV = cells_ADV.mean(axis=(1, 2)), cells_ADV.mean(axis=2), cells_ADV.mean(axis=1)
    covariance_AA = np.atleast_2d(np.cov(mean_AV)) / num_images
    if num_draws > 1:
        left_AN = (cells_ADV - mean_AD[:, :, None] - mean_AV[:, None] + mean_A[:, None, None]).reshape(len(arms), -1)
        shared_AA = left_AN @ left_AN.T / ((num_draws - 1) * (num_images - 1) * num_draws * num_images)
        covariance_AA = covariance_AA + np.atleast_2d(np.cov(mean_AD)) / num_draws - shared_AA
    covariance_AA = covariance_AA + np.sqrt(np.outer(others_A, others_A))
    values_A, vectors_AA = np.linalg.eigh(covariance_AA)
    freedom = min(_parts(values, of_other_draws=others).freedom for values, others in zip(arms, others_A.tolist(), strict=True))
    return mean_A, vectors_AA * np.sqrt(np.maximum(values_A, 0)), freedom


def _invert(logs_K: Doubles, curve_K: Doubles, value: float, weights_K: Doubles) -> float:
    """Where a monotone curve reaches a value, in log n: at most its ends, and the middle of a flat stretch."""
    rising_K = scipy.optimize.isotonic_regression(curve_K, weights=weights_K).x
    if value <= rising_K[0]:
        return float(logs_K[0])
    if value >= rising_K[-1]:
        return float(logs_K[-1])
    above = int(np.searchsorted(rising_K, value, side="right"))
    below = int(np.searchsorted(rising_K, value, side="left")) - 1
    if above - below > 1:  # a flat stretch has this very value
        return float((logs_K[below + 1] + logs_K[above - 1]) / 2)
    share = (value - rising_K[below]) / (rising_K[above] - rising_K[below])
    return float(logs_K[below] + share * (logs_K[above] - logs_K[below]))


def share(part: Doubles, whole: Doubles, of_other_draws: Sequence[float] = (0.0, 0.0)) -> Measured | None:
    """The ratio of two means of paired differences (D, S, V), with its 95 % interval (Fieller 1954).

    None: the whole is negative or can't be told from 0, so a share has no bounds.

    Args:
        of_other_draws: for part and whole, as for `estimate`.
    """
    mean_A, root_AA, freedom = _joint([part, whole], of_other_draws)
    covariance_AA = root_AA @ root_AA.T
    t2 = float(scipy.stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) ** 2
    a = mean_A[1] ** 2 - t2 * covariance_AA[1, 1]
    if a <= 0 or mean_A[1] <= 0:
        return None
    b = mean_A[0] * mean_A[1] - t2 * covariance_AA[0, 1]
    c = mean_A[0] ** 2 - t2 * covariance_AA[0, 0]
    half = math.sqrt(max(b * b - a * c, 0.0))
    return Measured(value=float(mean_A[0] / mean_A[1]), low=float((b - half) / a), high=float((b + half) / a))
