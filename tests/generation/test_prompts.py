"""What becomes of a recipe's prompts: found before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.errors import RecipeError
from synthforge.generation.plan import TEXTS_CHECKED, Plan
from synthforge.generation.prompts import look_at, negative_prompts
from synthforge.recipe.load import load_recipe
from tests import tiny_models
from tests.conftest import DIGITS

LONG = "a photo of a {class} " + "and another thing " * 10


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def recipe_of(folder: Path, models: Path, text: str, name: str = "sd") -> Path:
    path = folder / "r.yaml"
    generator = f"generator: {{kind: text-to-image, model: {tiny_models.save(name, models)}, dtype: float32}}\n"
    path.write_text(f"name: r\n{generator}classes: [cat, dog]\ncount: {{total: 10}}\n{text}")
    return path


def plan_of(folder: Path, models: Path, text: str, *sets: str, name: str = "sd") -> Plan:
    return Plan.of(load_recipe(recipe_of(folder, models, text, name=name), sets))


def test_prompts_that_are_too_long_are_counted_and_the_first_is_named(models: Path, tmp_path: Path) -> None:
    text = f"prompts: {{templates: ['a {{class}}', '{LONG}'], negative: '{'bad ' * 40}'}}\nsampling: {{guidance: [3.0]}}\n"
    report = look_at(plan_of(tmp_path, models, text))
    assert (report.checked, report.is_whole, report.max_tokens, report.overlong) == (5, True, 77, 3)
    assert report.first == LONG.replace("{class}", "cat")
    assert report.first_tokens == len(report.first.replace(" ", "")) + 2
    (note,) = report.notes
    assert note.startswith("prompts: 3 of 5 are longer than the text encoder takes, which is 77 tokens; the first has ")
    assert report.problems == []
    report.refuse()
    short = look_at(plan_of(tmp_path, models, "prompts: {templates: ['a {class}']}"))
    assert (short.checked, short.overlong, short.notes, short.first) == (2, 0, [], None)


def test_they_are_refused_where_the_recipe_says_so(models: Path, tmp_path: Path) -> None:
    text = f"prompts: {{templates: ['{LONG}'], overlong: error}}"
    report = look_at(plan_of(tmp_path, models, text))
    with pytest.raises(RecipeError, match=r"^prompts\.overlong: 2 of 2 are longer .*; shorten them, or set prompts\.overlong=cut$"):
        report.refuse()
    look_at(plan_of(tmp_path, models, text, "prompts.templates=['a {class}']")).refuse()


def test_of_very_many_prompts_some_are_checked_and_it_is_said(models: Path, tmp_path: Path) -> None:
    numbers = list(range(150))
    text = f"prompts: {{templates: ['{{a}} {{b}} {{class}}'], values: {{a: {[str(n) for n in numbers]}, b: {[str(n) for n in numbers]}}}}}"
    report = look_at(plan_of(tmp_path, models, text))
    assert (report.is_whole, report.overlong) == (False, 0)
    assert 10_000 < report.checked <= TEXTS_CHECKED
    assert report.notes == [f"prompts: there may be more than 20,000; only the length of the first {report.checked:,} was checked"]


def test_what_is_checked_does_not_depend_on_the_count(models: Path, tmp_path: Path) -> None:
    """Else an extension of a dataset could use more of a prompt than its first images did."""
    text = f"prompts: {{templates: ['a {{class}}', '{LONG * 3}']}}"
    few, many = (plan_of(tmp_path, models, text, f"count.total={total}", name="sd3") for total in (1, 1000))
    assert few.distinct_texts == many.distinct_texts
    assert few.generator == many.generator != few.recipe.generator
    assert few.digest == many.digest


def test_only_what_is_cut_is_in_a_record(models: Path, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, models, f"prompts: {{templates: ['a {{class}}', '{LONG}']}}")
    for sample in plan:
        cut = plan.cut_texts(sample)
        assert (cut == {}) == (len(sample.prompt) < 20)
        assert all(name == "prompt_used" and sample.prompt.startswith(used) for name, used in cut.items())
    assert all(Plan.of(load_recipe(DIGITS)).cut_texts(sample) == {} for sample in [Plan.of(load_recipe(DIGITS))[0]])


def test_a_model_that_takes_no_text_has_nothing_to_check() -> None:
    report = look_at(Plan.of(load_recipe(DIGITS)))
    assert (report.checked, report.notes, report.problems) == (0, [], [])


def test_negative_prompts_without_effect(models: Path, tmp_path: Path) -> None:
    text = "prompts: {templates: ['a {class}'], negative: blurry}\nsampling: {guidance: [0.5, 1.0, 3.0]}\n"
    report = look_at(plan_of(tmp_path, models, text))
    assert report.problems == []
    assert report.notes == [
        (
            "prompts.negative: has no effect at guidance 0.5, 1: StableDiffusionPipeline uses it only at guidance above 1; "
            "raise sampling.guidance, or remove it"
        )
    ]
    report = look_at(plan_of(tmp_path, models, text, "sampling.guidance=[1.0]"))
    assert report.problems == [
        "prompts.negative: has no effect: StableDiffusionPipeline uses it only at guidance above 1; raise sampling.guidance, or remove it"
    ]
    of_class = "classes={cat: {negative: dog}, dog: null}"
    report = look_at(plan_of(tmp_path, models, text, "prompts.negative=null", of_class, "sampling.guidance=[1.0]"))
    assert report.problems[0].startswith("classes.cat.negative: has no effect: ")
    report = look_at(plan_of(tmp_path, models, text, name="flux"))
    assert report.problems == [
        (
            "prompts.negative: has no effect: FluxPipeline uses it only if true_cfg_scale is above 1, "
            "as by generator.arguments={true_cfg_scale: 4.0}"
        )
    ]
    assert look_at(plan_of(tmp_path, models, text, "generator.arguments={true_cfg_scale: 2.0}", name="flux")).problems == []


def test_a_recipe_is_checked_without_fetching_its_model(models: Path, tmp_path: Path) -> None:
    text = "prompts: {templates: ['a {class}'], negative: blurry}\n"
    path = recipe_of(tmp_path, models, text)
    assert negative_prompts(load_recipe(path)).problems
    elsewhere = ["generator.model=someone/model"]
    assert negative_prompts(load_recipe(path, elsewhere)).notes == [
        "prompts.negative: has no effect in most models at guidance 1; `synthforge plan` looks at this model"
    ]
    assert negative_prompts(load_recipe(path, [*elsewhere, "sampling.guidance=[3.0]"])).notes == []
    assert negative_prompts(load_recipe(path, [*elsewhere, "prompts.negative=null"])).notes == []
