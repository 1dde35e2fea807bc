"""The structure: imports point down, every module has a place, the command line is light, exports are complete."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest

import synthforge
from tests.conftest import ROOT


def test_import_layers_hold() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    assert contract["exhaustive"] is True


@pytest.mark.parametrize(
    "module",
    [
        "synthforge",
        "synthforge.cli.main",
        "synthforge.recipe.recipe",
        "synthforge.generators.config",
        "synthforge.evaluation.request",
        "synthforge.evaluation.diagnosis.request",
        "synthforge.executors.process",
    ],
)
def test_light_modules_load_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'diffusers', 'transformers', 'webdataset') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_recipe_check_loads_no_torch() -> None:
    code = (
        "import sys; sys.argv = ['synthforge', 'recipe', 'check', 'recipes/digits.yaml']\n"
        "from synthforge.cli import main as cli\n"
        "cli.main()\n"
        "assert 'torch' not in sys.modules and 'diffusers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("verb", ["generate", "curate", "evaluate", "diagnose", "report", "run"])
def test_mistakes_are_told_before_torch_is_loaded(verb: str) -> None:
    code = (
        f"import sys; sys.argv = ['synthforge', '{verb}', 'recipes/digits.yaml', '--set', 'reference.oops=1']\n"
        "from synthforge.cli import main as cli\n"
        "try:\n"
        "    cli.main()\n"
        "except SystemExit as leaving:\n"
        "    print(leaving.code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "2 False\n" and "reference" in done.stderr


def test_exports_exist_and_are_sorted() -> None:
    assert synthforge.__all__ == sorted(synthforge.__all__)
    for name in synthforge.__all__:
        assert getattr(synthforge, name).__doc__
    assert synthforge.__version__
    with pytest.raises(AttributeError):
        _ = synthforge.nothing_of_this_name
