"""Configs: roles of fields, renamed fields, and what goes into digests."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from synthforge.config import Config, execution, from_record, identity, identity_of, location, new_name, renamed, to_record, walk


class Model(Config):
    path: str = location()
    """A path."""
    steps: int = identity(4, ge=1)
    """A number."""


class Settings(Config):
    model: Model = renamed(was="generator")
    others: dict[str, Model] = identity(dict)
    note: str | None = identity(None)
    batch: int = execution(8)


SETTINGS = Settings(model=Model(path="here"), others={"x": Model(path="there", steps=2)})


def test_unknown_keys_wrong_types_and_changes_are_refused() -> None:
    for wrong in ({"path": "x", "stepz": 1}, {"path": "x", "steps": "4"}, {"path": "x", "steps": 0}, {}):
        with pytest.raises(ValidationError):
            Model(**wrong)
    with pytest.raises(ValidationError):
        SETTINGS.batch = 9


def test_walk_gives_every_leaf_with_its_role() -> None:
    leaves = {".".join(path): (role, value) for path, role, value in walk(SETTINGS)}
    assert leaves == {
        "model.path": ("location", "here"),
        "model.steps": ("identity", 4),
        "others.x.path": ("location", "there"),
        "others.x.steps": ("identity", 2),
        "note": ("identity", None),
        "batch": ("execution", 8),
    }


def test_digests_use_first_names_and_contents_of_places() -> None:
    found = identity_of(SETTINGS, lambda path, value: f"digest of {value}")
    assert found == {
        "generator": {"path": "digest of here", "steps": 4},
        "others": {"x": {"path": "digest of there", "steps": 2}},
    }
    assert set(identity_of(SETTINGS, lambda path, value: value, without=["others"])) == {"generator"}


def test_a_renamed_field_is_read_under_both_names_in_records_only() -> None:
    assert new_name(Settings, "generator") == "model"
    assert new_name(Settings, "nonsense") is None
    record = to_record(SETTINGS)
    assert "generator" in json.loads(record)
    assert from_record(Settings, record) == SETTINGS
    assert from_record(Settings, record.replace(b'"generator"', b'"model"')) == SETTINGS
    with pytest.raises(ValidationError):
        Settings.model_validate({"generator": {"path": "here"}})
