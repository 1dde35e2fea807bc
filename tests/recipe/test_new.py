"""Recipes to start from."""

from __future__ import annotations

import shlex
import subprocess
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from synthforge.data.images import encode
from synthforge.data.labels import as_name
from synthforge.data.splits import HELD_OUT_SPLITS, SPLITS
from synthforge.errors import DatasetError, PlaceError, RequestError
from synthforge.recipe import new
from synthforge.recipe.load import load_recipe
from tests.curation.planted import real
from tests.recipe.test_parse import STRANGE


def photos(folder: Path, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for row in range(6):
            (folder / name / f"{row}.png").write_bytes(encode(real().images[row], "png", 100, marking=False))
    return folder


LONG = "x" * 250
NAMES = [
    *(name for name in STRANGE if not name.startswith(".")), *"#'\"\\%&*!|>?:-@`", "---",
    "{x}", "$(x)", ":cat:", "[red]", "[a", "&a", "*a", "!a",
    " cat", "cat ", "- a", "? a", "a: b", "a #b", "%YAML 1.1", "{{ x }}", "{% x %}", "🐈", "👩‍🔬 lab", "猫", "e\u0301", LONG,
    "a\nb", "\n", "\t", "\r\n", "\x1b[31m", "\x7f", "\x85", "\u2028", "\ufeff", "\ufffe", "\U0010ffff",
]  # fmt: skip
"""Names of folders that mean something to YAML, to templates, or to a terminal."""

_IMAGE = encode(real().images[0], "png", 100, marking=False)


def is_class_folder(name: str) -> bool:
    """Whether a folder of this name is read as a class: not hidden, not a part, no set of another kind."""
    reserved = {*SPLITS["fit"], *SPLITS["validation"], *HELD_OUT_SPLITS, "pool"}
    return len(name.encode()) <= 255 and not name.startswith(".") and name not in reserved and "." not in name[1:]


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=80).filter(is_class_folder)


def made_recipe(place: Path, folder_name: str, class_names: list[str], builtin: str | None) -> tuple[list[str], str]:
    """The classes and the text of the recipe that is written for a folder."""
    folder = place / "in" / folder_name
    for name in class_names:
        (folder / name).mkdir(parents=True)
        (folder / name / "0.png").write_bytes(_IMAGE)
    out = place / "out" / f"{new.run_name(str(folder))}.yaml"
    out.parent.mkdir()
    text = (new.for_folder(str(folder), out) if builtin is None else new.builtin_for_folder(builtin, str(folder), out)).text
    recipe = load_recipe(new.write_new(text, out))
    guided = recipe.sampling.real_guidance
    assert guided is None or guided.reference == str(folder)
    return list(recipe.classes), text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(names, st.lists(names, min_size=1, max_size=6, unique_by=as_name), st.sampled_from([None, "real-guidance", "stable-diffusion"]))
@example("a\nb 'c' #", NAMES, None)
@example("- x: 🐈", NAMES, "real-guidance")
@example("001", [LONG], "stable-diffusion")
@example("~", ["a"], "real-guidance")
@example("a\x85", ["a"], "real-guidance")
@example(LONG, ["\x01" * 255], None)
def test_any_folder_gives_a_recipe_with_its_classes(folder_name: str, class_names: list[str], builtin: str | None) -> None:
    with tempfile.TemporaryDirectory() as place:
        found, _ = made_recipe(Path(place), folder_name, class_names, builtin)
    assert sorted(found) == sorted(map(as_name, class_names))


def test_other_readers_of_yaml_see_the_same_names(tmp_path: Path) -> None:
    import yaml

    found, text = made_recipe(tmp_path, "001", NAMES, None)
    read = yaml.safe_load(text)
    assert list(read["classes"]) == found and read["name"] == "001"


@pytest.mark.parametrize("name", ["photos", "my photos", "-x", "it's", "a\nb", "$HOME", "猫", "\x85\\"])
def test_commands_in_the_comments_name_the_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = new.for_folder(str(photos(tmp_path / name)), tmp_path / "r.yaml").text
    (line,) = [line for line in text.split("\n") if line.startswith("#   synthforge fit")]
    word = line.removeprefix("#   synthforge fit ").partition(" --out runs/")[0]
    shown = subprocess.run(["bash", "-c", f"printf '%s|' {word}"], capture_output=True, check=True).stdout
    assert (tmp_path / shown.decode().removesuffix("|")).resolve() == tmp_path / name and not shown.startswith(b"-")


def test_the_model_is_fitted_where_the_recipe_looks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "else where").mkdir()
    out = Path("else where") / "r.yaml"
    text = new.for_folder(str(photos(tmp_path / "photos")), out).text
    (line,) = [line for line in text.split("\n") if line.startswith("#   synthforge fit")]
    *_, option, place = shlex.split(line.removeprefix("#"))
    Path(place).mkdir(parents=True)  # as `fit` does
    assert option == "--out" and str(Path(place).resolve()) == str(load_recipe(new.write_new(text, out)).generator.model)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("photos", "photos"), ("photos/", "photos"), ("my photos", "my-photos"), ("001", "001"), ("_x_", "x_"), ("猫", "mine"),
        (".", "here"), ("/", "mine"), ("a..", "a"), ("..a", "a"), (LONG, "x" * 100), ("s3://bucket/a b", "a-b"),
        ("builtin:digits/reference", "reference"),
    ],
)  # fmt: skip
def test_the_name_of_a_run(folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert new.run_name(folder) == name


def test_a_linked_folder_has_the_name_of_the_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(photos(tmp_path / "photos-v3"))
    link, out = str(tmp_path / "link"), tmp_path / "r.yaml"
    for made in (new.for_folder(link, out), new.builtin_for_folder("pixels", f"{link}/", out)):
        assert "\nname: link\n" in made.text and "photos-v3" not in made.text


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "photos\udc80"
    photos(folder)
    with pytest.raises(DatasetError, match=r"photos\\udc80.*rename the folder"):
        new.for_folder(str(folder), tmp_path / "r.yaml")


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
    text = new.for_folder(str(photos(tmp_path / "my photos")), out).text
    recipe = load_recipe(new.write_new(text, out))
    assert list(recipe.classes) == ["cat", "dog"] and recipe.name == "my-photos" and "12 images" in text


def test_a_built_in_recipe_takes_the_classes_of_a_folder(tmp_path: Path) -> None:
    out = tmp_path / "mine.yaml"
    name = next(name for name in new.builtin_names() if name != "digits")
    out.write_text(new.builtin_for_folder(name, str(photos(tmp_path / "photos", ("cat",))), out).text)
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
