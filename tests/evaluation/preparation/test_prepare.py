"""Draws are prepared once: by any number of workers, and after a kill."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FORKS
from tests.evaluation.sets import run


@pytest.mark.slow
def test_two_workers_prepare_what_one_does(tmp_path: Path) -> None:
    """And tune meanwhile, of which nothing but the result is told."""
    amounts = ("evaluation.real_per_class=[5, 10]", "evaluation.seeds=1", "evaluation.tuning.on=true")
    one, two = run(tmp_path / "one", *amounts), run(tmp_path / "two", *amounts, "evaluation.workers=2")
    assert one.tables == two.tables
    assert one.tuned == two.tuned
    assert len(one.tuned[0].scores) > 1


def _evaluate(place: Path, dies_before: int | None, told: Any) -> None:
    """In a child: says how many files it renamed below a place, or is killed before one of these."""
    renamed = 0

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal renamed
        if event in {"os.rename", "os.link"} and str(place) in str(arguments[1]):
            if renamed == dies_before:
                os.kill(os.getpid(), signal.SIGKILL)
            renamed += 1

    sys.addaudithook(audit)
    fitted = "evaluation.fit={loop: {images: 1000, checks: 2}, threads: 1}"
    result = run(place, fitted, "evaluation.generators=null", "evaluation.arms=[real, random, curated]", "evaluation.seeds=1")
    told.put((renamed, result.tables))


def _in_a_child(place: Path, dies_before: int | None = None) -> Any:
    told = FORKS.Queue()
    child = FORKS.Process(target=_evaluate, args=(place, dies_before, told))
    child.start()
    found = told.get(timeout=300) if dies_before is None else None
    child.join(300)
    assert child.exitcode == (0 if dies_before is None else -signal.SIGKILL)
    return found


@pytest.mark.slow
def test_killed_anywhere_while_preparing_it_goes_on_to_the_same_figures(tmp_path: Path) -> None:
    num, tables = _in_a_child(tmp_path / "undisturbed")
    assert num > 15
    place = tmp_path / "killed"
    for _ in range(5):  # each goes on from what the last one left
        _in_a_child(place, dies_before=3)
    assert _in_a_child(place)[1] == tables


@pytest.mark.slow
def test_damaged_files_of_an_evaluation_are_made_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    for pattern in ("evaluation/*/*-prepared.json", "evaluation/sets/*.parquet", "evaluation/trainings/*.npz"):
        found = sorted(tmp_path.glob(pattern))
        assert found
        for path in found:
            data = path.read_bytes()
            path.write_bytes(data[: len(data) // 2])
        assert run(tmp_path).tables == first.tables
