"""Plan, preview, verify, show, and samples made again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.data.images import decode
from synthforge.errors import RequestError
from synthforge.generation.inspect import preview, show, summarize, verify
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests import children
from tests.conftest import DIGITS, small
from tests.generation.pools import make


def test_any_sample_can_be_remade(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    audit, remade = verify(dataset.folder.address, regenerate=15, seed=3)
    assert audit.problems == []
    assert remade is not None
    assert remade.is_reproduced
    assert remade.num_samples == 15
    assert remade.largest_difference <= 2
    other = load_recipe(DIGITS, small(tmp_path, sampling__steps=9))
    with pytest.raises(RequestError, match="did not make it"):
        verify(dataset.folder.address, regenerate=1, recipe=other)


def test_regeneration_notices_other_pixels(tmp_path: Path) -> None:
    """A shard whose images are not what the recipe makes, sealed honestly, is in order but not reproduced."""
    from tests.conftest import in_child

    assert in_child(children.run, str(DIGITS), small(tmp_path), None, 100) == 0
    audit, remade = verify(str(tmp_path / "pool"), regenerate=10)
    assert audit.problems == []
    assert remade is not None
    assert not remade.is_reproduced


def test_show_gives_the_image_the_record_and_code_that_remakes_it(tmp_path: Path) -> None:
    dataset = make(tmp_path, sampling__steps=6, sampling__scheduler="{name: EDMEulerScheduler}", generator__guide="less_trained")
    shown = show(dataset.folder.address, "7")
    names: dict[str, Any] = {}
    exec(shown.remake, names)
    assert np.abs(decode(shown.image).astype(int)[..., 0] - np.asarray(names["image"]).astype(int)).max() <= 2
    assert shown.record["class"] == "7"
    assert shown.record["prompt"] == "a handwritten digit 7"


def test_preview_draws_the_images_of_the_run(tmp_path: Path) -> None:
    path = preview(load_recipe(DIGITS, small(tmp_path)), tmp_path / "p" / "sheet.png", per_class=3)
    sheet = decode(path.read_bytes())
    assert sheet.shape[0] > 10 * 64
    assert sheet.shape[1] > 3 * 64
    assert not (tmp_path / "pool").exists()


def test_the_plans_estimate_is_near_the_truth(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, small(tmp_path, total=500, per_shard=100))
    summary = summarize(recipe, measure=True)
    assert (summary.samples, summary.shards, summary.resolution) == (500, 5, 8)
    assert sum(summary.per_class.values()) == 500
    assert summary.batch in (summary.batches_measured or {})
    assert summary.hours is not None
    result = generate(recipe)
    tars = sum(path.stat().st_size for path in (tmp_path / "pool").glob("*.tar"))
    assert result.bytes > tars
    assert 0.8 < summary.bytes_estimated / tars < 1.25
