"""Each gate finds what was planted for it, and the gap moves the right way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthforge.curation.result import CurateResult
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS
from tests.curation.planted import Made, curated, decisions, found, images_of, noisy, precision_and_recall, real, write_tar

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """1,500 images of the built-in generator."""
    out = tmp_path_factory.mktemp("made")
    generate(load_recipe(DIGITS, [f"output.path={out}", "count={total: 1500}", "sampling.guidance=[1.0]", "execution.threads=1"]))
    return images_of(out / "pool")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHFORGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def chosen(count: int, among: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).choice(among, count, replace=False))


def test_wrong_labels(made: Made, tmp_path: Path) -> None:
    planted, pool = chosen(450, 1500), made.copy()
    pool.labels[planted] = (pool.labels[planted] + np.random.default_rng(1).integers(1, 10, len(planted))) % 10
    result = curated(tmp_path, write_tar(tmp_path / "pool.tar", pool))
    precision, recall = precision_and_recall(found(result, "label disagrees"), set(planted.tolist()))
    assert precision >= 0.9 and recall >= 0.9, (precision, recall)


def test_duplicates(made: Made, tmp_path: Path) -> None:
    exact, near = chosen(150, 1500), chosen(150, 1500, 2)
    pool = made.with_more(made.images[exact], made.labels[exact])
    pool = pool.with_more(noisy(made.images[near], 4), made.labels[near])
    result = curated(tmp_path, write_tar(tmp_path / "pool.tar", pool))
    dropped_exact, dropped_near = found(result, "exact duplicate"), found(result, "near duplicate")
    alive = lambda row: row not in found(result, "label disagrees", "off-manifold", "copy of a real image")  # noqa: E731
    pairs = [(1500 + number, int(row)) for number, row in enumerate(exact)]
    assert all((copy in dropped_exact) != (row in dropped_exact) or not alive(row) for copy, row in pairs)
    pairs = [(1650 + number, int(row)) for number, row in enumerate(near)]
    caught = [copy in dropped_near or row in dropped_near or row in dropped_exact for copy, row in pairs if alive(row) and alive(copy)]
    twins = {row for pair in pairs for row in pair}
    assert np.mean(caught) >= 0.9
    assert len(dropped_near & twins) / len(dropped_near) >= 0.9


def test_copies_of_real_images(made: Made, tmp_path: Path) -> None:
    source = real()
    copied = chosen(75, len(source.labels))
    images = np.concatenate([source.images[copied[:40]], noisy(source.images[copied[40:]], 3)])
    pool = made.with_more(images, source.labels[copied])
    result = curated(tmp_path, write_tar(tmp_path / "pool.tar", pool))
    precision, recall = precision_and_recall(found(result, "copy of a real image"), set(range(1500, 1575)))
    assert precision >= 0.9 and recall >= 0.9, (precision, recall)


def test_a_class_collapsed_to_one_mode(made: Made, tmp_path: Path) -> None:
    """Its distance grows and its coverage falls, no other class's, and the regions that it misses are named."""
    collapsed = made.copy()
    rows = np.flatnonzero(collapsed.labels == 3)
    collapsed.images[rows] = noisy(np.repeat(collapsed.images[rows[:1]], len(rows), axis=0), 30)
    sets = ["selection.method=random", "gates.duplicates.on=false", "gates.manifold.on=false"]
    whole = curated(tmp_path, write_tar(tmp_path / "whole.tar", made), sets=sets, out="whole")
    poor = curated(tmp_path, write_tar(tmp_path / "poor.tar", collapsed), sets=sets, out="poor")

    def figure(result: CurateResult, name: str, metric: str) -> float:
        value = result.gap.per_class[name][metric].before.value
        assert value is not None
        return value

    assert figure(poor, "3", "mmd") > 5 * abs(figure(whole, "3", "mmd")) and figure(poor, "3", "coverage") < 0.5
    assert abs(figure(poor, "7", "mmd") - figure(whole, "7", "mmd")) < 0.2 * figure(poor, "3", "mmd")
    assert {region.class_name for region in poor.lacking} == {"3"} and all(region.num_wanted > 0 for region in poor.lacking)


def test_of_two_generators_the_bad_one_is_left_out(made: Made, tmp_path: Path) -> None:
    """A quarter of each side would be kept at random; the bad one smears its images."""
    good, bad = Made(made.images[:750], made.labels[:750]), Made(made.images[750:].copy(), made.labels[750:])
    for axis in (1, 2):
        bad.images = (bad.images // 2 + np.roll(bad.images, 1, axis) // 2).astype(np.uint8)
    pools = [write_tar(tmp_path / "good.tar", good), write_tar(tmp_path / "bad.tar", bad)]
    result = curated(tmp_path, *pools, sets=["selection.size.per_class=35"])
    kept = [row for row in decisions(result) if row["kept"]]
    assert np.mean([row["pool"] == "good" for row in kept]) >= 0.9
    difference = result.gap.metrics["mmd"].after_minus_before
    assert difference is not None and difference.verdict == "smaller"
