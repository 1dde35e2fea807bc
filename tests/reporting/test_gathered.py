"""Results of a run, as far as they are there and belong together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from synthforge.reporting.gathered import Gathered
from synthforge.reporting.report import report
from tests.conftest import DIGITS, Ran

Cli = Callable[..., Ran]


def test_decisions_on_another_pool_are_not_shown(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    manifest = tmp_path / "run" / "curated" / "dataset.json"
    found = json.loads(manifest.read_text())
    found["recipe"]["pools"] = ["another"]
    manifest.write_text(json.dumps(found))
    run = Gathered.at(str(tmp_path / "run"))
    assert run.curation is None and run.decisions is None
    assert any("not curated yet" in text for text in report(run).missing)


def test_results_that_cant_be_read_are_told(run_folder: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "evaluation.json").write_text("{")
    ran = cli("report", tmp_path / "run")
    assert ran.status in {1, 2}
    assert "evaluation.json: damaged or not a synthforge file" in ran.err


def test_a_run_is_found_by_its_folder_or_its_recipe(run_folder: Path) -> None:
    by_folder = Gathered.asked(str(run_folder))
    by_recipe = Gathered.asked(str(DIGITS), [f"output.path={run_folder}"])
    assert by_folder.folder.address == by_recipe.folder.address == str(run_folder)
    assert by_folder.evaluation is not None and by_folder.diagnosis is not None and by_folder.decisions is not None
    assert len(by_folder.kept()) == by_folder.decisions.kept.sum() > 0


def test_results_of_stages_that_were_left_out_are_not_read(run_folder: Path) -> None:
    run = Gathered.of(Gathered.at(str(run_folder)).recipe, {"evaluate", "diagnose", "curate"})
    assert run.evaluation is run.diagnosis is run.curation is run.decisions is None
    assert len(run.kept()) == 0 and run.pool is not None
