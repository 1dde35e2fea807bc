"""Pools and reference in one frame, on the built-in digits with raw pixels as features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthforge.curation.sides import Sides, identities
from synthforge.data.layout import digest_of
from synthforge.errors import PlaceError, RequestError
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from tests.curation.planted import REFERENCE, Made, real, write_tar

PIXELS = ["encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}"]
NAMES = "classes=['0','1','2','3','4','5','6','7','8','9']"


def config(tmp_path: Path, *sets: str) -> CurationConfig:
    return config_from_sets(CurationConfig, [*PIXELS, NAMES, f"cache={tmp_path / 'cache'}", *sets])


def pool(tmp_path: Path, labels: list[str] | None = None) -> str:
    """60 real images as a pool."""
    made = real()
    return str(write_tar(tmp_path / "pool.tar", Made(made.images[:60], made.labels[:60]), labels))


def read(tmp_path: Path, *sets: str) -> Sides:
    return Sides.read([pool(tmp_path)], REFERENCE, config(tmp_path, *sets), Reporter())


def test_both_sides_have_the_same_class_indices_and_features(tmp_path: Path) -> None:
    sides = read(tmp_path)
    sides.load(Reporter())
    sides.embed_reference(Reporter())
    sides.embed_pool(Reporter())
    assert sides.classes == [str(digit) for digit in range(10)] and sides.usable.all()
    np.testing.assert_array_equal(sides.pool_class, real().labels[:60])
    nearest = sides.evidence.nearest
    assert (nearest.distance_N < 1e-3).all(), "the pool's images are real images"
    np.testing.assert_array_equal(sides.real_class[nearest.real_N], sides.pool_class)


def test_held_out_views_hold_the_validation_part_alone(tmp_path: Path) -> None:
    sides = read(tmp_path)
    sides.load(Reporter())
    sides.embed_reference(Reporter())
    sides.embed_pool(Reporter())
    (every,), (held_out,) = sides.metric_views, sides.held_out_views
    assert len(every.real_key_M) == len(sides.fit)
    keys = sides.real.strings("key")
    assert held_out.real_key_M == keys[~sides.fit].tolist() and len(held_out.real_key_M) > 0
    np.testing.assert_array_equal(held_out.real_MD, every.real_MD[~sides.fit])


def test_sizes_follow_the_fit_part(tmp_path: Path) -> None:
    sides = read(tmp_path, "selection.size.ratio=0.5")
    counts = np.bincount(sides.real_class[sides.fit])
    assert list(sides.asked.values()) == [round(0.5 * count) for count in counts.tolist()]
    other = sides.choosing_by(config(tmp_path, "selection.size.per_class=3"))
    assert set(other.asked.values()) == {3} and other.pool is sides.pool


def test_the_digest_sees_settings_but_not_how_the_work_is_done(tmp_path: Path) -> None:
    def digest(*sets: str) -> str:
        sides = read(tmp_path, *sets)
        sides.load(Reporter())
        assert sides.settings["encoder"] == identities(sides.encoders)
        return digest_of(sides.settings)

    assert digest() == digest("batch=7") != digest("selection.seed=1")


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ("selection.size.quota={x: 1}", "class 'x' is not in pool and reference"),
        ("selection.size.quota={'3': 0}", "asks for no image; raise it"),
    ],
)
def test_what_can_not_be_met_is_refused_at_once(tmp_path: Path, sets: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        read(tmp_path, sets)


def test_pools_of_other_classes_are_refused(tmp_path: Path) -> None:
    place = pool(tmp_path, ["cat"] * 60)
    with pytest.raises(RequestError, match="no class in common"):
        Sides.read([place], REFERENCE, config_from_sets(CurationConfig, [*PIXELS, f"cache={tmp_path / 'cache'}"]), Reporter())


def test_a_cache_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="the setting `cache`"):
        Sides.read([pool(tmp_path)], REFERENCE, config(tmp_path, "cache=/dev/null/features"), Reporter())
