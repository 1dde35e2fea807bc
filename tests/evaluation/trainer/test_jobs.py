"""Trainings are done once, and found again by their digests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import FORKS
from tests.evaluation.sets import Sets, ask


def _evaluate_and_die(place: Path, sets: Sets, trainings_before: int) -> None:
    """In a child: killed after so many trainings."""
    import synthforge.evaluation.trainer.jobs as trainings

    original, done = trainings.replace_file, [0]

    def replaced(path: Path, write_file: Any) -> None:
        if path.suffix == ".npz":
            if done[0] == trainings_before:
                os.kill(os.getpid(), signal.SIGKILL)
            done[0] += 1
        original(path, write_file)

    trainings.replace_file = replaced  # type: ignore[assignment]
    ask(sets, place, sets.more, arms="real,more-set")


@pytest.mark.slow
def test_a_killed_sweep_goes_on_where_it_was(sets: Sets, tmp_path: Path) -> None:
    child = FORKS.Process(target=_evaluate_and_die, args=(tmp_path, sets, 3))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "trainings").glob("*.npz")}
    assert len(before) == 3
    resumed = ask(sets, tmp_path, sets.more, arms="real,more-set")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "work" / "trainings").glob("*.npz")}
    assert before.items() <= after.items()
    assert len(after) == resumed.trainings
    assert resumed.tables == ask(sets, tmp_path / "undisturbed", sets.more, arms="real,more-set").tables


def test_the_same_request_gives_the_same_figures_without_training_again(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(sets, tmp_path, sets.more, arms="real,more-set")
    again = ask(sets, tmp_path / "anew", sets.more, arms="real,more-set")
    monkeypatch.setattr("synthforge.evaluation.trainer.jobs.train", lambda *_, **__: pytest.fail("trained again"))
    resumed = ask(sets, tmp_path, sets.more, arms="real,more-set")
    assert first.tables == again.tables == resumed.tables
