"""The table of selection rules, and what a rule is given and gives."""

from __future__ import annotations

import numpy as np

from synthforge.curation.selection import methods
from synthforge.curation.selection.rules import RULES, Picked, Problem, SelectionRule
from synthforge.recipe.curation import SelectionConfig


def problem(num_pool: int = 8, num_keep: int = 3, seed: int = 0) -> Problem:
    return Problem([], np.arange(num_pool), num_keep, seed, stop_at_floor=False)


def test_methods_are_those_that_can_be_asked_for() -> None:
    assert all(SelectionConfig(method=name).method == name for name in ("auto", *RULES))
    assert all(rule.sentence.endswith(".") for rule in RULES.values())


def test_a_rule_runs_its_function_or_the_one_of_that_name() -> None:
    def last(given: Problem) -> Picked:
        return given.picked(np.arange(given.num_pool)[-given.num_keep :])

    assert SelectionRule(last, "The last.", "both").run(problem()).indices.tolist() == [5, 6, 7]
    assert RULES["random"].run(problem()).indices.tolist() == methods.at_random(problem()).indices.tolist()


def test_a_permutation_depends_on_the_seed_alone() -> None:
    one, again, other = (problem(seed=seed).permutation(50) for seed in (1, 1, 2))
    assert one.tolist() == again.tolist() != other.tolist() and sorted(one) == list(range(50))


def test_without_an_objective_it_is_unknown() -> None:
    picked = problem().picked([4, 2, 0])
    assert np.isnan(picked.objective).all() and np.isnan(picked.floor).all() and picked.num_at_floor == 0
