"""The public names: what `synthforge` loads when a name is first used, and what type checkers see."""

from __future__ import annotations

import ast
from pathlib import Path

import synthforge


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(synthforge.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    imported = {alias.asname: f"{node.module}" for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert imported == {name: f"synthforge.{module}" for name, module in synthforge._HOMES.items()}
    assert set(imported) == set(synthforge.__all__)
