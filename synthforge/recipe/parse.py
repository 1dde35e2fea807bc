"""YAML -> mappings, lists and values, with class names as they are written.

YAML reads `001` as 1, `1e3` as a float and `null` as nothing. As the name of a class each means the characters that
stand there. So the types of the fields say which scalars are text (`ClassName`). All keys are text.
"""

from __future__ import annotations

import copy
import re
import types
import unicodedata
from collections.abc import Sequence
from typing import Annotated, Any, Union, get_args, get_origin

from ruamel.yaml import YAML
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from synthforge.config import AsWritten, Config
from synthforge.registry import Late

_TEXT, _MERGE, _NULL = (f"tag:yaml.org,2002:{name}" for name in ("str", "merge", "null"))
_WHOLE_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)")


class GivenTwiceError(MarkedYAMLError):
    """A key stands twice in one mapping."""


def parse(text: str, config: type[Config], path: Sequence[str] = ()) -> Any:
    """Read YAML, with the lines of all keys and items (`CommentedMap.lc`).

    Args:
        path: the field of the Config whose value the text is. Empty: the text is the whole Config.
    Raises: YAMLError; ValueError for what looks like a date, but is none; RecursionError.
    """
    wanted: list[Any] = [config]
    for step in path:
        wanted = _inside(wanted, step)

    class Constructor(RoundTripConstructor):
        def construct_document(self, node: Any) -> Any:
            return super().construct_document(_as_written(node, wanted))

    yaml = YAML(typ="rt")
    yaml.Constructor = Constructor
    try:
        return yaml.load(text)
    except (AttributeError, IndexError, TypeError) as error:  # how ruamel fails on `!!set 1` and on mappings as keys
        raise YAMLError("a tag does not fit its value, or a key is no text; leave out tags such as !!set") from error


def types_in(annotation: Any, metadata: Sequence[Any] = ()) -> list[Any]:
    """The types that a field may have: the members of its union. Text as it is written is `AsWritten`."""
    if any(isinstance(item, AsWritten) for item in metadata):
        return [AsWritten]
    if late := next((item for item in metadata if isinstance(item, Late)), None):
        return types_in(late.type)
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return types_in(arguments[0], arguments[1:])
    if get_origin(annotation) in (Union, types.UnionType):
        return [one for argument in arguments for one in types_in(argument)]
    return [annotation]


def _inside(wanted: Sequence[Any], step: str) -> list[Any]:
    """The types of the value under a key of a mapping, or of an item of a list."""
    found: list[Any] = []
    for one in wanted:
        if not (isinstance(one, type) and issubclass(one, Config)):
            found += [inner for argument in get_args(one)[-1:] for inner in types_in(argument)]
        elif step in one.model_fields:
            found += types_in(one.model_fields[step].annotation, one.model_fields[step].metadata)
    return found


def _as_written(node: Any, wanted: Sequence[Any]) -> Any:
    """A node, with names as text. It is copied, since an alias may stand in a second place where it is no name."""
    if isinstance(node, ScalarNode):
        is_value = (type(None) in wanted and node.tag == _NULL) or (int in wanted and _WHOLE_NUMBER.fullmatch(node.value))
        return _as_text(node, True) if AsWritten in wanted and not is_value else node
    made = copy.copy(node)
    # The types of items, or of keys: the keys of a mapping may be given as a list, which is the short form of classes.
    items = [one for outer in wanted for argument in get_args(outer)[:1] for one in types_in(argument)]
    if isinstance(node, SequenceNode):
        made.value = [_as_written(item, items) for item in node.value]
    elif isinstance(node, MappingNode):
        made.value, seen = [], set()
        for key, value in node.value:
            if key.tag == _MERGE:
                merged = [list[one] for one in wanted] if isinstance(value, SequenceNode) else wanted  # type: ignore[valid-type]
                made.value.append((key, _as_written(value, merged)))
                continue
            name = _as_text(key, AsWritten in items) if isinstance(key, ScalarNode) else key
            if str(name.value) in seen:
                raise GivenTwiceError(problem=f"{name.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(str(name.value))
            made.value.append((name, _as_written(value, _inside(wanted, str(name.value)))))
    return made


def _as_text(scalar: ScalarNode, is_name: bool) -> ScalarNode:
    made = copy.copy(scalar)
    made.tag = _TEXT
    if is_name:
        made.value = unicodedata.normalize("NFC", scalar.value)  # as class names of data are
    return made
