"""The JSON Schemas of result files and recipes."""

from __future__ import annotations

import json
from collections.abc import Callable

import jsonschema
import pytest

from synthforge.cli.schemas import DOCUMENTS
from tests.conftest import ROOT, Ran


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_schemas_of_the_guide_are_those_of_the_models(name: str, cli: Callable[..., Ran]) -> None:
    committed = json.loads((ROOT / "docs" / "schemas" / f"{name}.json").read_text())
    assert cli("recipe", "schema", name).json == committed, "write them again: make schemas"
    jsonschema.Draft202012Validator.check_schema(committed)


def test_a_schema_of_something_else_is_refused(cli: Callable[..., Ran]) -> None:
    ran = cli("recipe", "schema", "pool")
    assert ran.status == 2 and "choose from evaluation, diagnosis, gap, run, complete" in ran.err


def test_the_schema_of_recipes_is_the_default(cli: Callable[..., Ran]) -> None:
    schema = cli("recipe", "schema").json
    assert schema == cli("recipe", "schema", "recipe").json and "generator" in schema["properties"]
    jsonschema.Draft202012Validator.check_schema(schema)
