"""What trainings say: intervals that hold, a choice that is better than chance, and the same answer every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from synthforge.curation.selection.trials import Arm, Trainer, _is_as_good, _measured, choose_method
from synthforge.curation.sides import Sides
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from synthforge.statistics import Measured
from tests.curation.planted import REFERENCE, Made, real, write_tar


@pytest.mark.parametrize(("of_seeds", "of_images"), [(0.05, 0.05), (0.05, 0.5), (0.0, 0.5), (0.1, 0.02)])
def test_intervals_hold_whatever_varies(of_seeds: float, of_images: float) -> None:
    """Trainings and images both vary; an interval over images alone misses the truth in most of such cases."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(400):
        noise_SV = rng.normal(0, of_seeds, (5, 1)) + rng.normal(0, of_images, (1, 200)) + rng.normal(0, 0.2, (5, 200))
        found = _measured(0.02 + noise_SV)
        held.append(found.low <= 0.02 <= found.high)
    assert 0.93 <= np.mean(held) <= 1


def test_of_one_training_only_images_are_counted() -> None:
    found = _measured(np.random.default_rng(0).normal(0.5, 0.1, (1, 100)))
    assert 0.46 < found.low < found.value < found.high < 0.54
    assert _measured(np.zeros((3, 10))) == Measured(value=0.0, low=0.0, high=0.0)


def test_one_standard_error_is_as_good() -> None:
    rng = np.random.default_rng(0)
    best = Arm(np.zeros((3, 200)), rng.uniform(0.8, 1, (3, 200)))
    assert _is_as_good(best, best)
    noise = rng.normal(0, 0.1, (3, 200))
    assert _is_as_good(Arm(best.correct_SV, best.probability_SV + noise - noise.mean()), best)
    assert not _is_as_good(Arm(best.correct_SV, best.probability_SV - 0.1), best)


@pytest.mark.trains
def test_auto_does_not_choose_what_trains_worse(tmp_path: Path) -> None:
    """Half of the pool is of the wrong class and no gate is on: matching avoids it, random picks don't."""
    made = real("fit")
    wrong = Made(made.images, (made.labels + 1) % 10)
    pool = write_tar(tmp_path / "pool.tar", made.with_more(wrong.images, wrong.labels))
    sets = [
        "selection.method=auto",
        "selection.size.per_class=20",
        "trials.images=4000",
        "trials.seeds=2",
        *(f"gates.{gate}.on=false" for gate in ("copies", "labels", "manifold", "duplicates")),
        "encoder={kind: pixels, resolution: 8}",
        "metric_encoder={kind: pixels, resolution: 4}",
        f"cache={tmp_path / 'cache'}",
        "classes=['0','1','2','3','4','5','6','7','8','9']",
    ]
    sides = Sides.read([str(pool)], REFERENCE, config_from_sets(CurationConfig, sets), Reporter())
    sides.load(Reporter())
    sides.embed_reference(Reporter())
    sides.embed_pool(Reporter())
    chosen, scores = choose_method(sides, sides.usable, sides.asked, Reporter())
    assert chosen != "random" and scores[chosen].probability > scores["random"].probability + 0.05
    rows = np.flatnonzero(sides.usable)[:200]
    one, other = (Trainer(sides, rows).train(rows, seed=3) for _ in range(2))
    np.testing.assert_array_equal(one[1], other[1])
