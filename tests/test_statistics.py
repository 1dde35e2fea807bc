"""Do intervals cover as often as they say, verdicts err as seldom, and does the exchange rate know real images when it
sees them?"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from synthforge.evaluation.results.scores import claimed
from synthforge.statistics import adjusted, estimate, exchange, of_two_trainings, share, verdicts

SIZES = [5, 10, 20, 50, 80]
CURVE = [0.5, 0.6, 0.67, 0.72, 0.74]


def trainings(seed: int, means: list[float], D: int = 5, S: int = 2, V: int = 300, sd: float = 0.02) -> list[Any]:
    """Right or wrong, (D, S, V) for each arm: draws, seeds and images are better or worse, partly in the same way for
    all arms."""
    rng = np.random.default_rng(seed)
    shared_V, shared_D = rng.uniform(-0.2, 0.2, V), rng.normal(0, sd, D)
    arms = []
    for mean in means:
        of_draw_D = 0.7 * (shared_D + rng.normal(0, sd, D))
        chance = mean + shared_V + rng.uniform(-0.1, 0.1, V) + of_draw_D[:, None, None] + rng.normal(0, sd / 2, (D, S, 1))
        chance = chance + rng.uniform(-0.05, 0.05, (D, 1, V))
        arms.append((rng.random((D, S, V)) < chance).astype(float))
    return arms


@pytest.mark.parametrize(("D", "S", "sd"), [(5, 2, 0.02), (5, 2, 0.0), (10, 1, 0.02), (1, 8, 0.0)])
def test_intervals_cover_as_often_as_they_say(D: int, S: int, sd: float) -> None:
    for covered in _coverage(D, S, 1000, sd, turns=600):
        assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize(("D", "S", "V", "sd"), [(5, 2, 300, 0.0), (10, 1, 100, 0.02), (5, 2, 300, 0.02)])
def test_of_few_images_intervals_cover_rather_too_often(D: int, S: int, V: int, sd: float) -> None:
    """The two imagined images (see `statistics`) count, where holdout images are few."""
    for covered in _coverage(D, S, V, sd, turns=400):
        assert 0.94 <= covered <= 0.995


def _coverage(D: int, S: int, V: int, sd: float, turns: int) -> tuple[float, float]:
    """How often the interval of a difference holds it, and that of an accuracy."""
    hits = []
    for turn in range(turns):
        one, other = trainings(turn, [0.60, 0.62], D, S, V, sd)
        (low, high), (lowest, highest) = estimate(other - one).interval(), estimate(one).interval()
        hits.append((low <= 0.02 <= high, lowest <= 0.60 <= highest))
    of_difference, of_accuracy = np.mean(hits, axis=0)
    return float(of_difference), float(of_accuracy)


@pytest.mark.parametrize("sd", [0.0, 0.02, 0.05])
def test_two_trainings_that_differ_by_chance_alone_are_covered(sd: float) -> None:
    hits = []
    for turn in range(600):
        rng = np.random.default_rng(turn)
        trained = (rng.random((6, 300)) < 0.7 + rng.normal(0, sd, (6, 1))).astype(float)
        low, high = of_two_trainings(trained[5] - trained[0], trained[:5]).interval()
        hits.append(low <= 0 <= high)
    assert 0.94 <= np.mean(hits) <= 0.997


def test_of_equal_arms_one_evaluation_in_twenty_errs_at_most() -> None:
    words: Counter[str] = Counter()
    for turn in range(300):
        base, *others = trainings(turn, [0.6] * 4, sd=0.005)
        found = {verdict.word for verdict in verdicts([other - base for other in others], 0.01)}
        words["erred"] += bool(found & {"helped", "hurt"})
    assert words["erred"] <= 0.05 * 300 + 2 * math.sqrt(0.05 * 0.95 * 300)


def test_a_gain_that_is_there_is_seldom_ruled_out() -> None:
    """Of exactly the margin: at most one evaluation in forty says that it did not help."""
    words = Counter(verdicts([other - one], 0.02)[0].word for one, other in (trainings(turn, [0.60, 0.62]) for turn in range(400)))
    assert words["did not help"] <= 0.025 * 400 + 2 * math.sqrt(0.025 * 400)
    assert words["hurt"] <= 0.025 * 400


@pytest.mark.parametrize(("gain", "wrong", "level"), [(0.0, {"helped", "hurt"}, 0.05), (0.02, {"did not help", "hurt"}, 0.025)])
def test_claims_over_amounts_err_as_seldom(gain: float, wrong: set[str], level: float) -> None:
    """Three amounts with the same holdout images, and draws that are better or worse at all of them."""
    turns, erred = 300, 0
    for turn in range(turns):
        rng = np.random.default_rng(turn)
        shared_V, mended_V, of_draw_D = rng.uniform(-0.2, 0.2, 300), rng.normal(0, 0.05, 300), rng.normal(0, 0.01, 5)
        differences = []
        for accuracy in (0.6, 0.65, 0.7):
            own_D = of_draw_D + rng.normal(0, 0.01, 5)
            before = rng.random((5, 2, 300)) < accuracy + shared_V + rng.normal(0, 0.01, (5, 1, 1))
            after = rng.random((5, 2, 300)) < accuracy + shared_V + gain + mended_V - mended_V.mean() + own_D[:, None, None]
            differences.append(after.astype(float) - before)
        (claim,) = claimed({("adding", "synthetic images"): differences}, 0.02)
        erred += claim.verdict in wrong
    assert erred <= level * turns + 2 * math.sqrt(level * turns)


def test_verdicts_say_what_is_planted() -> None:
    base, better, worse, same = trainings(3, [0.6, 0.75, 0.45, 0.6], V=5000, sd=0.001)
    words = [verdict.word for verdict in verdicts([better - base, worse - base, same - base, base - base], 0.05)]
    assert words == ["helped", "hurt", "did not help", "did not help"]


def test_an_arm_beside_itself_is_no_different() -> None:
    (arm,) = trainings(0, [0.6])
    same = estimate(arm - arm)
    low, high = same.interval()
    assert low == -high and 0 < high < 0.01 and same.p == 1.0
    assert verdicts([arm - arm], 0.0)[0].word == "cannot tell"


def test_how_many_draws_would_tell_is_about_right() -> None:
    """Where so many are drawn, about four in five evaluations tell."""
    needed = [verdicts([other - one], 0.0)[0].draws_needed for one, other in (trainings(t, [0.60, 0.62], V=4000) for t in range(40))]
    usual = int(np.median([number for number in needed if number is not None]))
    assert 5 < usual < 200
    told = [verdicts([other - one], 0.0)[0].word for one, other in (trainings(100 + t, [0.60, 0.62], D=usual, V=4000) for t in range(40))]
    assert told.count("helped") >= 27


@pytest.mark.parametrize(("D", "S", "V"), [(5, 2, 150), (1, 2, 200), (5, 2, 50)])
def test_nearly_all_right_is_no_certainty(D: int, S: int, V: int) -> None:
    """At the ceiling few images differ, or none: a gain above the margin is seldom ruled out, and intervals still
    cover."""
    covered, ruled_out, turns = [], 0, 300
    for turn in range(turns):
        rng = np.random.default_rng(turn)
        wrong_V, mended_V = rng.random(V) < 0.02, rng.random(V) < 0.5  # all trainings fail on the same images, of which half are mended
        one = np.broadcast_to(~wrong_V, (D, S, V)).astype(float)
        other = np.broadcast_to(~wrong_V | mended_V, (D, S, V)).astype(float)
        low, high = estimate(other - one).interval()
        covered.append(low <= 0.01 <= high)
        ruled_out += verdicts([other - one], 0.005)[0].word == "did not help"
    assert np.mean(covered) >= 0.92
    assert ruled_out <= 0.025 * turns + 2 * math.sqrt(0.025 * turns)


def test_images_that_are_too_few_are_not_made_up_for_by_draws() -> None:
    one, other = trainings(0, [0.600, 0.605], V=40, sd=0.0)
    (verdict,) = verdicts([other - one], 0.0)
    assert verdict.word == "cannot tell"
    assert verdict.draws_needed is None or abs(verdict.difference.value) > 0.05


def test_exchange_of_real_images_in_disguise_is_one() -> None:
    hits, ends = [], 0
    for turn in range(200):
        *curve, arm = trainings(turn, [*CURVE, CURVE[2]], V=1000)
        found = exchange(curve, SIZES, arm, seed=turn)
        hits.append(found.equivalent.low <= 20 <= found.equivalent.high)
        ends += found.low_is_end or found.high_is_end
    assert 0.92 <= np.mean(hits) <= 0.98
    assert ends <= 10  # so that it is not covered by the whole curve
    *curve, arm = trainings(1, [*CURVE, CURVE[2]], V=20_000, sd=0.0)
    assert exchange(curve, SIZES, arm).equivalent.value == pytest.approx(20, rel=0.1)


def test_exchange_between_sizes_and_beyond_the_ends() -> None:
    *curve, between, below, above = trainings(2, [*CURVE, 0.635, 0.3, 0.9], V=20_000, sd=0.0)
    found = exchange(curve, SIZES, between)
    assert found.equivalent.value == pytest.approx(10 * 2**0.5, rel=0.08) and not (found.is_at_least or found.is_at_most)
    assert exchange(curve, SIZES, below).is_at_most and exchange(curve, SIZES, below).equivalent.value == pytest.approx(5)
    highest = exchange(curve, SIZES, above)
    assert highest.is_at_least and highest.equivalent.value == pytest.approx(80) and highest.equivalent.low == pytest.approx(80)


def test_a_curve_that_falls_by_chance_is_made_monotone() -> None:
    *curve, arm = trainings(4, [0.5, 0.62, 0.61, 0.72, 0.74, 0.615], V=20_000, sd=0.0)
    assert 8 < exchange(curve, SIZES, arm).equivalent.value < 25


def test_share_of_what_real_images_gain() -> None:
    hits = []
    for turn in range(150):
        without, more, arm = trainings(turn, [0.5, 0.67, 0.65])
        found = share(arm - without, more - without)
        hits.append(found is not None and found.low <= 0.15 / 0.17 <= found.high)
    assert 0.90 <= np.mean(hits) <= 1.0
    without, more, arm = trainings(0, [0.5, 0.5, 0.6])
    assert share(arm - without, more - without) is None  # nothing to have a share of


def test_adjusted_p_values_are_those_of_holm() -> None:
    assert adjusted([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjusted([0.9, 0.6]) == [1.0, 1.0]
