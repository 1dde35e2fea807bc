"""Registries: parts by name, and fields whose type depends on what is registered."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from synthforge.registry import Registry, each_in, kind_in, name_in


class Round(BaseModel):
    kind: Literal["round"] = "round"
    radius: int = 1


class Square(BaseModel):
    kind: Literal["square"] = "square"
    side: int = 2


class Base(BaseModel):
    model_config = ConfigDict(extra="forbid")


@pytest.fixture
def shapes() -> Registry[Any]:
    registry: Registry[Any] = Registry("shape")
    registry.add("round")(Round)
    return registry


def test_a_name_is_taken_once(shapes: Registry[Any]) -> None:
    with pytest.raises(ValueError, match="there is a shape 'round' already; choose another name"):
        shapes.add("round")(Square)
    assert dict(shapes) == {"round": Round}
    del shapes["round"]
    assert len(shapes) == 0


def test_homes_are_imported_when_a_name_is_first_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home_of_shapes.py").write_text("from tests.test_registry import LATE\n\nLATE['late'] = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "home_of_shapes" not in sys.modules
    assert LATE["late"] == 1
    assert "home_of_shapes" in sys.modules


LATE: Registry[int] = Registry("shape", "home_of_shapes")


def test_a_field_takes_what_is_registered_when_it_is_checked(shapes: Registry[Any]) -> None:
    names: Any = TypeAdapter(Annotated[str, name_in(shapes, "any")])
    kinds: Any = TypeAdapter(Annotated[Any, kind_in(shapes)])
    with pytest.raises(ValidationError, match="'any' or 'round'"):
        names.validate_python("square")
    shapes["square"] = Square
    assert names.validate_python("square") == "square"
    assert kinds.validate_python({"kind": "square", "side": 3}) == Square(side=3)
    assert kinds.validate_json('{"kind": "round"}') == Round()
    assert "Square" in str(kinds.json_schema())


def test_kinds_may_be_fewer_than_what_is_registered(shapes: Registry[Any]) -> None:
    shapes["square"] = Square
    some: Any = TypeAdapter(Annotated[Any, kind_in(shapes, lambda part: part is Round)])
    with pytest.raises(ValidationError):
        some.validate_python({"kind": "square"})


def test_settings_of_each_part_have_defaults(shapes: Registry[Any]) -> None:
    shapes["square"] = Square
    each: Any = TypeAdapter(Annotated[Any, each_in(shapes, Base, "Shapes", "Settings of shapes.")])
    assert each.validate_python({"round": {"radius": 5}}) == {"round": Round(radius=5), "square": Square()}
    with pytest.raises(ValidationError):
        each.validate_python({"oval": {}})
