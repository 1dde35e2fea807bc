"""Several runs in one page and table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Ran
from tests.reporting.conftest import needs_browser, opened

Cli = Callable[..., Ran]


@pytest.mark.trains
@needs_browser
def test_runs_are_compared_in_a_page_and_a_table(run_folder: Path, tmp_path: Path, cli: Cli, browser: Any) -> None:
    for name in ("one", "two"):
        shutil.copytree(run_folder, tmp_path / name)
    evaluation = json.loads((tmp_path / "two" / "evaluation.json").read_text())
    (tmp_path / "two" / "evaluation.json").write_text(json.dumps({**evaluation, "steps": 31}))
    (tmp_path / "two" / "diagnosis.json").unlink()
    ran = cli("compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "compare.html", "--json")
    assert ran.status == 0, ran.err
    one, two = ran.json["runs"]
    assert [one["name"], two["name"]] == ["one", "two"]
    lost = {title for title in one["cells"] if "accuracy lost" in title}
    assert lost and not lost & two["cells"].keys()
    assert {title: one["cells"][title] for title in two["cells"]} == two["cells"]
    assert any("different training steps" in text for text in ran.json["warnings"])
    assert any("no results yet of diagnose" in text for text in ran.json["warnings"])
    page, trouble = opened(browser, tmp_path / "compare.html", 360)
    assert trouble == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("figure svg").count() == 2
    table = cli("compare", tmp_path / "one", tmp_path / "two", "--out", tmp_path / "compare.html")
    assert "random, 5 real images per class" in table.out


def test_what_cant_be_compared_is_told(run_folder: Path, tmp_path: Path, cli: Cli) -> None:
    for arguments, told in [
        ((run_folder,), "two runs or more"),
        ((run_folder, run_folder), "a run is given twice"),
        ((run_folder, tmp_path), "no run is there"),
    ]:
        ran = cli("compare", *arguments, "--out", tmp_path / "page.html")
        assert ran.status == 2
        assert told in ran.err
        assert not (tmp_path / "page.html").exists()
