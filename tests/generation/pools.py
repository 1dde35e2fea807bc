"""Small pools of the built-in generator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from synthforge.data.folder import DatasetFolder
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small


def make(out: Path, options: dict[str, Any] | None = None, **changes: object) -> DatasetFolder:
    generate(load_recipe(DIGITS, small(out, **changes)), **(options or {}))
    return DatasetFolder.open(str(out / "pool"))
