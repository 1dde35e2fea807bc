"""`recipe new`: a recipe to start from. It is built in, or written for a folder of real images."""

from __future__ import annotations

import importlib.resources
import io
import os
import re
from importlib.resources.abc import Traversable
from pathlib import Path

import jinja2
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from synthforge.data.images import decode
from synthforge.data.reading import read_labelled
from synthforge.data.storage import BUILTIN
from synthforge.errors import DatasetError, PlaceError, RequestError


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


def for_folder(folder: str, out: Path) -> str:
    """Text of a commented recipe for a folder of real images; raises DatasetError.

    Args:
        out: the file that it will be written to; the text names it.
    """
    parts = read_labelled(folder)
    labelled = parts["fit"]
    name = _run_name(folder)
    sides = []
    for example in labelled.examples[:50]:
        try:
            sides.append(min(decode(example.data).shape[:2]))
        except DatasetError as error:
            raise DatasetError(f"{example.name}: {error}; remove or replace it") from error
    template = jinja2.Template(
        (_recipes() / "folder.yaml.j2").read_text(encoding="utf-8"), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    return str(
        template.render(
            folder=os.path.relpath(folder) if "://" not in folder else folder,
            num_images=sum(len(part.examples) for part in parts.values()),
            class_names=labelled.classes,
            resolution=min(sides, default=0),
            name=name,
            model=f"runs/{name}/generator",
            recipe_file=os.path.relpath(out),
        )
    )


def builtin_for_folder(name: str, folder: str, out: Path) -> str:
    """Text of a built-in recipe with the classes of a folder of real images; raises RequestError.

    Args:
        out: the file that it will be written to; paths in it are relative to that.
    """
    yaml = YAML(typ="rt")
    tree = yaml.load(builtin(name))
    kind = str(tree["generator"]["kind"])
    classes = CommentedMap({class_name: CommentedMap() for class_name in read_labelled(folder)["fit"].classes})
    if kind == "unconditional" and len(classes) > 1:
        raise RequestError(f"--builtin {name}: makes images of one class only, {folder} has {len(classes)}")
    for settings in classes.values():
        settings.fa.set_flow_style()
    tree["classes"], tree["name"] = classes, _run_name(folder)
    guided = tree.get("sampling", {}).get("real_guidance")
    if guided is not None:
        guided["reference"] = folder if "://" in folder or folder.startswith(BUILTIN) else os.path.relpath(folder, out.resolve().parent)
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


def _run_name(folder: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", Path(folder).resolve().name).strip("-.") or "mine"


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
