"""Registries of parts: gates, selection rules, metrics, kinds of encoders and generators. Other packages may add parts.

A part is named once, where it is defined. Help, recipes, runs and reports find it by that name.
Parts of this package are in modules called *homes*, which are imported when a name is first looked up.
So a recipe knows parts from layers above it, and nothing is loaded before it is needed.
A part of another package is known once its module is imported.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import AfterValidator, BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, TypeAdapter, ValidationInfo, create_model
from pydantic_core import CoreSchema, core_schema

PartT = TypeVar("PartT")


class Registry(MutableMapping[str, PartT]):
    """A mapping of names to parts, in the order in which they were added.

    Args:
        what: what kind of thing a part is, for messages.
        homes: modules that add the parts of this package.
    """

    def __init__(self, what: str, *homes: str) -> None:
        self._what, self._homes = what, homes
        self._parts: dict[str, PartT] = {}

    def add(self, name: str) -> Callable[[PartT], PartT]:
        """A decorator that adds a part under a name; raises ValueError if the name is taken."""

        def added(part: PartT) -> PartT:
            self[name] = part
            return part

        return added

    def __setitem__(self, name: str, part: PartT) -> None:
        if name in self._parts:
            raise ValueError(f"there is a {self._what} {name!r} already; choose another name")
        self._parts[name] = part

    def __getitem__(self, name: str) -> PartT:
        return self._all()[name]

    def __delitem__(self, name: str) -> None:
        del self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def _all(self) -> dict[str, PartT]:
        for home in self._homes:
            importlib.import_module(home)
        return self._parts


class Late:
    """Annotates a field whose type depends on the registered parts. The type is made when it is needed.

    Args:
        type_of: gives the type from the parts by name.
    """

    def __init__(self, registry: Registry[Any], type_of: Callable[[Mapping[str, Any]], Any]) -> None:
        self._registry, self._type_of = registry, type_of
        self._made: tuple[dict[str, Any], Any, TypeAdapter[Any]] | None = None

    def _now(self) -> tuple[dict[str, Any], Any, TypeAdapter[Any]]:
        parts = dict(self._registry)
        if self._made is None or self._made[0] != parts:
            made = self._type_of(parts)
            self._made = parts, made, TypeAdapter(made)
        return self._made

    @property
    def type(self) -> Any:
        """The type for the parts that are registered now."""
        return self._now()[1]

    def _valid(self, value: Any, info: ValidationInfo) -> Any:
        adapter, is_record = self._now()[2], (info.context or {}).get("is_record")  # see `config.from_record`
        names: dict[str, Any] = {"by_alias": True, "by_name": True} if is_record else {}
        if info.mode == "json":
            return adapter.validate_json(json.dumps(value), context=info.context, **names)
        return adapter.validate_python(value, context=info.context, **names)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(self._valid)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(self._now()[2].core_schema)


def name_in(registry: Registry[Any], *others: str) -> Late:
    """A field with the name of a part, or with one of some other words, which come first."""
    return Late(registry, lambda parts: Literal[(*others, *parts)])


def kind_in(registry: Registry[Any], may: Callable[[Any], bool] = lambda part: True) -> Late:
    """A field with the settings of one part, which its `kind` names.

    Args:
        may: which parts are allowed. By default all.
    """
    return Late(registry, lambda parts: Annotated[Union[tuple(filter(may, parts.values()))], Field(discriminator="kind")])  # noqa: UP007


def each_in(registry: Registry[Any], base: type[BaseModel], title: str, sentence: str) -> Late:
    """A field with the settings of every part by name. Missing ones have defaults.

    Args:
        title, sentence: title and description in the schema.
    """

    def type_of(parts: Mapping[str, Any]) -> Any:
        fields: dict[str, Any] = {name: (part, Field(default_factory=part)) for name, part in parts.items()}
        return Annotated[create_model(title, __base__=base, __doc__=sentence, **fields), AfterValidator(dict)]

    return Late(registry, type_of)
