"""Generators and pools of draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from synthforge.data.reading import read_labelled
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS
from tests.evaluation.sets import run, sets_of


def test_an_unfinished_pool_from_elsewhere_is_told_and_named_by_its_own_model(tmp_path: Path) -> None:
    generate(load_recipe(str(DIGITS), sets_of(tmp_path)))
    gone = sorted((tmp_path / "pool").glob("train-000001.*"))
    for path in [*gone, tmp_path / "pool" / "complete.json"]:
        path.unlink()
    changed = "generator.model=builtin:digits/generator-50-per-class"
    result = run(tmp_path, "evaluation.generators=null", "evaluation.elsewhere=true", "evaluation.arms=[real, random]", changed)
    assert result.tables[0].generator == "builtin:digits/generator"
    assert any("1 of 2 shards are not made yet" in note for note in result.notes)


@pytest.mark.slow
def test_fitting_inside_the_sweep_sees_each_draw_and_nothing_else(tmp_path: Path) -> None:
    fitted = "evaluation.fit={loop: {images: 2000, checks: 2}, threads: 1}"
    result = run(tmp_path, fitted, "evaluation.generators=null", "evaluation.draws=2", "evaluation.arms=[real, random, curated]")
    (table,) = result.tables
    assert (table.origin, table.generator) == ("own", "fitted on these images")
    assert table.settings[0].arms["random"].interval_over == "draws and images"
    folders = sorted(path for path in (tmp_path / "evaluation").glob("real-5-draw-*"))
    assert len(folders) == 2
    of_draw = []
    for folder in folders:
        report = json.loads((folder / "generator" / "fit.json").read_bytes())
        assert (report["real_budget"], report["images_validation"]) == (50, 0)
        of_draw.append({example.sha256 for example in read_labelled(str(folder / "reference"))["fit"].examples})
    reference = read_labelled("builtin:digits/reference")["fit"]
    assert not of_draw[0] & of_draw[1]
    assert of_draw[0] | of_draw[1] < {example.sha256 for example in reference.examples}


def test_another_number_of_synthetic_images_fits_no_generator_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = [
        "evaluation.fit={loop: {images: 1000, checks: 1}, threads: 1}",
        "evaluation.generators=null",
        "evaluation.arms=[real, random]",
    ]
    run(tmp_path, *fitted)
    monkeypatch.setattr("synthforge.generators.pixel.fit.fit", lambda *_: pytest.fail("fitted again"))
    result = run(tmp_path, *fitted, "count={total: 150}")
    assert result.tables[0].settings[0].arms["random"].images == 50
