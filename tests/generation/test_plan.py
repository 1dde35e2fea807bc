"""The plan: random access, exact shares, prompts as permutations, seeds from nothing but recipe and index."""

from __future__ import annotations

import itertools
import math
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from synthforge.config import walk
from synthforge.generation.plan import Plan, _captions, _Texts
from synthforge.recipe.load import load_recipe
from synthforge.recipe.recipe import PromptsConfig, Template
from tests.conftest import DIGITS


def plan_of(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"name: t\ngenerator: {{kind: pixel, model: 'builtin:digits/generator'}}\n{text}")
    return Plan.of(load_recipe(path))


def test_a_plan_of_a_hundred_million_samples_is_instant_and_small(tmp_path: Path) -> None:
    text = """classes: {'0': {weight: 3}, '1': {weight: 2.5}, '2': {weight: 0.125}}
prompts: {templates: ['{a} {b} {class}'], values: {a: [x, y, z], b: [u, v]}}
"""
    plan = plan_of(tmp_path, text + "count: {total: 100000000}")
    tracemalloc.start()
    began = time.perf_counter()
    first = plan[0]
    seconds = time.perf_counter() - began
    samples = [plan[index] for index in range(0, 100_000_000, 99_991)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first.key == "000000000"
    assert seconds < 1, "first item in milliseconds; the bound only catches unrolling"
    assert peak < 20_000_000
    assert len(plan) == 100_000_000
    assert len({sample.seed for sample in samples}) == len(samples)
    counts = plan.counts(len(plan)).values()
    assert all(abs(count - weight / 5.625 * 1e8) < 1 for count, weight in zip(counts, (3, 2.5, 0.125), strict=True))


def test_prompts_of_a_class_are_used_evenly_and_by_weight(tmp_path: Path) -> None:
    text = """classes: [0, 1]
prompts:
  templates: ["{a} {b} {class}", {template: "plain {class}", weight: 2}]
  values: {a: [p, q, r], b: [s, t]}
count: {total: 360}"""
    plan = plan_of(tmp_path, text)
    for name in ("0", "1"):
        prompts = Counter(sample.prompt for sample in plan if sample.class_name == name)
        assert prompts.pop(f"plain {name}") == 120
        assert set(prompts) == {f"{a} {b} {name}" for a in "pqr" for b in "st"}
        assert set(prompts.values()) == {10}  # six combinations, sixty turns: every cycle uses each once


def test_captions_of_any_editor_give_the_same_prompts(tmp_path: Path) -> None:
    prompts = []
    for mark, end in (("", "\n"), ("\ufeff", "\r\n")):
        (tmp_path / "captions.txt").write_bytes((mark + end.join(["a cat", "", "ein Bär", ""])).encode())
        plan = plan_of(tmp_path, "classes: {'7': {captions: captions.txt}}\ncount: {total: 4}")
        _captions.cache_clear()  # two files of one name
        prompts.append([sample.prompt for sample in plan])
    assert prompts[0] == prompts[1] and set(prompts[0]) == {"a cat", "ein Bär"}


def test_captions_and_braces(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a {curly} seven\n\nanother seven\n", encoding="utf-8")
    plan = plan_of(tmp_path, "classes: {'7': {captions: captions.txt}, '1': {templates: ['{{literal}} {class}']}}\ncount: {total: 8}")
    assert {sample.prompt for sample in plan if sample.class_name == "7"} == {"a {curly} seven", "another seven"}
    assert {sample.prompt for sample in plan if sample.class_name == "1"} == {"{literal} 1"}


def test_longer_run_begins_with_the_shorter(tmp_path: Path) -> None:
    text = "classes: {'0': {weight: 5}, '1': {weight: 3}}\nsampling: {guidance: [1, 2, 3]}\n"
    short, long = (list(plan_of(tmp_path, text + f"count: {{total: {total}}}")) for total in (50, 500))
    assert long[:50] == short


def test_count_place_and_execution_are_not_in_the_digest(tmp_path: Path) -> None:
    base = Plan.of(load_recipe(DIGITS)).digest
    for same in (
        "count.per_class=7",
        "output.path=/elsewhere",
        "execution.batch=3",
        "execution.device=cpu",
        "output.samples_per_shard=5",
        "name=other",
        "prompts.overlong=error",
    ):
        assert Plan.of(load_recipe(DIGITS, [same])).digest == base, same
    changes = (
        "sampling.seed=1",
        "sampling.steps=19",
        "output.format=webp",
        "output.marking=false",
        "execution.threads=2",
        "classes.3={weight: 2}",
    )
    for other in changes:
        sets = [other, "count={total: 100}"] if "weight" in other else [other]
        assert Plan.of(load_recipe(DIGITS, sets)).digest != base, other


def test_class_order_is_identity(tmp_path: Path) -> None:
    one = plan_of(tmp_path, "classes: ['0', '1']\ncount: {total: 4}")
    other = plan_of(tmp_path, "classes: ['1', '0']\ncount: {total: 4}")
    assert one.digest != other.digest


def test_a_model_is_named_by_content_not_by_place(tmp_path: Path) -> None:
    import shutil

    from synthforge.data.storage import resolve

    shutil.copytree(resolve("builtin:digits/generator"), tmp_path / "copy")
    assert Plan.of(load_recipe(DIGITS, [f"generator.model={tmp_path / 'copy'}"])).digest == Plan.of(load_recipe(DIGITS)).digest


def test_every_field_of_a_recipe_has_a_declared_role() -> None:
    undeclared = [".".join(path) for path, role, _ in walk(load_recipe(DIGITS)) if role is None]
    # Empty mappings and lists of Configs have no leaves, and a section that is not given is None.
    assert set(undeclared) <= {
        "sampling.scheduler",
        "sampling.real_guidance",
        "prompts.templates",
        "curation.encoder",
        "diagnosis.encoder",
        "curation.metric_encoder",
        "evaluation.fit",
        *(f"evaluation.arms.{number}.mixing" for number in range(4)),
        *(f"classes.{digit}.templates" for digit in range(10)),
    }


@pytest.mark.parametrize("attempt", [1, 2])
def test_attempts_change_the_seed_and_nothing_of_the_label(attempt: int) -> None:
    plan = Plan.of(load_recipe(DIGITS))
    first, again = plan.sample(17), plan.sample(17, attempt)
    assert (first.class_name, first.prompt, first.key) == (again.class_name, again.prompt, again.key)
    assert first.seed != again.seed


def test_index_of_finds_the_first_of_each_class() -> None:
    plan = Plan.of(load_recipe(DIGITS, ["count={total: 1000}", "classes.3.weight=7", "classes.5.weight=0.3"]))
    found = plan.first_of_each(5)
    for name, samples in found.items():
        expected = [plan[index] for index in range(1000) if plan[index].class_name == name][:5]
        assert samples[: len(expected)] == expected
    assert math.isclose(sum(plan.counts(1000).values()), 1000)


NAMES = st.lists(st.sampled_from("abcde"), min_size=1, max_size=3, unique=True)
VALUES = st.lists(st.text("xyz{}", min_size=1, max_size=3), min_size=1, max_size=4, unique=True)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(NAMES, st.integers(1, 9)), min_size=1, max_size=3), st.data())
def test_any_prompts_are_used_by_weight_and_every_cycle_uses_each_combination_once(
    templates: list[tuple[list[str], int]], data: st.DataObject
) -> None:
    values = {name: data.draw(VALUES) for names, _ in templates for name in names}
    texts = [f"{number}|" + "|".join(f"{{{name}}}" for name in names) for number, (names, _) in enumerate(templates)]
    prompts = PromptsConfig(
        templates=[Template(template=text, weight=float(weight)) for text, (_, weight) in zip(texts, templates, strict=True)],
        values=values,
    )
    source, again = _Texts("cat", prompts, seed=7), _Texts("cat", prompts, seed=7)
    made = [source.at(ordinal) for ordinal in range(150)]
    assert [again.at(ordinal) for ordinal in reversed(range(150))] == made[::-1]
    for number, (names, weight) in enumerate(templates):
        mine = [text for text in made if text.startswith(f"{number}|")]
        assert abs(len(mine) - 150 * weight / sum(w for _, w in templates)) < 1
        size = math.prod(len(values[name]) for name in names)
        for start in range(0, len(mine) - size + 1, size):
            assert len(set(mine[start : start + size])) == len(set(made_of(number, names, values)))


def made_of(number: int, names: list[str], values: dict[str, list[str]]) -> list[str]:
    return [f"{number}|" + "|".join(chosen) for chosen in itertools.product(*(values[name] for name in names))]
