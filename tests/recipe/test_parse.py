"""YAML with class names as they are written: keys, items of lists, aliases, merge keys, and what stays a value."""

from __future__ import annotations

from typing import Any

import pytest

from synthforge.config import ClassName, Config, identity
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.parse import GivenTwiceError, parse
from synthforge.recipe.recipe import Recipe

STRANGE = [
    "001", "0x10", "0o17", "1_000", "yes", "no", "on", "1e3", "null", "~", "2020-01-01", "2020-99-99", "1.0", ".inf", "true", "<<", "=",
]  # fmt: skip
"""Names that YAML reads as numbers, dates, truth values, nothing, or as something of its own."""


def names_in(text: str, *path: str, config: type[Config] = Recipe) -> list[str]:
    found = parse(text, config)
    for step in path:
        found = found[step]
    return list(found)


@pytest.mark.parametrize("name", STRANGE)
def test_a_name_is_the_characters_that_stand_there(name: str) -> None:
    assert names_in(f"classes: [{name}, b]", "classes") == [name, "b"]
    assert names_in(f"classes:\n- {name}\n- '{name}x'", "classes") == [name, f"{name}x"]
    assert names_in(f"curation: {{classes: [{name}]}}", "curation", "classes") == [name]
    assert names_in(f"classes: [{name}]", "classes", config=CurationConfig) == [name]
    quoted = f"'{name}'" if name == "<<" else name  # as a key, << merges
    assert names_in(f"classes: {{{quoted}: {{}}}}", "classes") == [name]
    assert parse(f"curation: {{selection: {{size: {{quota: {{{quoted}: 3}}}}}}}}", Recipe)["curation"]["selection"]["size"] == {
        "quota": {name: 3}
    }
    assert list(parse(f"[{name}]", Recipe, ("classes",))) == [name]
    assert list(parse(f"[{name}]", Recipe, ("curation", "classes"))) == [name]
    assert parse(f"{{{quoted}: 3}}", CurationConfig, ("selection", "size", "quota")) == {name: 3}
    assert parse(name, CurationConfig, ("classes", "0")) == name


def test_a_name_of_several_words_and_lines() -> None:
    text = "classes:\n- two\n  words\n- |\n  as it\n  is\n- 'a # b'\n- # nothing\n"
    assert names_in(text, "classes") == ["two words", "as it\nis\n", "a # b", ""]


def test_names_are_in_nfc_as_those_of_data_are() -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    assert names_in(f"classes: [{apart}]", "classes") == names_in(f"classes: {{{apart}: }}", "classes") == [composed]
    tree = parse(f"prompts: {{templates: ['{apart}'], values: {{{apart}: [{apart}]}}}}", Recipe)
    assert tree["prompts"] == {"templates": [apart], "values": {apart: [apart]}}
    with pytest.raises(GivenTwiceError):
        parse(f"classes: {{{apart}: , {composed}: }}", Recipe)


def test_other_fields_are_values_as_before() -> None:
    text = "sampling: {seed: 0x10, guidance: [1_0, 1e1]}\nreference: null\nevaluation: {steps_check: false, curve: [001, all]}"
    tree = parse(text, Recipe)
    assert (tree["sampling"], tree["reference"]) == ({"seed": 16, "guidance": [10, 10.0]}, None)
    assert tree["evaluation"] == {"steps_check": False, "curve": [1, "all"]}


@pytest.mark.parametrize(
    ("written", "label"),
    [*((name, name) for name in ("001", "0x10", "1e3", "true", "cat")), ("'3'", "3"), ("3", 3), ("null", None), ("", None)],
)
def test_a_label_is_a_name_unless_it_is_a_plain_number(written: str, label: object) -> None:
    assert parse(f"classes: {{a: {{label: {written}}}}}", Recipe)["classes"]["a"] == {"label": label}
    assert parse(written, Recipe, ("classes", "a", "label")) == label


def test_classes_with_the_names_of_fields_are_classes() -> None:
    found = parse("classes: {label: {values: {label: [x]}}, weight: {weight: 1e1}, templates: , quota: {weight: 010}}", Recipe)["classes"]
    assert found == {"label": {"values": {"label": ["x"]}}, "weight": {"weight": 10.0}, "templates": None, "quota": {"weight": 10}}


def test_an_alias_is_text_as_a_name_and_a_value_elsewhere() -> None:
    tree: Any = parse("sampling: {seed: &s 007, guidance: &g [1.50]}\nclasses: [*s, b]\ncuration: {classes: *g}", Recipe)
    assert tree["classes"] == ["007", "b"] and tree["sampling"] == {"seed": 7, "guidance": [1.5]}
    assert tree["curation"]["classes"] == ["1.50"]
    tree = parse("classes: &c [001]\ncuration: {classes: *c}\nsampling: {seed: 1}", Recipe)
    assert tree["classes"] == tree["curation"]["classes"] == ["001"]


def test_merge_keys_bring_names_along() -> None:
    text = "classes:\n  001: &a {label: 002, weight: 1e1}\n  yes: {<<: *a, weight: 3}\n  no: {<<: [*a, {label: 003}]}\n"
    assert {name: dict(found) for name, found in parse(text, Recipe)["classes"].items()} == {
        "001": {"label": "002", "weight": 10.0},
        "yes": {"label": "002", "weight": 3},
        "no": {"label": "002", "weight": 10.0},
    }
    size = parse("{quota: &q {001: 3}}", Recipe, ("curation", "selection", "size"))
    assert size == {"quota": {"001": 3}}


@pytest.mark.parametrize("text", ["classes: {1: {}, '1': {}}", "name: a\nclasses: {}\nname: b", "classes: {~: {}, '~': {}}"])
def test_a_key_that_stands_twice_is_a_mistake_with_its_line(text: str) -> None:
    with pytest.raises(GivenTwiceError) as caught:
        parse(text, Recipe)
    assert caught.value.problem.endswith("is given twice") and caught.value.problem_mark.line == text.count("\n")


def test_lines_are_those_of_the_file() -> None:
    tree = parse("# a recipe\n\nclasses:\n\n  - 001\n  - 002\ncount: {total: 1}\n", Recipe)
    assert [tree["classes"].lc.item(number)[0] for number in (0, 1)] == [4, 5] and tree.lc.key("count")[0] == 6


def test_a_part_that_is_added_declares_its_names() -> None:
    class Added(Config):
        most: dict[ClassName, list[float]] = identity(dict)
        only: ClassName | None = identity(None)
        pairs: list[tuple[ClassName, ClassName]] = identity(list)

    found = parse("{most: {01: [1e1]}, only: 1e1, pairs: [[no, 01]]}", Added)
    assert found == {"most": {"01": [10.0]}, "only": "1e1", "pairs": [["no", "01"]]}
    schema = Added.model_json_schema()["properties"]
    assert schema["only"]["anyOf"][0]["type"] == ["string", "number", "boolean", "null"] and "propertyNames" not in schema["most"]


def test_aliases_that_hold_themselves_end() -> None:
    with pytest.raises(RecursionError):
        parse("classes: &a [*a]", Recipe)
