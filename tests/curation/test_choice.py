"""Decisions from gates and selection, on the built-in digits with raw pixels as features."""

from __future__ import annotations

import numpy as np
import pytest

from synthforge.curation.choice import NOT_SELECTED, Choice, Gated, class_views, pick, weighed
from synthforge.curation.sides import Sides
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from tests.curation.planted import REFERENCE, Made, real, write_tar

SETS = [
    "encoder={kind: pixels, resolution: 8}",
    "metric_encoder={kind: pixels, resolution: 4}",
    "classes=['0','1','2','3','4','5','6','7','8','9']",
    "selection.size.per_class=4",
]


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """Every second of 200 images passed."""
    place, made = tmp_path_factory.mktemp("choice"), real()
    pool = write_tar(place / "pool.tar", Made(made.images[:200], made.labels[:200]))
    config = config_from_sets(CurationConfig, [*SETS, f"cache={place / 'cache'}"])
    sides = Sides.read([str(pool)], REFERENCE, config, Reporter())
    sides.load(Reporter(), with_metric_encoder=False)
    sides.embed_reference(Reporter())
    sides.embed_pool(Reporter())
    alive = np.arange(200) % 2 == 0
    reason = np.where(alive, None, "odd")  # type: ignore[call-overload]
    return Gated(sides, alive, reason, {}, [], warnings=[])


def chosen(gated: Gated, method: str = "mmd") -> Choice:
    ranked, at_floor = pick(gated.sides, gated.alive, gated.sides.asked, method)
    return Choice.of(gated, ranked, at_floor, None, method=method, trials={})


def test_each_image_is_kept_or_has_a_reason(gated: Gated) -> None:
    choice = chosen(gated)
    is_kept = choice.rank_N >= 0
    assert set(choice.reason_N[gated.alive & ~is_kept]) == {NOT_SELECTED} and set(choice.reason_N[~gated.alive]) == {"odd"}
    assert all(reason is None for reason in choice.reason_N[is_kept]) and sorted(choice.kept) == np.flatnonzero(is_kept).tolist()
    assert (choice.weight_N == is_kept).all()


def test_a_prefix_of_the_set_has_the_first_picks_of_every_class(gated: Gated) -> None:
    choice = chosen(gated)
    assert (np.diff(choice.rank_N[choice.kept]) >= 0).all()
    classes = gated.sides.pool_class[choice.kept]
    assert classes[:10].tolist() == list(range(10)) and (np.bincount(classes) <= 4).all()


def test_reports_count_what_each_class_had_and_kept(gated: Gated) -> None:
    choice, counts = chosen(gated), np.bincount(gated.sides.pool_class)
    for number, report in enumerate(choice.per_class.values()):
        assert (report.pool, report.asked) == (counts[number], 4)
        assert report.kept == min(4, report.passed) == (gated.sides.pool_class[choice.kept] == number).sum()


def test_candidates_stand_beside_the_real_images_of_their_class(gated: Gated) -> None:
    sides = gated.sides
    (view,) = class_views(sides, np.array([3, 5]), 7)
    assert len(view.pool_ND) == 2 and len(view.real_MD) == (sides.fit & (sides.real_class == 7)).sum()


def test_weights_keep_all_that_passed_the_heaviest_first(gated: Gated) -> None:
    ranked, weight_N, at_floor = weighed(gated.sides, gated.alive)
    choice = Choice.of(gated, ranked, at_floor, weight_N, method="weights", trials={})
    assert len(choice.kept) == gated.alive.sum() and (weight_N[~gated.alive] == 0).all()
    for rows in ranked:
        assert (np.diff(weight_N[rows]) <= 0).all() and weight_N[rows].mean() == pytest.approx(1)
    assert "the gap is measured without the importance weights" in choice.notes
