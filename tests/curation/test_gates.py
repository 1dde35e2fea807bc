"""Gates on synthetic features, where the right answer is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthforge.curation.evidence import Texts
from synthforge.curation.gates import ContentGate, CopiesGate, DuplicatesGate, LabelGate, ManifoldGate
from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.errors import RequestError
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from tests.curation.scene import CENTRES, Scene, drawn
from tests.features.test_pictures import CHANGES, picture


@pytest.mark.parametrize("num_views", [1, 2])
def test_labels_copies_and_strangers_are_found(num_views: int) -> None:
    pool, labels = drawn(200)
    labels = labels.copy()
    labels[:20] = 1 - labels[:20]
    pool[20:30] += 40
    scene = Scene(pool, labels, num_views)
    scene.pool[30:40] = scene.real[5:15] + 0.001
    evidence, alive = scene.evidence(), np.ones(200, bool)
    wrong = LabelGate().test(evidence, alive)
    assert wrong.fails_N[:20].all() and wrong.fails_N[40:].sum() <= 4
    copies = CopiesGate().test(evidence, alive)
    assert np.flatnonzero(copies.fails_N).tolist() == list(range(30, 40))
    assert copies.scores["nearest_real"][30:40].tolist() == [f"r{row}" for row in range(5, 15)]
    strange = ManifoldGate().test(evidence, alive)
    assert strange.fails_N[20:30].all() and strange.fails_N[40:].sum() <= 10


def test_the_share_off_the_manifold_is_bounded() -> None:
    pool, labels = drawn(100)
    scene = Scene(pool + 50 + np.arange(100)[:, None], labels)
    fails = ManifoldGate(most=0.3).test(scene.evidence(), np.ones(100, bool)).fails_N
    assert [fails[labels == number].sum() for number in (0, 1)] == [15, 15] and fails[-30:].all()


def test_an_images_own_source_is_judged_apart() -> None:
    pool, labels = drawn(60)
    scene = Scene(pool, labels)
    scene.source[:20], scene.strength[:20] = np.arange(20), np.repeat([0.2, 0.8], 10)
    scene.pool[:10] = scene.real[:10] + 0.001
    verdict = CopiesGate().test(scene.evidence(), np.ones(60, bool))
    assert np.flatnonzero(verdict.reasons["copy of its source"]).tolist() == list(range(10))
    assert not verdict.reasons["copy of a real image"][:10].any()
    assert "0.2: 100.0%, 0.8: 0.0%" in verdict.rule
    assert not CopiesGate(source=False).test(scene.evidence(), np.ones(60, bool)).fails_N[:10].any()


def test_of_many_twins_the_one_nearest_to_the_real_data_stays() -> None:
    """More twins than neighbours are looked at, and equal pixels under another label."""
    pool, labels = drawn(100)
    pool[10:60] = pool[10] + np.random.default_rng(3).normal(size=(50, 4)) * 1e-4
    labels = np.where(np.arange(100) < 60, 0, labels)
    scene = Scene(pool, labels)
    scene.pixels[99] = scene.pixels[98]
    evidence = scene.evidence()
    verdict = DuplicatesGate().test(evidence, np.ones(100, bool))
    kept = set(range(10, 60)) - set(np.flatnonzero(verdict.fails_N))
    assert kept == {10 + int(np.argmin(evidence.nearest.distance_N[10:60]))}
    assert all(verdict.scores["duplicate_of"][row] in kept for row in set(range(10, 60)) - kept)
    assert verdict.reasons["exact duplicate"][[98, 99]].sum() == 1
    dead = np.ones(100, bool)
    dead[list(kept)] = False
    assert not DuplicatesGate().test(evidence, dead).fails_N[list(kept)].any()


def test_images_that_cannot_be_used_are_not_looked_at() -> None:
    pool, labels = drawn(20)
    scene = Scene(pool, labels)
    scene.pool[3], scene.usable[3], scene.labels = np.nan, False, np.where(np.arange(20) == 3, -1, labels)
    evidence = scene.evidence()
    for gate in (CopiesGate(), LabelGate(), ManifoldGate(), DuplicatesGate()):
        verdict = gate.test(evidence, scene.usable)
        assert not (verdict.fails_N & scene.usable)[3]
    assert np.isfinite(evidence.nearest.distance_N[scene.usable]).all()


def test_texts_flag_content_and_label() -> None:
    pool, labels = drawn(40)
    scene = Scene(pool, labels)
    scene.pool[0] = [0, 9, 0, 0]
    directions = np.eye(4, dtype=np.float32)
    scene.texts = [Texts(np.stack([-directions[0], directions[0], directions[1]]), 3.0)]
    verdict = ContentGate(words=["unwanted"]).test(scene.evidence(), np.ones(40, bool))
    assert verdict.fails_N[0] and verdict.fails_N.sum() <= 6
    assert not ContentGate(words=["unwanted"], action="record").test(scene.evidence(), np.ones(40, bool)).fails_N.any()
    scene.texts = [Texts(np.stack([-directions[0], directions[0]]), 3.0)]
    zero_shot = LabelGate(rule="zero-shot").test(scene.evidence(), np.ones(40, bool))
    assert zero_shot.fails_N[labels == 1].sum() == 0
    scene.texts = []
    with pytest.raises(RequestError, match="need an encoder with texts"):
        LabelGate(rule="zero-shot").test(scene.evidence(), np.ones(40, bool))


def test_without_a_validation_part_fit_images_set_the_thresholds() -> None:
    """Half of the real images of one class look like the other class, so a majority would drop what real images are."""
    pool, labels = drawn(200)
    pool[1::4] = CENTRES[0] + np.random.default_rng(2).normal(size=(50, 4))  # of class b, where most neighbours are of class a
    strange, wrong = np.arange(3, 43, 4), np.arange(0, 40, 4)
    pool[strange] += 40
    pool[wrong] += CENTRES[1] * 5 - CENTRES[0]  # of class a, far beyond the images of class b
    scene = Scene(pool, labels)
    scene.fit[:] = True
    scene.real[140:210] = CENTRES[0] + np.random.default_rng(3).normal(size=(70, 4))
    evidence, alive = scene.evidence(), np.ones(200, bool)
    label = LabelGate().test(evidence, alive)
    assert label.fails_N[wrong].all() and label.fails_N[1::4].mean() < 0.1 and "280 real images of the fit part" in label.rule
    manifold = ManifoldGate().test(evidence, alive)
    assert manifold.fails_N[strange].all() and np.delete(manifold.fails_N, np.append(strange, wrong)).mean() < 0.05


def test_copies_within_the_reference_set_no_threshold() -> None:
    """Every real image stands there twice: left out, it would lie at no distance from itself."""
    pool, labels = drawn(200)
    scene = Scene(pool, labels)
    scene.fit[:] = True
    scene.real[1::2] = scene.real[::2]
    manifold = ManifoldGate().test(scene.evidence(), np.ones(200, bool))
    assert manifold.fails_N.mean() < 0.05


def photographs(seed: int, num: int) -> list[Image.Image]:
    return [picture(seed + number) for number in range(num)]


def test_copies_and_duplicates_by_pixels_end_to_end(tmp_path: Path) -> None:
    """Mirrored, cropped and re-encoded copies of real images, and mirrored duplicates within the pool."""
    for number, image in enumerate(photographs(0, 40)):
        put(image, tmp_path / "real" / ("cat", "dog")[number % 2] / f"{number}.png")
    good = photographs(500, 40)
    for number, image in enumerate(good):
        put(image, tmp_path / "pool" / ("cat", "dog")[number % 2] / f"good{number}.png")
    kinds = ("mirrored", "middle", "corner", "encoded again", "scaled")
    for number, kind in enumerate(kinds):
        put(CHANGES[kind](picture(number)), tmp_path / "pool" / ("cat", "dog")[number % 2] / f"copy{number}.png")
        put(CHANGES["mirrored"](good[number]), tmp_path / "pool" / ("cat", "dog")[number % 2] / f"twin{number}.png")
    sets = ["encoder={kind: pixels}", "metric_encoder={kind: pixels, resolution: 12}", "trials.check=false", "gates.pictures.on=true"]
    sets += [f"gates.{name}.on=false" for name in ("labels", "manifold", "copies", "duplicates")]
    config = config_from_sets(CurationConfig, [*sets, f"cache={tmp_path / 'cache'}"])
    result = curate(CurationRequest([str(tmp_path / "pool")], str(tmp_path / "real"), str(tmp_path / "out"), config))
    rows = pq.read_table(tmp_path / "out" / "decisions.parquet").to_pylist()
    reasons = {row["key"]: row["reason"] for row in rows}
    assert [row["picture_of"] is not None for row in rows if "copy" in row["key"]] == [True] * len(kinds)
    assert {key for key, reason in reasons.items() if reason == "same picture as a real image"} == {key for key in reasons if "copy" in key}
    twins = [{reasons[key] for key in reasons if key.endswith((f"good{number}", f"twin{number}"))} for number in range(len(kinds))]
    assert all("same picture as another" in pair and len(pair) == 2 for pair in twins)
    (report,) = [report for report in result.gates if report.gate == "same picture"]
    assert report.dropped == {"same picture as a real image": len(kinds), "same picture as another": len(kinds)}


def put(image: Image.Image, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save(place)
