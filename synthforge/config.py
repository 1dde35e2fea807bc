"""What every Config shares: strict, frozen, unknown keys refused, and each field declared *identity* or *execution*.

Identity fields change what is made and go into digests; execution fields change how (batch, device, output place) and do not.
A `location` is an identity field that holds a path: digests see what the path holds, never where it is.
A field that got a better name keeps its old one in digests and in written files (`was`), so that neither ever changes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

Role = Literal["identity", "execution", "location"]


class Config(BaseModel):
    """Base of all Configs."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        validate_by_name=True,
        validate_by_alias=False,
    )


def identity(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes what is made."""
    return _field("identity", default, constraints)


def execution(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes how, not what."""
    return _field("execution", default, constraints)


def location(default: Any = ..., **constraints: Any) -> Any:
    """A path or model name: relative to the recipe; digests take what it holds."""
    return _field("location", default, constraints)


def part(default: Any = ..., *, was: str) -> Any:
    """A field that holds another Config and was renamed."""
    return Field(default=default, validation_alias=was, serialization_alias=was)


def _field(role: Role, default: Any, constraints: dict[str, Any]) -> Any:
    factory = {"default_factory": default} if callable(default) else {"default": default}
    return Field(json_schema_extra={"role": role}, **factory, **constraints)


def new_name(config: type[Config], old: str) -> str | None:
    """What a field is called now; None if no field ever had the old name."""
    return next((name for name, field in config.model_fields.items() if field.validation_alias == old), None)


ConfigT = TypeVar("ConfigT", bound=Config)


def to_record(config: Config) -> bytes:
    """The JSON that a run keeps of a Config, under the names that fields had first."""
    return config.model_dump_json(indent=2, by_alias=True).encode()


def from_record(config: type[ConfigT], data: bytes) -> ConfigT:
    """What `to_record` wrote, in this version or an earlier one; raises pydantic's ValidationError."""
    return config.model_validate_json(data, by_alias=True, by_name=True, context={"is_record": True})


def role_of(field: FieldInfo) -> Role | None:
    """The declared role of a field; None for a field that holds another Config."""
    extra = field.json_schema_extra
    role = extra.get("role") if isinstance(extra, dict) else None
    return role if role in {"identity", "execution", "location"} else None  # type: ignore[return-value]


Leaf = tuple[tuple[str, ...], Role | None, Any]


def walk(config: Config, path: tuple[str, ...] = (), *, first_names: bool = False) -> Iterator[Leaf]:
    """Every leaf of a Config tree: its path, role and value; Configs inside mappings and lists are walked too.

    Args:
        first_names: use the names that fields had first, as digests do.
    """
    for name, field in type(config).model_fields.items():
        step = field.serialization_alias if first_names and field.serialization_alias else name
        yield from _walk_value(getattr(config, name), role_of(field), (*path, step), first_names)


def _walk_value(value: Any, role: Role | None, path: tuple[str, ...], first_names: bool) -> Iterator[Leaf]:
    if isinstance(value, Config):
        yield from walk(value, path, first_names=first_names)
    elif isinstance(value, dict) and any(isinstance(item, Config) for item in value.values()):
        for key, item in value.items():
            yield from _walk_value(item, role, (*path, str(key)), first_names)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Config) for item in value):
        for number, item in enumerate(value):
            yield from _walk_value(item, role, (*path, str(number)), first_names)
    else:
        yield path, role, value


def identity_of(config: Config, content_of: Callable[[tuple[str, ...], str], str], without: Collection[str] = ()) -> dict[str, Any]:
    """The identity fields as nested mappings; `content_of(path, value)` says what a location holds (a digest).

    Args:
        without: fields at the top that are left out, such as the sections of later stages.
    """
    tree: dict[str, Any] = {}
    for path, role, value in walk(config, first_names=True):
        if role == "execution" or value is None or path[0] in without:
            continue
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = content_of(path, value) if role == "location" else value
    return tree
