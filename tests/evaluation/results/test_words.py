"""Verdicts over settings, and exchange rates at the ends of the curve, in words."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np

from synthforge.evaluation.results.kinds import kind_of
from synthforge.evaluation.results.scores import Outcomes, worth
from synthforge.evaluation.results.types import Claim, Comparison, Kind, Origin, TableResult
from synthforge.evaluation.results.words import told, verdict_of, worth_in_words
from synthforge.recipe.evaluation import ArmConfig
from synthforge.statistics import Measured, Word
from tests.evaluation.results import made
from tests.evaluation.results.made import comparison, measured

ARMS = {
    name: ArmConfig.model_validate(value)
    for name, value in {
        "real": "real",
        "random": "random",
        "curated": "curated",
        "real+curated": "real+curated",
        "heap": {"name": "heap", "of": ["real", "curated"], "mixing": {"policy": "pooled"}},
    }.items()
}


NAMES = ("real+curated", "real+random", "real+more", "curated", "more", "more-curated")
KNOWN = {name: ArmConfig.model_validate(name) for name in NAMES} | ARMS


def claim(kind: tuple[Kind, str], found: list[Comparison]) -> Claim:
    """Their mean; told from 0 or not as the first of them."""
    return made.claim(*kind, *(one.difference.value for one in found), verdict=found[0].verdict, over=found[0].interval_over)


def table(
    *comparisons: Comparison, origin: Origin = "own", verdict: Word | None = None, mean: Measured | None = None, **steps: Any
) -> TableResult:
    """One setting, whose claims have a verdict of their own only if one is given."""
    by_kind: dict[tuple[Kind, str], list[Comparison]] = {}
    for one in comparisons:
        by_kind.setdefault(kind_of(KNOWN[one.arm], KNOWN[one.against]), []).append(one)
    claims = [claim(kind, found) for kind, found in by_kind.items()]
    if verdict is not None:
        claims = [one.model_copy(update={"verdict": verdict}) for one in claims]
    setting = made.setting(comparisons, steps_check_mean=mean or measured(0.015, -0.01, 0.04), **steps)
    return made.table([setting], claims, origin)


def outcomes(rate: float) -> Outcomes:
    values = np.random.default_rng(int(rate * 1000)).random((6, 2, 4000)) < rate
    return Outcomes(values.astype(np.float64), np.zeros((6, 2)), np.zeros((6, 2)))


def exchange(rate: float, num_real: float = 20) -> str:
    curve = [(10.0, outcomes(0.6)), (20.0, outcomes(0.7)), (40.0, outcomes(0.8))]
    return worth_in_words(worth("x", outcomes(rate), curve, num_real=num_real, num_others=20, without=None, more_real=None))


def test_worth_at_the_ends_of_the_curve_is_a_bound() -> None:
    assert exchange(0.95) == "is worth at least 40 real images per class (95 % interval: at least 40; the learning curve ends there)"
    assert exchange(0.3) == "is worth at most 10 real images per class (95 % interval: at most 10; the learning curve starts there)"
    assert "replace one real image" not in exchange(0.3) and " replace one real image [" in exchange(0.76)
    assert re.search(r"so 2\.\d+ of them replace one real image \[(2|1\.\d+), 2\.\d+\]", exchange(0.75, num_real=18.28))
    assert "real images per class [" in exchange(0.798) and "≥ 20]" in exchange(0.798)
    assert exchange(0.798, num_real=40).endswith("≥ 0]")


def test_losses_are_told_like_gains() -> None:
    gain, loss = exchange(0.76), exchange(0.65)
    assert re.search(r"its added images are worth 10\.\d real images per class \[\d.*, \d.*\]", gain)
    assert re.search(r"its added images cost as much accuracy as removing 5\.\d+ real images per class \[\d.*, \d.*\]", loss)


def test_arms_of_another_name_are_counted_by_what_they_hold() -> None:
    found = [table(comparison("heap", "real", "helped", 0.02), comparison("real+curated", "real", "cannot tell"))]
    words = (
        "Adding synthetic images to real ones: +1.0 points of accuracy on average [+0.0, +2.0] (helped). The 2 comparisons range from "
        "+0.0 to +2.0 points: 1 helped, 1 not significant."
    )
    assert words in verdict_of(found, [], ARMS)
    assert verdict_of([table(comparison("heap", "real", "helped", 0.02), comparison("real+curated", "real", "hurt"))], [], ARMS).endswith(
        "Use the synthetic images only for the amounts of real data where they helped."
    )
    found = [table(comparison("heap", "real", "helped", 0.02))]
    assert verdict_of(found, [], ARMS).endswith("Use the synthetic images.")
    moved = measured(0.003, 0.001, 0.005)
    found = [table(comparison("heap", "real", "helped", 0.02), mean=moved)]
    assert "Use the synthetic images. With twice the steps, accuracy still changes by up to 0.3 points on average" in verdict_of(
        found, [], ARMS
    )
    found = [table(comparison("heap", "real", "helped", 0.02), mean=moved, has_enough_steps=False)]
    assert "too short: with twice the steps, accuracy still changes by up to 0.3 points" in verdict_of(found, [], ARMS)


def test_not_to_bother_is_said_only_where_a_gain_is_ruled_out() -> None:
    hurt, unsure = comparison("heap", "real", "hurt", -0.02), comparison("real+curated", "real", "cannot tell")
    assert verdict_of([table(unsure, hurt)], [], ARMS).endswith("It is unclear whether adding the synthetic images helps.")
    assert verdict_of([table(hurt, unsure)], [], ARMS).endswith("Do not add these synthetic images to the real ones.")  # together they hurt
    assert verdict_of([table(hurt)], [], ARMS).endswith("Do not add these synthetic images to the real ones.")
    assert "No arms were compared" in verdict_of([], [], ARMS)


def test_what_helps_on_average_and_is_proven_nowhere_is_used() -> None:
    unsure = [comparison(name, "real", "cannot tell", 0.01) for name in ("heap", "real+curated")]
    assert verdict_of([table(*unsure, verdict="helped")], [], ARMS).endswith("Use the synthetic images.")
    worse = table(comparison("heap", "real", "hurt", -0.01), unsure[1], verdict="helped")
    assert "Use the synthetic images." not in verdict_of([worse], [], ARMS)


def test_a_table_from_elsewhere_is_said_to_be_one() -> None:
    words = verdict_of([table(comparison("curated", "random", "helped", 0.03), origin="elsewhere")], [], ARMS)
    assert words.startswith("The generator was trained elsewhere")
    assert "Curation compared with random selection: +3.0 points of accuracy [+2.0, +4.0] (helped)." in words


def test_only_the_random_twin_makes_a_comparison_one_of_curation() -> None:
    arms = {name: KNOWN[name] for name in (*NAMES, "heap")}
    kinds = {pair: verdict_of([table(comparison(*pair, "hurt"))], [], arms) for pair in itertools.permutations(arms, 2)}
    assert kinds["real+curated", "real+random"].startswith("Curation compared with random selection, added to real images:")
    assert kinds["real+curated", "real+more"].startswith("real+curated minus real+more:")
    assert kinds["curated", "more"].startswith("curated minus more:")
    assert kinds["heap", "real+curated"].startswith("heap minus real+curated:")
    assert kinds["more-curated", "more"].startswith("Curation of real images compared with random real images:")


def test_how_far_short_trainings_move_is_told_of_the_arm_that_moves_most() -> None:
    known = comparison("heap", "real", "helped", 0.02)
    assert "Training was too short" not in verdict_of([table(known)], [], KNOWN)
    moved = {"heap": measured(0.043, 0.03, 0.05), "real": measured(0.08, -0.1, 0.2)}
    short = table(known, has_enough_steps=False, steps_check=moved)
    assert "accuracy still changes by up to 4.3 points" in verdict_of([short], [], KNOWN)


def test_seeds_are_not_called_draws() -> None:
    assert (
        told(comparison("heap", "real", "cannot tell", over="seeds and images")) == "cannot tell; about 12 seeds would probably decide it"
    )
    assert told(comparison("heap", "real", "cannot tell")) == "cannot tell; about 12 draws would probably decide it"
    assert told(comparison("heap", "real", "cannot tell", over="images")) == "cannot tell from one training run; raise `seeds`"
