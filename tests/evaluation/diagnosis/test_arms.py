"""Arms of a diagnosis take images of equal number that differ in one thing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from synthforge.evaluation.diagnosis.arms import LabelFiltered, Repeated, RepeatedAtRandom
from synthforge.evaluation.sets import Images


def some_images(num: int = 40, classes: int = 2) -> Images:
    labels = np.arange(num) % classes
    return Images("", np.arange(num), labels, np.array([f"{row}" for row in range(num)], object), True, np.ones(num))


def test_images_of_equal_weight_are_taken_once_each() -> None:
    images = Repeated(**some_images().__dict__)
    taken = images.draw(np.array([20, 20]), (0, 1))
    assert taken.row_N.tolist() == list(range(40))
    assert Repeated(**some_images().__dict__).reach(3).tolist()[2] == 0


@pytest.mark.parametrize("wanted", [20, 12])
def test_without_weights_the_arms_are_those_that_they_are_compared_with(wanted: int) -> None:
    real, pool, asked, seed = some_images(), some_images(400), np.array([wanted, wanted]), (3, 1)
    assert Repeated(**real.__dict__).draw(asked, seed).row_N.tolist() == real.draw(asked, seed).row_N.tolist()
    repeated = RepeatedAtRandom.like(pool, np.ones(400, np.bool_), real).draw(asked, seed)
    assert repeated.row_N.tolist() == LabelFiltered(**pool.__dict__).draw(asked, seed).row_N.tolist()


def test_images_are_repeated_as_their_weights_say() -> None:
    weight = np.where(np.arange(40) < 20, 2.0, 0.0)
    taken = Repeated(**{**some_images().__dict__, "weight_N": weight}).draw(np.array([20, 20]), (0, 1))
    assert Counter(taken.row_N.tolist()) == dict.fromkeys(range(20), 2)
    assert taken.per_class(2).tolist() == [20, 20] and (taken.weight_N == 1).all()


@pytest.mark.parametrize("num", [400, 30])
def test_of_the_label_filtered_images_some_are_repeated_as_others_are(num: int) -> None:
    pool, real, wanted, seed = some_images(num), some_images(), np.array([20, 20]), (3, 1)
    passes_filter = np.arange(num) % 5 > 0
    filtered = LabelFiltered(**{**pool.__dict__, "weight_N": passes_filter.astype(float)}).draw(wanted, seed)
    weighted = replace(real, weight_N=np.where(np.arange(40) < 20, 2.0, 0.0))
    repeated = RepeatedAtRandom.like(pool, passes_filter, weighted).draw(wanted, seed)
    assert Counter(Counter(repeated.row_N.tolist()).values()) == {2: 20}
    assert set(repeated.row_N) <= set(filtered.row_N)
    alike = RepeatedAtRandom.like(pool, passes_filter, real).draw(wanted, seed)
    assert set(alike.row_N) == set(filtered.row_N)
    if num > 40:  # nothing is repeated, so nothing is lost
        assert alike.row_N.tolist() == filtered.row_N.tolist()


def test_weights_of_copies_of_holdout_images_go_to_others() -> None:
    pool, passes_filter = some_images(60), np.arange(60) != 4
    source = RepeatedAtRandom.like(pool, passes_filter, replace(some_images(), weight_N=np.where(np.arange(40) < 20, 2.0, 0.0)))
    source = source.usable({f"{row}": True for row in range(20)})
    assert source.weight_N[source.weight_N > 0].tolist() == [2.0] * 20
    taken = source.draw(np.array([20, 20]), (0, 0))
    assert Counter(Counter(taken.row_N.tolist()).values()) == {2: 20}
    assert min(taken.row_N) >= 20


def test_label_filtered_images_are_the_random_ones_but_for_those_that_are_doubted() -> None:
    pool = some_images(400)
    random = pool.draw(np.array([20, 20]), (3, 1))
    assert LabelFiltered(**pool.__dict__).draw(np.array([20, 20]), (3, 1)).row_N.tolist() == random.row_N.tolist()
    weight = np.ones(400)
    weight[random.row_N[:5]] = 0
    filtered = LabelFiltered(**{**pool.__dict__, "weight_N": weight}).draw(np.array([20, 20]), (3, 1))
    assert len(set(filtered.row_N) & set(random.row_N)) == 35
    assert not set(filtered.row_N) & set(random.row_N[:5])
