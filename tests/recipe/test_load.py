"""Recipes: every mistake at once, each with its place; overrides; the schema; relative paths."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.errors import RecipeError
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from tests.conftest import DIGITS
from tests.recipe.test_parse import STRANGE

HEAD = "name: t\ngenerator: {kind: pixel, model: 'builtin:digits/generator'}\n"


def problems(tmp_path: Path, text: str, *sets: str) -> list[str]:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, sets)
    assert all("\n" not in problem for problem in caught.value.problems)
    return [problem.replace(str(path), "FILE") for problem in caught.value.problems]


def test_five_mistakes_are_reported_at_once_with_line_path_and_nearest_name(tmp_path: Path) -> None:
    text = """name: digits
generator: {kind: pixel, model: x}
classes:
  cat: {templates: []}
  dog:
    weigth: 2
prompts:
  templates: ["a {siz} {class}"]
  values: {size: [small]}
sampling:
  steps: 0
  scheduler: {name: EDMEulerSchedule}
count: {total: 5}
"""
    found = problems(tmp_path, text)
    assert any(p.startswith("FILE:4: classes.cat.templates: class 'cat' has no prompts") for p in found)
    assert any(p.startswith("FILE:6: classes.dog.weigth: unknown field; did you mean 'weight'?") for p in found)
    assert any(p.startswith("FILE:8: prompts.templates.0: {siz} has no values; did you mean 'size'?") for p in found)
    assert any(p.startswith("FILE:9: prompts.values.size: no template uses {size}") for p in found)
    assert any(p.startswith("FILE:11: sampling.steps: is 0") for p in found)
    assert any(p.startswith("FILE:12: sampling.scheduler.name: ") and "did you mean 'EDMEulerScheduler'" in p for p in found)
    assert len(found) == 6


@pytest.mark.parametrize("section", ["curate", "evaluate", "stream"])
def test_sections_of_later_stages_are_unknown(tmp_path: Path, section: str) -> None:
    assert problems(tmp_path, HEAD + f"classes: ['0']\ncount: {{total: 1}}\n{section}: {{}}\n")[0].startswith(
        f"FILE:5: {section}: unknown field"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("classes: [a]\ncount: {total: 1, per_class: 1}\n", "count: give either total or per_class"),
        ("classes: [a]\ncount: {total: 1000000000000}\n", "count.total: is 1000000000000"),
        ("classes: [a]\ncount: {total: 1}\nsampling: {resolution: 9999999}\n", "sampling.resolution: is 9999999"),
        ("classes: [a]\ncount: {total: 1}\noutput: {samples_per_shard: 0}\n", "output.samples_per_shard: is 0"),
        ("classes: [a, b]\ncount: {per_class: 900000000}\n", "count.per_class: makes 1,800,000,000 samples"),
        ("classes: {a: {weight: 2}, b: {}}\ncount: {per_class: 5}\n", "classes have different weights"),
        ("classes: [b, a, a]\ncount: {total: 1}\n", "FILE:3: classes: 'a' is given twice"),
        ("classes: [1, '1']\ncount: {total: 1}\n", "FILE:3: classes: '1' is given twice"),
        ("classes: {a: {},\n 1: {}, '1': {}}\ncount: {total: 1}\n", "FILE:4: not valid YAML: '1' is given twice"),
        ("classes: [a, '']\ncount: {total: 1}\n", "FILE:3: classes: a name is empty"),
        ("classes: {a: , '': }\ncount: {total: 1}\n", "classes.: '' is not a name"),
        ("classes: [a]\ncount: {total: 1}\ncuration:\n  classes: [x, 1, '1']\n", "FILE:6: curation.classes: '1' is given twice"),
        ("classes: [a]\ncount: {total: 1}\nnull: 3\n", "FILE:5: null: unknown field"),
        ("classes: !!set 1\ncount: {total: 1}\n", "FILE: not valid YAML: a tag does not fit its value"),
        ("classes: [a]\ncount: {total: !!int }\n", "FILE: not valid YAML: a tag does not fit its value"),
        ("classes: {? {a: b}: c}\ncount: {total: 1}\n", "not a name"),
        ("classes: [&a [*a]]\ncount: {total: 1}\n", "is nested too deeply"),
        ("classes: []\ncount: {total: 1}\n", "classes"),
        ("classes: [a]\ncount: {total: 1}\nprompts: {templates: ['{']}\n", "prompts.templates.0"),
        ("classes: [a]\ncount: {total: 1}\nprompts: {templates: ['{a.b}']}\n", "must be a plain name, such as {size}"),
        (
            "classes: [a]\ncount: {total: 1}\nprompts: {templates: ['{class}'], negative: blurry}\n",
            "prompts.negative: generator 'pixel' takes a class label",
        ),
        ("classes: [a]\ncount: {total: 1}\nprompts: {captions: nowhere.txt}\n", "nowhere.txt: no such file"),
        ("classes: {a: {templates: ['x']}, b: {}}\ncount: {total: 1}\n", "class 'b' has no prompts"),
        ("classes: [a]\ncount: {total: 1}\nsampling: {guidance: [1, 1]}\n", "a guidance level is given twice"),
        ("classes: [a]\n", "count: is missing"),
        ("classes: [a]\ncount: {total: .nan}\n", "count.total"),
    ],
)
def test_single_mistakes(tmp_path: Path, text: str, expected: str) -> None:
    assert any(expected in problem for problem in problems(tmp_path, HEAD + text))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [1\n", "a: 1\n\tb: 2\n", "\x00"])
def test_what_is_no_recipe_at_all(tmp_path: Path, text: str) -> None:
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("FILE")


def test_overrides_win_and_are_named_in_mistakes(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, ["sampling.steps=7", "classes.3.weight=2", "count={total: 11}", "output.path=out"])
    assert (recipe.sampling.steps, recipe.classes["3"].weight, recipe.num_samples) == (7, 2, 11)
    assert recipe.run_path == str(Path.cwd() / "out")
    with pytest.raises(RecipeError, match=r"^--set sampling.steps=none_such: sampling.steps: is 'none_such'"):
        load_recipe(DIGITS, ["sampling.steps=none_such"])
    with pytest.raises(RecipeError, match=r"^--set tuning.on=no: tuning: unknown field"):
        load_recipe(DIGITS, ["tuning.on=no"])
    for wrong in ("nonsense", "=3", "sampling.steps.x=1", "sampling.guidance.9=1"):
        with pytest.raises(RecipeError, match=r"^--set"):
            load_recipe(DIGITS, [wrong])


def test_class_names_are_the_characters_that_stand_in_the_file(tmp_path: Path) -> None:
    rest, path = "count: {per_class: 1}\n", tmp_path / "r.yaml"
    keys = [f"'{name}'" if name == "<<" else name for name in STRANGE]
    for classes in (f"[{', '.join(STRANGE)}]", "{" + ", ".join(f"{key}: {{}}" for key in keys) + "}", "".join(f"\n- {n}" for n in STRANGE)):
        path.write_text(f"{HEAD}classes: {classes}\n{rest}")
        assert list(load_recipe(path).classes) == STRANGE
    quota = "{" + ", ".join(f"{key}: {number}" for number, key in enumerate(keys)) + "}"
    path.write_text(f"{HEAD}classes: [a]\n{rest}curation: {{classes: [{', '.join(STRANGE)}], selection: {{size: {{quota: {quota}}}}}}}\n")
    curation = load_recipe(path).curation
    assert curation.classes == STRANGE and curation.selection.size.quota == {name: number for number, name in enumerate(STRANGE)}


def test_class_names_of_overrides_are_as_they_are_written() -> None:
    assert list(load_recipe(DIGITS, [f"classes=[{', '.join(STRANGE)}]"]).classes) == STRANGE
    recipe = load_recipe(DIGITS, ["classes={001: , yes: {label: 002}}", "classes.1e3.label=1e4", "curation.selection.size.quota={001: 3}"])
    assert {name: spec.label for name, spec in recipe.classes.items()} == {"001": None, "yes": "002", "1e3": "1e4"}
    assert recipe.curation.selection.size.quota == {"001": 3}
    sets = ["curation.classes=[001, yes]", "curation.classes.0=1_0", "curation.selection.size.quota.001=4"]
    curation = load_recipe(DIGITS, sets).curation
    assert curation.classes == ["1_0", "yes"] and curation.selection.size.quota == {"001": 4}
    curation = config_from_sets(CurationConfig, ["classes=[001,yes]", "classes.1=no", "selection.size.quota={001: 3, null: 1}"])
    assert curation.classes == ["001", "no"] and curation.selection.size.quota == {"001": 3, "null": 1}
    with pytest.raises(RecipeError, match=r"^--set classes=\{1: , '1': \}: '1' is given twice$"):
        load_recipe(DIGITS, ["classes={1: , '1': }"])


def test_names_in_mistakes_are_as_they_are_written_and_have_their_line(tmp_path: Path) -> None:
    text = HEAD + "classes:\n  001: {}\n  002:\n    weigth: 2\n  1e3: {weight: 0}\ncount: {total: 1}\n"
    found = problems(tmp_path, text)
    assert any(p.startswith("FILE:6: classes.002.weigth: unknown field") for p in found)
    assert any(p.startswith("FILE:7: classes.1e3.weight: is 0") for p in found)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_byte_order_mark_and_line_ends_are_no_part_of_a_recipe(tmp_path: Path, mark: str, end: str) -> None:
    for first in ("classes:\n- 001\n- 'b'\n", "'classes':\n- 001\n- b\n", "# x\nclasses:\n- 001\n- b\n"):
        text = mark + first + HEAD + "count: {total: 1}\nprompts:\n  templates:\n  - a {class}\n"
        (tmp_path / "r.yaml").write_bytes(text.replace("\n", end).encode())
        recipe = load_recipe(tmp_path / "r.yaml")
        assert list(recipe.classes) == ["001", "b"] and [one.template for one in recipe.prompts.templates or []] == ["a {class}"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_recipe_or_captions_that_are_not_utf8(tmp_path: Path, encoding: str) -> None:
    text = HEAD + "classes: [Bär]\ncount: {total: 1}\n"
    (tmp_path / "wrong.yaml").write_bytes(text.encode(encoding))
    with pytest.raises(RecipeError) as caught:
        load_recipe(tmp_path / "wrong.yaml")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{tmp_path / 'wrong.yaml'}: not UTF-8") and problem.endswith("save it as UTF-8")
    (tmp_path / "c.txt").write_bytes("ein Bär\n".encode(encoding))
    (problem,) = problems(tmp_path, text + "prompts: {captions: c.txt}\n")
    assert problem.startswith(f"FILE:5: prompts.captions: {tmp_path / 'c.txt'}: not UTF-8")
    assert problem.endswith("save it as UTF-8")


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.txt").write_text("one\n")
    (tmp_path / "sub" / "r.yaml").write_text(HEAD + "classes: ['0']\ncount: {total: 1}\nprompts: {captions: c.txt}\noutput: {path: out}\n")
    recipe = load_recipe(tmp_path / "sub" / "r.yaml")
    assert recipe.prompts.captions == str(tmp_path / "sub" / "c.txt")
    assert recipe.run_path == str(tmp_path / "sub" / "out")


def test_a_name_with_dots_stands_in_quotes() -> None:
    recipe = load_recipe(DIGITS, ['classes={"a.b": {label: 3}, c: {label: 4}}', 'classes."a.b".weight=2', "count={total: 11}"])
    assert {name: spec.weight for name, spec in recipe.classes.items()} == {"a.b": 2, "c": 1}


def test_any_config_from_overrides() -> None:
    from synthforge.generators.pixel.config import PixelFitConfig

    config = config_from_sets(PixelFitConfig, ["loop.batch=32", "objective=flow"])
    assert (config.loop.batch, config.objective) == (32, "flow")
    with pytest.raises(RecipeError, match="did you mean 'batch'") as caught:
        config_from_sets(PixelFitConfig, ["loop.bach=32", "objective=flows"])
    assert len(caught.value.problems) == 2


def test_an_old_name_of_a_field_is_refused_with_the_new_one(tmp_path: Path) -> None:
    text = HEAD + "classes: ['0']\ncount: {total: 1}\ncuration:\n  judge: {kind: pixels}\n"
    assert problems(tmp_path, text) == ["FILE:6: curation.judge: was renamed; write 'metric_encoder'"]
    (found,) = problems(tmp_path, HEAD + "classes: ['0']\ncount: {total: 1}\n", "curation.judge.kind=pixels")
    assert "curation.judge" in found and "was renamed; write 'metric_encoder'" in found
