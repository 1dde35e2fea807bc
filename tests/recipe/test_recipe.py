"""Recipes as a whole: templates, prompts of a class, paths, and the schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from synthforge.config import from_record, to_record
from synthforge.recipe.load import load_recipe
from synthforge.recipe.recipe import Recipe, Template, file_digest, json_schema
from tests.conftest import DIGITS


def test_free_names_of_a_template_in_order_without_the_class() -> None:
    assert Template.model_validate("{size} {class}, {place}, {size}, {{plain}}").names == ["size", "place"]


@pytest.mark.parametrize("text", ["{", "{a.b}", "{a!r}", "{a:3}", "{}", ""])
def test_templates_that_are_not_well_formed(text: str) -> None:
    with pytest.raises(ValidationError):
        Template.model_validate(text)


def test_own_prompts_replace_shared_ones_and_own_values_are_added(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: t\ngenerator: {kind: pixel, model: 'builtin:digits/generator'}\ncount: {total: 1}\n"
        "prompts: {templates: ['{size} {class}'], values: {size: [small]}}\n"
        "classes: {a: {}, b: {templates: ['{size} {place}'], values: {place: [here]}}}\n"
    )
    recipe = load_recipe(path)
    shared, own = recipe.prompts_of("a"), recipe.prompts_of("b")
    assert [template.template for template in shared.templates or []] == ["{size} {class}"]
    assert [template.template for template in own.templates or []] == ["{size} {place}"]
    assert own.values == {"size": ["small"], "place": ["here"]}


def test_numbers_and_places_of_a_run(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, [f"output.path={tmp_path}", "count={per_class: 3}"])
    assert recipe.num_samples == 30 and recipe.pool_path == f"{tmp_path}/pool" and recipe.curated_path == f"{tmp_path}/curated"


def test_a_byte_order_mark_is_no_part_of_the_digest(tmp_path: Path) -> None:
    digests = []
    for data in (b"one\ntwo\n", b"\xef\xbb\xbfone\ntwo\n", b"one\ntwo"):
        (tmp_path / "c.txt").write_bytes(data)
        digests.append(file_digest(str(tmp_path / "c.txt")))
    assert digests[0] == digests[1] != digests[2]


def test_every_field_of_the_schema_is_described() -> None:
    missing = [
        f"{name}.{field}"
        for name, section in json_schema()["$defs"].items()
        for field, schema in section.get("properties", {}).items()
        if "description" not in schema and "$ref" not in schema and field != "kind"  # a section is described by itself
    ]
    assert missing == []


def test_schema_accepts_what_loads_and_names_every_section() -> None:
    schema = json_schema()
    json.dumps(schema)
    assert set(schema["properties"]) == {
        "name",
        "generator",
        "classes",
        "prompts",
        "sampling",
        "count",
        "reference",
        "curation",
        "evaluation",
        "diagnosis",
        "output",
        "execution",
    }
    assert schema["additionalProperties"] is False
    assert all("description" in field for field in schema["$defs"]["SamplingConfig"]["properties"].values())


def test_shipped_recipes_match_the_schema() -> None:
    import jsonschema
    from ruamel.yaml import YAML

    validator = jsonschema.Draft202012Validator(json_schema())
    paths = list(DIGITS.parent.glob("*.yaml"))
    assert DIGITS in paths
    for path in paths:
        content = json.loads(json.dumps(YAML(typ="safe").load(path)))
        assert list(validator.iter_errors(content)) == []
        assert list(validator.iter_errors(content | {"curate": {}}))  # and it does refuse what the recipe refuses
        load_recipe(path)


def test_the_schema_takes_names_without_quotes() -> None:
    import jsonschema
    from ruamel.yaml import YAML

    validator = jsonschema.Draft202012Validator(json_schema())
    content = json.loads(json.dumps(YAML(typ="safe").load(DIGITS)))
    content["curation"] = {"classes": [1, 1.5, True, None, "a"]}
    for classes in ([1, 1.5, True, None, "a"], {"a": {"label": 1.5}, "b": None}):
        assert list(validator.iter_errors(content | {"classes": classes})) == []
    assert list(validator.iter_errors(content | {"classes": [["a"]]}))


def test_records_keep_the_first_names_of_fields_and_are_read_by_either_name() -> None:
    recipe = load_recipe(DIGITS, ["curation.metric_encoder={kind: pixels, resolution: 12}"])
    record = json.loads(to_record(recipe))
    assert record["curation"]["judge"]["resolution"] == 12 and "metric_encoder" not in record["curation"]
    assert from_record(Recipe, json.dumps(record).encode()) == recipe
    record["curation"]["metric_encoder"] = record["curation"].pop("judge")
    assert from_record(Recipe, json.dumps(record).encode()) == recipe
