"""Comparisons of pool and reference on synthetic features, where the right answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from synthforge.curation.evidence import FEWEST
from tests.curation.scene import CENTRES, Scene, drawn


def test_real_images_that_the_model_has_seen_do_not_vote() -> None:
    pool, labels = drawn(40)
    unseen = np.zeros(280, bool)
    unseen[140:] = True  # only the second class is unseen: nothing else can be a neighbour
    share = Scene(pool, labels, unseen=unseen).evidence(neighbours=5).likeness[0].own_share
    assert (share[labels == 0] == 0).all() and (share[labels == 1] == 1).all()


def test_an_only_image_of_its_class_is_not_asked_for_its_neighbours_votes() -> None:
    pool, labels = drawn(40)
    scene = Scene(pool, labels)
    scene.fit[:] = True
    scene.real_class[:] = 0
    scene.real_class[200] = 1
    rows, _ = scene.evidence().calibration
    assert len(rows) == 279 and 200 not in rows


def test_an_image_is_left_out_and_judged_by_models_that_have_not_seen_it() -> None:
    pool, labels = drawn(20)
    first = np.arange(280) % 2 == 0
    scene = Scene(pool, labels, num_views=2)
    scene.fit[:] = True
    scene.real = np.repeat(scene.real[::2], 2, axis=0) + np.float32(1e-4) * np.arange(280, dtype=np.float32)[:, None]  # pairs of twins
    evidence = scene.evidence()
    evidence.views[:] = [replace(view, unseen_M=mask) for view, mask in zip(evidence.views, (first, ~first), strict=True)]
    rows, by_view = evidence.calibration
    assert rows.tolist() == list(range(280)) and (by_view == np.stack([first, ~first], axis=1)).all()
    radii = evidence.likeness[1].radii
    assert radii.min() > 0  # each would be at no distance from itself, and its twin is in the other half


def test_the_nearest_real_image_is_that_of_a_direct_search_but_never_the_source() -> None:
    pool, labels = drawn(30)
    scene = Scene(pool, labels)
    distance_NM = np.linalg.norm(scene.pool[:, None] - scene.real[None], axis=2)
    nearest, second = np.argsort(distance_NM, axis=1)[:, :2].T
    scene.source[:10] = nearest[:10]
    found = scene.evidence().nearest
    expected = np.where(np.arange(30) < 10, second, nearest)
    assert found.real_N.tolist() == expected.tolist()
    np.testing.assert_allclose(found.distance_N, distance_NM[np.arange(30), expected], rtol=1e-4)
    np.testing.assert_allclose(found.source_distance_N[:10], distance_NM[np.arange(10), nearest[:10]], rtol=1e-4)
    assert np.isnan(found.source_distance_N[10:]).all()
    assert scene.evidence().real_keys(np.array([3, -1])).tolist() == ["r3", None]


def test_two_views_of_the_same_features_give_the_distances_of_one() -> None:
    pool, labels = drawn(20)
    one, two = (Scene(pool, labels, num_views=num).evidence() for num in (1, 2))
    np.testing.assert_allclose(one.nearest.distance_N, two.nearest.distance_N, rtol=1e-4)
    np.testing.assert_allclose(one.likeness[0].radii, two.likeness[0].radii, rtol=1e-4)


def test_votes_and_radii_are_those_of_their_definition() -> None:
    pool, labels = drawn(20)
    scene = Scene(pool, labels)
    real, classes = scene.real[scene.fit], scene.real_class[scene.fit]
    distance_NR = np.linalg.norm(scene.pool[:, None] - real[None], axis=2)
    share = (classes[np.argsort(distance_NR, axis=1)[:, :7]] == labels[:, None]).mean(axis=1)
    radius_R = np.sort(np.linalg.norm(real[:, None] - real[None], axis=2), axis=1)[:, 5]
    likeness, of_validation = scene.evidence(neighbours=7).likeness
    np.testing.assert_allclose(likeness.own_share, share, rtol=1e-6)
    np.testing.assert_allclose(likeness.radii, (distance_NR / radius_R).min(axis=1), rtol=1e-3)
    assert len(of_validation.radii) == 80


def test_with_few_real_images_no_distance_can_be_told() -> None:
    pool, labels = drawn(20)
    scene = Scene(pool, labels)
    whole = scene.evidence().natural_distance(0.5)
    assert whole is not None and whole > 0
    scene.fit[:] = True
    scene.fit[: FEWEST - 1] = False
    assert scene.evidence().natural_distance(0.5) is not None  # with few validation images, that of all real images
    scene.real[:] = scene.real[np.arange(len(scene.real)) % 2]
    assert scene.evidence().natural_distance(0.5) is None


def test_two_equal_validation_images_do_not_hide_copies() -> None:
    pool, labels = drawn(20)
    scene = Scene(pool, labels)
    before = scene.evidence().natural_distance(0.01)
    first, second = np.flatnonzero(~scene.fit)[:2]
    scene.real[second] = scene.real[first]
    after = scene.evidence().natural_distance(0.01)
    assert before is not None and after is not None and after > before / 2


def test_of_equal_pixels_one_image_stays_whatever_the_classes_say() -> None:
    scene = Scene(np.repeat(CENTRES, [3, 3], axis=0) + np.arange(6)[:, None], np.array([0, 0, 0, 1, 1, 1]))
    scene.pixels[:] = [7, 1, 2, 7, 3, 7]
    exact, near, kept = scene.evidence().duplicates(0.0, np.ones(6, bool))
    assert exact.sum() == 2 and not near.any() and exact[[0, 3, 5]].sum() == 2
    (stays,) = {0, 3, 5} - set(np.flatnonzero(exact).tolist())
    assert set(kept[exact].tolist()) == {stays} and (kept[~exact] == -1).all()
