"""Read a recipe, or any Config, from a YAML file and `--set path=value` overrides. All mistakes are reported at once.

Each mistake is one line: file and line, dotted path as in the YAML, what is wrong, and the nearest valid name.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from synthforge.config import Config, ConfigT, new_name, walk
from synthforge.data.storage import resolve
from synthforge.data.text_files import text_of
from synthforge.errors import DatasetError, RecipeError, did_you_mean
from synthforge.generators.config import GENERATORS
from synthforge.recipe.parse import GivenTwiceError, parse, types_in
from synthforge.recipe.recipe import Recipe, cross_checks

RECIPES = (".yaml", ".yml")
"""Endings of recipe files, by which the command line tells them from folders and tars."""
_STEP = re.compile(r'"([^"]+)"|([^.]+)')
"""A step of a dotted path; a name with dots stands in quotes."""
_PATH = re.compile(r'("[^"]+"|[^."]+)(\.("[^"]+"|[^."]+))*')
_MODELS = {("curation", "encoder"), ("curation", "metric_encoder"), ("diagnosis", "encoder")}
"""Sections that may name a model by its hub id, as `generator` may."""


def load_recipe(path: str | Path, sets: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and apply overrides.

    Args:
        sets: overrides of the form `dotted.path=value`; the value is YAML.
    Raises: RecipeError, which lists every mistake.
    """
    return cast("Recipe", _Source(str(path), sets, Recipe).validated())


def config_from_sets(config: type[ConfigT], sets: Sequence[str]) -> ConfigT:
    """Make any Config from `dotted.path=value` overrides. Other fields keep their defaults. Raises RecipeError."""
    return cast("ConfigT", _Source(None, sets, config).validated())


def sections_from_sets(sections: Mapping[str, type[Config]], sets: Sequence[str]) -> dict[str, Config]:
    """Make sections of a recipe from overrides alone. Other fields keep their defaults. Raises RecipeError.

    A path may begin with the name of its section. Otherwise it belongs to the first section that has such a field.
    """
    texts: dict[str, list[str]] = {name: [] for name in sections}
    problems: list[str] = []
    for text in sets:
        dotted, equals, value = text.partition("=")
        first, _, rest = dotted.strip().partition(".")
        if first in sections and rest:
            texts[first].append(f"{rest}{equals}{value}")
        elif section := next((name for name, config in sections.items() if first in config.model_fields), None):
            texts[section].append(text)
        elif equals and first:
            fields = list(dict.fromkeys(field for config in sections.values() for field in config.model_fields))
            hint = did_you_mean(first, fields, "choose one of " + ", ".join(fields), most=1)
            problems.append(f"--set {text}: {first}: unknown field; {hint}")
        else:
            texts[next(iter(sections))].append(text)
    made: dict[str, Config] = {}
    for name, config in sections.items():
        try:
            made[name] = config_from_sets(config, texts[name])
        except RecipeError as error:
            problems += error.problems
    if problems:
        raise RecipeError(problems)
    return made


