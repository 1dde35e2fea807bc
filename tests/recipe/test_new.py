"""Recipes to start from."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.data.images import encode
from synthforge.errors import DatasetError, PlaceError, RequestError
from synthforge.recipe import new
from synthforge.recipe.load import load_recipe
from tests.curation.planted import real


def photos(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for row in range(6):
            (folder / name / f"{row}.png").write_bytes(encode(real().images[row], "png", 100, marking=False))
    return folder


@pytest.mark.parametrize("name", new.builtin_names())
def test_every_built_in_recipe_loads(name: str, tmp_path: Path) -> None:
    out = new.write_new(new.builtin(name), tmp_path / f"{name}.yaml")
    assert load_recipe(out).classes


def test_an_unknown_name_is_told_with_those_that_exist() -> None:
    with pytest.raises(RequestError, match=r"there are .*digits"):
        new.builtin("digit")


def test_a_recipe_for_a_folder_has_its_classes_and_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "mine.yaml"
    text = new.for_folder(str(photos(tmp_path / "my photos")), out)
    recipe = load_recipe(new.write_new(text, out))
    assert list(recipe.classes) == ["cat", "dog"] and recipe.name == "my-photos" and "12 images" in text


def test_a_built_in_recipe_takes_the_classes_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    name = next(name for name in new.builtin_names() if name != "digits")
    out.write_text(new.builtin_for_folder(name, str(photos(tmp_path / "photos", ("cat",))), out))
    assert list(load_recipe(out).classes) == ["cat"]


def test_a_broken_image_is_named(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    (folder / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"0\.png.*remove or replace it"):
        new.for_folder(str(folder), tmp_path / "mine.yaml")


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("mine")
    with pytest.raises(PlaceError, match="exists already"):
        new.write_new("name: x", tmp_path / "r.yaml")
    assert (tmp_path / "r.yaml").read_text() == "mine"
