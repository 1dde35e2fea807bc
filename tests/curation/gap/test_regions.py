"""Underrepresented regions with a planted hole, and the statistics that call them significant."""

from __future__ import annotations

import json
from math import comb
from typing import Any

import numpy as np
import pytest

from synthforge.curation.gap.gap import MetricView
from synthforge.curation.gap.regions import adjusted_p_values, too_few_by_chance, underrepresented
from synthforge.curation.result import Region
from tests.curation.gap.test_gap import CLASSES, draw, view_of


def with_hole(seed: int = 1, dim: int = 16, missing: int = 3) -> MetricView:
    """One class of five kinds of 40 real images, of which the pool of 500 lacks one; another class without holes."""
    rng = np.random.default_rng(seed)
    centres = 6 * rng.standard_normal((5, dim))
    kinds = [kind for kind in range(5) if kind != missing]
    real = centres[np.repeat(np.arange(5), 40)] + rng.standard_normal((200, dim))
    pool = centres[rng.choice(kinds, 500)] + rng.standard_normal((500, dim))
    real_other, pool_other = rng.standard_normal((100, dim)), rng.standard_normal((300, dim))
    return MetricView(
        np.concatenate([pool_other, pool]).astype(np.float32),
        np.repeat([0, 1], [300, 500]).astype(np.int64),
        np.concatenate([real, real_other]).astype(np.float32),
        np.repeat([1, 0], [200, 100]).astype(np.int64),
        [f"kind{kind}-{number}" for kind in range(5) for number in range(40)] + [f"other-{number}" for number in range(100)],
    )


def lacking(views: list[MetricView], **kwargs: Any) -> list[Region]:
    """Where images lack; keys of the pool are its rows."""
    return underrepresented(views, pool_key_N=[str(row) for row in range(len(views[0].pool_class_N))], **kwargs)


def test_a_planted_hole_comes_first_with_what_it_lacks() -> None:
    found = lacking([with_hole()], classes=["whole", "holed"], rows=np.arange(800), per_region=40)
    first = found[0]
    assert first.class_name == "holed" and first.is_significant and first.num_pool == 0
    assert first.num_lacking == 100 == first.num_wanted  # a fifth of 500
    assert len(first.real_keys) == 5 and all(key.startswith("kind3-") for key in first.real_keys)
    assert len(first.pool_keys) == 5 and min(map(int, first.pool_keys)) >= 300
    assert not any(region.is_significant for region in found[1:])
    assert [region.num_lacking for region in found] == sorted((region.num_lacking for region in found), reverse=True)
    json.dumps([region.model_dump(mode="json") for region in found], allow_nan=False)


def test_a_hole_cut_into_small_regions_is_found_whole() -> None:
    found = lacking([with_hole()], classes=["whole", "holed"], rows=np.arange(800))
    holes = [region for region in found if region.is_significant]
    assert holes and all(key.startswith("kind3-") for region in holes for key in region.real_keys)
    assert sum(region.num_lacking for region in holes) == pytest.approx(100, abs=15)


def test_examples_are_those_nearest_to_the_centre() -> None:
    view = with_hole()
    first = lacking([view], classes=["whole", "holed"], rows=np.arange(800), per_region=40, num_shown=40)[0]
    rows = [view.real_key_M.index(key) for key in first.real_keys]
    distances = np.linalg.norm(view.real_MD[rows] - view.real_MD[rows].mean(axis=0), axis=1)
    assert len(rows) == 40 and (np.diff(distances) >= -1e-4).all()


def test_only_rows_that_count_are_counted() -> None:
    view = with_hole(missing=-1)
    near = np.linalg.norm(view.pool_ND - view.real_MD[:40].mean(axis=0), axis=1)
    rows = np.flatnonzero((near > 10) | (view.pool_class_N == 0))
    found = lacking([view], classes=["whole", "holed"], rows=rows, per_region=40)
    assert found[0].is_significant and all(key.startswith("kind0-") for key in found[0].real_keys)
    assert {int(key) for key in found[0].pool_keys} <= set(rows.tolist())
    assert not any(region.is_significant for region in lacking([view], classes=["whole", "holed"], rows=np.arange(800), per_region=40))


def test_two_views_want_no_more_than_one() -> None:
    view = with_hole()
    found = lacking([view, view], classes=["whole", "holed"], rows=np.arange(800), per_region=40)
    assert [(region.view, region.num_lacking, region.num_wanted) for region in found[:2]] == [(0, 100, 50), (1, 100, 50)]


@pytest.mark.parametrize("dim", [2, 64])
def test_without_a_hole_few_regions_are_called_significant(dim: int) -> None:
    """In 64 dimensions, counting real images in clusters that they formed themselves calls a fifth of all regions too
    empty."""
    found: list[Region] = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        real, pool = rng.standard_normal((100, dim)).astype(np.float32), rng.standard_normal((400, dim)).astype(np.float32)
        view = MetricView(pool, np.zeros(400, np.int64), real, np.zeros(100, np.int64), [str(number) for number in range(100)])
        found += lacking([view], classes=["ant"], rows=np.arange(400))
    assert np.mean([region.p_value < 0.05 for region in found]) < 0.12
    assert sum(region.is_significant for region in found) <= 4


def test_classes_with_little_have_no_regions() -> None:
    view = view_of([draw(60, 1)], draw(30, 2))
    assert lacking([view], classes=CLASSES, rows=np.arange(60)) == []
    assert lacking([with_hole()], classes=["whole", "holed"], rows=np.zeros(0, np.int64)) == []


def test_regions_are_the_same_again() -> None:
    one, again = (lacking([with_hole()], classes=["whole", "holed"], rows=np.arange(800)) for _ in range(2))
    assert one == again


def test_chance_is_that_of_fishers_exact_test() -> None:
    def plain(num_pool: int, num_real: int, all_pool: int, all_real: int) -> float:
        here = num_pool + num_real
        ways = [comb(all_pool, count) * comb(all_real, here - count) for count in range(num_pool + 1) if here - count <= all_real]
        return sum(ways) / comb(all_pool + all_real, here)

    for case in [(0, 10, 40, 50), (3, 4, 20, 9), (7, 1, 30, 12), (20, 0, 20, 5)]:
        assert too_few_by_chance(*case) == pytest.approx(plain(*case))


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    given = np.array([0.01, 0.04, 0.03, 0.005, 0.5])
    np.testing.assert_allclose(adjusted_p_values(given), [0.025, 0.05, 0.05, 0.025, 0.5])
    assert len(adjusted_p_values(np.zeros(0))) == 0