class _Source:
    """A Config while it is read from a file and overrides. It knows the line of every dotted path."""

    def __init__(self, path: str | None, sets: Sequence[str], config: type[Config]) -> None:
        self.path, self.config = path, config
        self.tree = self._parse(path) if path is not None else CommentedMap()
        self.overridden: dict[tuple[str, ...], str] = {}
        problems = [problem for text in sets if (problem := self._override(text))]
        if problems:
            raise RecipeError(problems)

    def _parse(self, path: str) -> CommentedMap:
        try:
            tree = parse(text_of(path), self.config)
        except FileNotFoundError as error:
            raise RecipeError([f"{path}: no such file; start with `synthforge recipe new --builtin digits`"]) from error
        except DatasetError as error:
            raise RecipeError([str(error)]) from error
        except RecursionError as error:
            raise RecipeError([f"{path}: is nested too deeply"]) from error
        except (YAMLError, ValueError) as error:  # ValueError: text that looks like a date, but is not one
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark is not None else ""
            reason = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise RecipeError([f"{path}{line}: not valid YAML: {reason}"]) from error
        if not isinstance(tree, CommentedMap):
            raise RecipeError([f"{path}: not a recipe; a recipe needs at least name, generator, classes and count"])
        return tree

    def _override(self, text: str) -> str | None:
        dotted, equals, raw = text.partition("=")
        if not equals or not dotted.strip():
            return f"--set {text}: write path=value, for example --set sampling.steps=30"
        if not _PATH.fullmatch(dotted.strip()):
            return f"--set {text}: {dotted.strip()!r} is not a path; write names with dots between them, such as sampling.steps"
        steps = tuple(quoted or plain for quoted, plain in _STEP.findall(dotted.strip()))
        try:
            value = parse(raw, self.config, steps)
        except GivenTwiceError as error:
            return f"--set {text}: {error.problem}"
        except (YAMLError, ValueError, RecursionError):
            value = raw
        node: Any = self.tree
        for number, step in enumerate(steps[:-1]):
            below = _get(node, step)
            if below is None and isinstance(node, dict):
                below = node[step] = CommentedMap()
                self.overridden.setdefault(steps[: number + 1], text)
            if isinstance(below, CommentedSeq) and self.config is Recipe and steps[: number + 1] == ("classes",):
                below = node[step] = CommentedMap({str(name): CommentedMap() for name in below})
            if not isinstance(below, (dict, list)):
                return f"--set {text}: {'.'.join(steps[: number + 1])} has no fields"
            node = below
        try:
            node[_key(node, steps[-1])] = value
        except (KeyError, IndexError, ValueError):
            return f"--set {text}: the list has no item {steps[-1]} (items count from 0)"
        self.overridden[steps] = text
        return None

    def validated(self) -> Config:
        """The valid Config; raises RecipeError with every mistake."""
        problems = [self._at(path, text) for path, text in _unusable(self.tree)]
        if problems:
            raise RecipeError(problems)
        data = json.dumps(self.tree, default=str)
        config: Config | None = None
        try:
            config = self.config.model_validate_json(data, strict=True)
        except ValidationError as error:
            problems += [self._in_words(dict(item)) for item in error.errors()]
        if self.config is Recipe and (config is not None or str(_get(_get(self.tree, "generator"), "kind")) in GENERATORS):
            recipe = config or self._valid_part(json.loads(data))
            if isinstance(recipe, Recipe):
                config = self._with_absolute_locations(recipe)
                problems += [self._at(path, text) for path, text in cross_checks(config)]
        if problems or config is None:
            raise RecipeError(list(dict.fromkeys(problems)))
        return config

    def _valid_part(self, kept: dict[str, Any]) -> Recipe | None:
        """The recipe without its wrong fields, so that the others can still be checked; None if too little is left."""
        for _ in range(4):
            filled = {"name": "x", "generator": {"kind": "pixel", "model": "x"}, "count": {"total": 1}, **kept}
            try:
                return Recipe.model_validate_json(json.dumps(filled), strict=True)
            except ValidationError as error:
                for item in error.errors():
                    path = list(_descend(Recipe, item["loc"])[0])
                    _remove(kept, path[:-1] if item["type"] == "missing" else path)
        return None

    def _with_absolute_locations(self, recipe: Recipe) -> Recipe:
        assert self.path is not None
        base = Path(self.path).resolve().parent
        tree = recipe.model_dump(mode="json")
        for path, role, value in walk(recipe):
            if value is None or not (role == "location" or path == ("output", "path")):
                continue
            is_override = any(path[: len(steps)] == steps for steps in self.overridden)
            absolute = resolve(value, None if is_override else base)
            names_model = path[0] == "generator" or path[:2] in _MODELS
            if names_model and not os.path.exists(absolute) and not value.startswith((".", "/", "~", "builtin:")):
                continue  # a hub id, or a mistake that loading the model will report
            if not value.startswith("builtin:"):
                functools.reduce(_get, path[:-1], cast("Any", tree))[path[-1]] = absolute
        return Recipe.model_validate_json(json.dumps(tree), strict=True)

    def _in_words(self, error: dict[str, Any]) -> str:
        path, configs = _descend(self.config, error["loc"])
        kind, value = error["type"], error.get("input")
        message = str(error["msg"]).removeprefix("Value error, ")
        if kind == "extra_forbidden":
            if (renamed := new_name(configs[0], path[-1])) is not None:
                return self._at(path, f"was renamed; write {renamed!r}")
            names = list(configs[0].model_fields)
            return self._at(path, f"unknown field; {did_you_mean(path[-1], names, 'choose one of ' + ', '.join(names), most=1)}")
        if kind == "missing":
            return self._at(path, "is missing")
        if kind == "union_tag_not_found":
            return self._at((*path, "kind"), f"is missing; choose one of {', '.join(_kinds(configs))}")
        if kind == "union_tag_invalid":
            tag, kinds = str(error["ctx"]["tag"]), _kinds(configs)
            hint = did_you_mean(tag, kinds, f"choose one of {', '.join(kinds)}", most=1, cutoff=0.4)
            return self._at((*path, "kind"), f"unknown kind {tag!r}; {hint}")
        if error["loc"] and error["loc"][-1] in {"str", "int", "float", "bool"}:
            return self._at(path, f"is {value!r}, but must be text, a number, true or false")  # once, not for each of these
        if kind == "literal_error":
            expected = str(error["ctx"]["expected"])
            hint = did_you_mean(str(value), re.findall(r"'([^']+)'", expected), most=1)
            message = f"is {value!r}, but must be {expected}" + (f"; {hint}" if hint else "")
        elif not isinstance(value, (dict, list)) and kind != "value_error":
            message = f"is {value!r}: {message[0].lower()}{message[1:]}"
        return self._at(path, message)

    def _at(self, path: tuple[str, ...], text: str) -> str:
        for steps, override in sorted(self.overridden.items(), key=lambda item: -len(item[0])):
            if path[: len(steps)] == steps:
                return f"--set {override}: {'.'.join(path)}: {text}"
        line = _line_of(self.tree, path)
        where = f"{self.path}:{line}: " if self.path is not None else ""
        return f"{where}{'.'.join(path)}: {text}" if path else f"{where}{text}"


