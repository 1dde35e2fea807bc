"""Real images rendered by a generator: which can be, and that each rendering belongs to its image."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode, encode
from synthforge.data.reading import read_labelled
from synthforge.generation.render import render, why_not
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, files_of, small


def test_the_reason_is_named_why_a_recipe_can_not_render(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, small(tmp_path))
    assert why_not(recipe, 0.5) is None
    assert "less than one step" in (why_not(recipe, 0.01) or "")


def test_each_image_of_the_fit_part_is_rendered_once_and_kept(tmp_path: Path) -> None:
    for example in read_labelled("builtin:digits/reference")["fit"].first_of_each(2).examples:
        if example.class_name in "37":
            place = tmp_path / "real" / example.class_name / f"{example.key.replace('/', '-')}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(encode(decode(example.data), "png", 100, marking=False))
    recipe, real = load_recipe(DIGITS, small(tmp_path / "run")), str(tmp_path / "real")
    examples = read_labelled(real)["fit"].examples
    address = render(recipe, real, 0.3, tmp_path / "renderings", threads=1)
    dataset = DatasetFolder.open(address)
    for number, example in enumerate(examples):
        row, members = dataset.sample(f"{number:09d}")
        record = json.loads(members["json"])
        assert (row["class"], record["source_sha256"]) == (example.class_name, example.sha256)
        rendered, original = decode(members["image"]).astype(np.int16), decode(example.data).astype(np.int16)
        assert 0 < np.abs(rendered - original).mean() < 60, "changed, and still the same picture"
    written = files_of(Path(address))
    assert render(recipe, real, 0.3, tmp_path / "renderings", threads=1) == address
    assert files_of(Path(address)) == written
