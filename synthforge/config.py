"""The base of all Configs: strict and frozen, without unknown keys. Each field is declared *identity* or *execution*.

Identity fields change what is made, and go into digests. Execution fields (batch, device, output place) do not.
A `location` is an identity field with a path. Its digest takes the content at the path, not the path itself.
A renamed field keeps its first name in digests and in written files (`was`), so these never change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
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

    @property
    def is_in_digests(self) -> bool:
        """Whether digests take its fields. False: they change nothing."""
        return True


def identity(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes what is made."""
    return _field("identity", default, constraints)


def execution(default: Any = ..., **constraints: Any) -> Any:
    """A field that changes how images are made, not which."""
    return _field("execution", default, constraints)


def location(default: Any = ..., **constraints: Any) -> Any:
    """A path (relative to the recipe) or the name of a model. Digests take its content."""
    return _field("location", default, constraints)


def renamed(default: Any = ..., *, was: str) -> Any:
    """A field that holds another Config and had the name `was` before."""
    return Field(default=default, validation_alias=was, serialization_alias=was)


def _field(role: Role, default: Any, constraints: dict[str, Any]) -> Any:
    factory = {"default_factory": default} if callable(default) else {"default": default}
    return Field(json_schema_extra={"role": role}, **factory, **constraints)


def new_name(config: type[Config], old: str) -> str | None:
    """The present name of a renamed field. None: no field ever had this name."""
    return next((name for name, field in config.model_fields.items() if field.validation_alias == old), None)


class AsWritten:
    """Marks a text that is taken from a YAML file as it is written there: `001` and `yes` are not read as values."""


SCALAR = {"type": ["string", "number", "boolean", "null"]}
"""JSON Schema of a name that is taken as it is written: an editor may read it as any of these."""
ClassName = Annotated[str, AsWritten(), WithJsonSchema(SCALAR)]
"""The name of a class. Every field that holds class names is declared with it."""


ConfigT = TypeVar("ConfigT", bound=Config)


def to_record(config: Config) -> bytes:
    """A Config as JSON for the records of a run, with the first names of fields."""
    return config.model_dump_json(indent=2, by_alias=True).encode()


def from_record(config: type[ConfigT], data: bytes) -> ConfigT:
    """Read the JSON of `to_record`, from this version or an earlier one; raises pydantic's ValidationError."""
    return config.model_validate_json(data, by_alias=True, by_name=True, context={"is_record": True})


def role_of(field: FieldInfo) -> Role | None:
    """The declared role of a field. None: it holds another Config."""
    extra = field.json_schema_extra
    role = extra.get("role") if isinstance(extra, dict) else None
    return role if role in {"identity", "execution", "location"} else None  # type: ignore[return-value]


Leaf = tuple[tuple[str, ...], Role | None, Any]


def walk(config: Config, path: tuple[str, ...] = (), *, for_digest: bool = False) -> Iterator[Leaf]:
    """Path, role and value of every leaf of a Config tree, also inside mappings and lists.

    Args:
        for_digest: only what digests take, with the first names of renamed fields.
    """
    if for_digest and not config.is_in_digests:
        return
    for name, field in type(config).model_fields.items():
        step = field.serialization_alias if for_digest and field.serialization_alias else name
        yield from _walk_value(getattr(config, name), role_of(field), (*path, step), for_digest)


def _walk_value(value: Any, role: Role | None, path: tuple[str, ...], for_digest: bool) -> Iterator[Leaf]:
    if isinstance(value, Config):
        yield from walk(value, path, for_digest=for_digest)
    elif isinstance(value, dict) and any(isinstance(item, Config) for item in value.values()):
        for key, item in value.items():
            yield from _walk_value(item, role, (*path, str(key)), for_digest)
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Config) for item in value):
        for number, item in enumerate(value):
            yield from _walk_value(item, role, (*path, str(number)), for_digest)
    else:
        yield path, role, value


def identity_of(config: Config, content_of: Callable[[tuple[str, ...], str], str], without: Collection[str] = ()) -> dict[str, Any]:
    """The identity fields as nested mappings, for digests.

    Args:
        content_of: gives the digest of the content at a location, from the field's path and value.
        without: top-level fields that are left out, such as the sections of later stages.
    """
    tree: dict[str, Any] = {}
    for path, role, value in walk(config, for_digest=True):
        if role == "execution" or value is None or path[0] in without:
            continue
        node = tree
        for step in path[:-1]:
            node = node.setdefault(step, {})
        node[path[-1]] = content_of(path, value) if role == "location" else value
    return tree