def _descend(config: type[Config], steps: Sequence[object]) -> tuple[tuple[str, ...], list[type[Config]]]:
    """Turn pydantic's location of an error into a path of the YAML, and the Configs that its last name may be a field
    of.

    In a union of kinds, pydantic puts the kind into the path after the field.
    """
    path: list[str] = []
    configs = [config]
    for step in steps:
        if chosen := [member for member in configs if len(configs) > 1 and step in _kinds([member])]:
            configs = chosen
        elif not _is_pydantic_tag(step):
            path.append(str(step))
            fields = [member.model_fields[str(step)] for member in configs if str(step) in member.model_fields]
            configs = [inner for field in fields for inner in _configs_in(field.annotation, field.metadata)] or configs
    return tuple(path), configs


def _kinds(configs: Sequence[type[Config]]) -> list[str]:
    """The names of kinds in a union of Configs."""
    return [kind for member in configs if "kind" in member.model_fields for kind in get_args(member.model_fields["kind"].annotation)]


def _configs_in(annotation: Any, metadata: Sequence[Any] = ()) -> list[type[Config]]:
    found: list[type[Config]] = []
    for one in types_in(annotation, metadata):
        is_config = isinstance(one, type) and issubclass(one, Config)
        found += [one] if is_config else [config for argument in get_args(one) for config in _configs_in(argument)]
    return found


def _is_pydantic_tag(step: object) -> bool:
    """Whether pydantic added a step to a path: the name of a union member, which is not in the YAML."""
    return isinstance(step, str) and (step in {"str", "int", "float", "bool"} or step.startswith(("list[", "dict[", "constrained-")))


def _line_of(tree: Any, path: Sequence[str]) -> int:
    """The line of a dotted path, or of its nearest parent that is in the file."""
    line, node = 1, tree
    for step in path:
        try:
            key = _key(node, step)
            position = node.lc.key(key) if isinstance(node, CommentedMap) else node.lc.item(key)
            line, node = position[0] + 1, node[key]
        except (KeyError, IndexError, ValueError, AttributeError, TypeError):
            break
    return int(line)


def _key(node: Any, step: str) -> Any:
    """The key for a step of a dotted path: lists are indexed."""
    if isinstance(node, list):
        if not 0 <= int(step) < len(node):
            raise IndexError(step)
        return int(step)
    return step


def _get(node: Any, step: str) -> Any:
    try:
        return node[_key(node, step)]
    except (KeyError, IndexError, ValueError, TypeError):
        return None


def _unusable(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Find valid YAML that a recipe can't use: keys that are not names, and broken text.

    Yields the path of each and what is wrong with it.
    """
    items = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    for key, value in items:
        here = (*path, str(key))
        if key == "" or not isinstance(key, (str, int)):
            yield here, f"{key!r} is not a name; if you mean a name, put it in quotes"
        for text in (key, value):
            if isinstance(text, str) and not is_usable(text):
                yield here, "contains characters that are not allowed (NUL or broken Unicode)"
        yield from _unusable(value, here)


def is_usable(text: str) -> bool:
    """Whether a recipe can hold a text: it has no NUL, and no half of a character."""
    return "\0" not in text and text.encode(errors="ignore").decode() == text


def _remove(tree: Any, path: Sequence[str]) -> None:
    *above, last = path or [""]
    tree = functools.reduce(_get, above, tree)
    with suppress(KeyError, IndexError, ValueError, TypeError):
        del tree[_key(tree, last)]
