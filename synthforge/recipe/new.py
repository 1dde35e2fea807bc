"""`recipe new`: a recipe to start from. It is built in, or written for a folder of real images."""

from __future__ import annotations

import importlib.resources
import io
import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, cast

import jinja2
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

from synthforge.data.input_report import InputReport
from synthforge.data.read_config import Reading, ReadingConfig
from synthforge.data.reading import Labelled, read_labelled
from synthforge.data.storage import BUILTIN, resolve
from synthforge.data.units import Part
from synthforge.errors import DatasetError, PlaceError, RequestError, some
from synthforge.recipe.load import is_usable, sections_from_sets


def _recipes() -> Traversable:
    """The folder of built-in recipes: inside the wheel, or beside the package in a checkout."""
    package = importlib.resources.files("synthforge")
    inside = package / "recipes"
    return inside if inside.is_dir() else Path(str(package)).parent / "recipes"


def builtin_names() -> list[str]:
    """Names of the built-in recipes."""
    return sorted(entry.name.removesuffix(".yaml") for entry in _recipes().iterdir() if entry.name.endswith(".yaml"))


def builtin(name: str) -> str:
    """Text of a built-in recipe; raises RequestError if there is none of that name."""
    if name not in builtin_names():
        raise RequestError(f"--builtin {name}: there are {', '.join(builtin_names())}")
    return (_recipes() / f"{name}.yaml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class NewRecipe:
    """A recipe that was written for a folder."""

    text: str
    found: InputReport | None
    """What the folder holds. None: no folder was read."""
    notes: list[str]
    """What of the folder is not used, and why."""


def for_folder(folder: str, out: Path, sets: Sequence[str] = ()) -> NewRecipe:
    """A commented recipe for a folder of real images; raises DatasetError or RecipeError.

    Args:
        out: the file that it will be written to; the text names it.
        sets: fields of the section `curation` that say how the folder is read. The recipe gets them too.
    """
    curation, reading = _curation(sets)
    parts = _read(folder, reading)
    labelled = parts["fit"]
    name = run_name(folder)
    sides = []
    for example in labelled.examples[:50]:
        try:
            sides.append(min(example.pixels().shape[:2]))
        except DatasetError as error:
            raise DatasetError(f"{example.name}: {error}; remove or replace it") from error
    template = jinja2.Template(
        (_recipes() / "folder.yaml.j2").read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    text = str(
        template.render(
            folder=_in_shell(_relative(folder, Path.cwd())),
            num_images=sum(len(part.examples) for part in parts.values()),
            num_classes=len(labelled.classes),
            classes_field=_yaml({"classes": _classes(labelled)}),
            resolution=min(sides, default=0),
            name_field=_yaml({"name": name}),
            curation_field=_yaml({"curation": curation}) if curation else "",
            model=_in_shell(_relative(str(Path(os.path.abspath(out)).parent / "runs" / name / "generator"), Path.cwd())),
            fit_options="".join(f" --set {_in_shell(text.removeprefix('curation.'))}" for text in sets),
            run=f"runs/{name}",
            recipe_file=_in_shell(_relative(os.path.abspath(out), Path.cwd())),
        )
    )
    return NewRecipe(text, labelled.report, labelled.notes)


def builtin_for_folder(name: str, folder: str, out: Path, sets: Sequence[str] = ()) -> NewRecipe:
    """A built-in recipe with the classes of a folder of real images; raises RequestError.

    Args:
        out: the file that it will be written to; paths in it are relative to that.
        sets: as for `for_folder`.
    """
    tree = YAML(typ="rt").load(builtin(name))
    kind = str(tree["generator"]["kind"])
    curation, reading = _curation(sets)
    labelled = _read(folder, reading)["fit"]
    classes = _classes(labelled)
    if kind == "unconditional" and len(classes) > 1:
        raise RequestError(f"--builtin {name}: makes images of one class only, {folder} has {len(classes)}")
    tree["classes"], tree["name"] = classes, run_name(folder)
    if curation:
        tree["curation"] = {**tree.get("curation", {}), **curation}
    guided = tree.get("sampling", {}).get("real_guidance")
    if guided is not None:
        guided["reference"] = Quoted(_relative(folder, out.resolve().parent))
    return NewRecipe(_yaml(tree), labelled.report, labelled.notes)


def run_name(folder: str) -> str:
    """The name of a run on a folder: the folder's own name, with `-` for what a run's name may not have."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(resolve(folder)).name)
    return name.strip("-.").lstrip("-._")[:100] or "mine"


def _relative(address: str, start: Path) -> str:
    """A path relative to a folder. It begins with `./` if it looks like an option, a home or a built-in folder."""
    if "://" in address or address.startswith(BUILTIN):
        return address
    path = os.path.relpath(resolve(address), start)
    return f"./{path}" if path.startswith(("-", "~", BUILTIN)) else path


def _curation(sets: Sequence[str]) -> tuple[dict[str, Any], Reading]:
    """How the overrides say that images are read, as fields of the section `curation`, and as a value."""
    config = cast("ReadingConfig", sections_from_sets({"curation": ReadingConfig}, sets)["curation"])
    return config.model_dump(mode="json", exclude_defaults=True), config.reading


def _read(folder: str, reading: Reading) -> dict[Part, Labelled]:
    """The images of a folder; raises DatasetError, also if a recipe can't hold its name or that of a class."""
    if not is_usable(folder):
        raise DatasetError(f"{folder!a}: the path is not UTF-8 text; rename the folder")
    parts = read_labelled(folder, reading=reading)
    if wrong := [ascii(name) for name in parts["fit"].classes if not (name and is_usable(name))]:
        raise DatasetError(f"{folder}: {some(wrong)} can't be class names: empty, not UTF-8 text, or with NUL characters; rename them")
    return parts


def _classes(labelled: Labelled) -> CommentedMap:
    """The classes as a mapping to which settings can be added. Names are in quotes, which any reader of YAML takes for
    text."""
    classes = CommentedMap({Quoted(name): CommentedMap() for name in labelled.classes})
    for settings in classes.values():
        settings.fa.set_flow_style()
    return classes


def _yaml(value: Any) -> str:
    yaml = YAML(typ="rt")
    yaml.width = 2**16  # long names stay on one line
    text = io.StringIO()
    yaml.dump(value, text)
    return text.getvalue()


def _in_shell(path: str) -> str:
    """A path as one word of a command that stands in a comment."""
    if path.isprintable():
        return shlex.quote(path)
    return "$'" + "".join(char if char.isprintable() and char not in "'\\" else f"\\U{ord(char):08X}" for char in path) + "'"


def write_new(text: str, out: Path) -> Path:
    """Write a recipe to a new file; raises PlaceError if it exists or can't be written."""
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise PlaceError(f"{out}: exists already; choose another name with --out") from error
    except OSError as error:
        raise PlaceError(f"{out}: can't be written ({error.strerror}); choose another place with --out") from error
    return out
