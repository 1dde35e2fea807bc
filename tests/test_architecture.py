"""ARCHITECTURE.md is true: its tree names every module and no other, and the files that it points to are there."""

from __future__ import annotations

import re

from tests.conftest import ROOT

TEXT = (ROOT / "ARCHITECTURE.md").read_text()


def modules_in_tree() -> set[str]:
    """Paths of the modules in the tree, by their indentation."""
    tree = TEXT.partition("```\nsynthforge/\n")[2].partition("```")[0]
    folders: list[str] = []
    found = set()
    for line in tree.splitlines():
        if not line.startswith(" "):
            break  # what stands beside the package
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2 - 1
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            found.add("".join([*folders, name]))
    return found


def test_the_tree_names_every_module_and_no_other() -> None:
    package = ROOT / "synthforge"
    modules = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    packages = {module for module in modules if module.endswith("__init__.py") and module != "__init__.py"}
    assert modules_in_tree() == modules - packages


def test_files_that_are_pointed_to_are_there() -> None:
    pointed = {path for path in re.findall(r"`([\w/]+\.py)`", TEXT) if "/" in path}
    roots = (ROOT, ROOT / "synthforge")
    assert len(pointed) > 10
    assert {path for path in pointed if not any((root / path).exists() for root in roots)} == set()
