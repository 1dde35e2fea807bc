"""Killed at any moment and run again, a dataset ends with the bytes of an undisturbed run; two writers never tear
anything."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from synthforge.data.layout import SIDE_FILES
from tests import children
from tests.conftest import DIGITS, brief, child, files_of, in_child, small

RECIPE = str(DIGITS)


def test_killed_at_every_step_that_changes_the_folder(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    counted = tmp_path / "count"
    assert in_child(children.run_and_die, RECIPE, brief(tmp_path / "0"), str(tmp_path / "0"), 0, str(counted)) == 0
    steps = int(counted.read_text())
    assert steps > 30  # three shards of tar, table and seal, each written, linked and its temporary name removed
    assert files_of(tmp_path / "0" / "pool") == undisturbed
    for step in range(1, steps + 1):
        out = tmp_path / str(step)
        assert in_child(children.run_and_die, RECIPE, brief(out), str(out), step) == -9, step
        assert in_child(children.run, RECIPE, brief(out)) == 0, step
        assert files_of(out / "pool") == undisturbed, step


def test_killed_at_random_moments(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    rng = random.Random(8)
    began = time.monotonic()
    assert in_child(children.run, RECIPE, brief(tmp_path / "whole")) == 0
    whole = time.monotonic() - began
    for turn in range(10):
        out = tmp_path / str(turn)
        for _ in range(2):  # killed, run again, killed again, then run to the end
            in_child(children.run, RECIPE, brief(out), kill_after=rng.uniform(0.02, whole))
        assert in_child(children.run, RECIPE, brief(out)) == 0
        assert files_of(out / "pool") == undisturbed, turn


def test_killed_while_extending(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for options in ({}, {"extend": 12}):
        assert in_child(children.run, RECIPE, brief(whole), options) == 0
    counted = tmp_path / "count"
    out = tmp_path / "0"
    assert in_child(children.run, RECIPE, brief(out)) == 0
    assert in_child(children.run_and_die, RECIPE, brief(out), str(out), 0, str(counted), {"extend": 12}) == 0
    for step in range(1, int(counted.read_text()) + 1, 3):
        out = tmp_path / str(step)
        assert in_child(children.run, RECIPE, brief(out)) == 0
        assert in_child(children.run_and_die, RECIPE, brief(out), str(out), step, None, {"extend": 12}) == -9
        assert in_child(children.run, RECIPE, brief(out), {"extend": 12}) == 0 or files_of(out / "pool") == files_of(whole / "pool")
        if len(files_of(out / "pool")) > len(files_of(whole / "pool")):
            # killed after the extension was complete: asking again adds another one, as it should
            continue
        assert files_of(out / "pool") == files_of(whole / "pool"), step


@pytest.mark.parametrize("spoil", [0, 100])
def test_two_processes_on_one_folder(tmp_path: Path, spoil: int) -> None:
    """Also with different pixels: every tar is whole and one writer's, every seal is its tar's, nothing is doubled."""
    from synthforge.data.audit import verify
    from synthforge.data.folder import DatasetFolder

    wanted = small(tmp_path, total=120, per_shard=8)
    both = [child(children.run, RECIPE, wanted, None, amount) for amount in (0, spoil)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    dataset = DatasetFolder.open(str(tmp_path / "pool"))
    audit = verify(dataset)
    assert audit.problems == []
    assert audit.samples == 120
    names = files_of(tmp_path / "pool")
    assert len([name for name in names if name.endswith(".tar")]) == 15
    assert set(names) == {"dataset.json", "complete.json", *SIDE_FILES} | {
        f"train-{i:06d}.{kind}" for i in range(15) for kind in ("tar", "parquet", "json")
    }


def test_two_processes_that_always_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without heartbeats both make every shard; the loser of each drops its bytes and adopts the winner's."""
    wanted = small(tmp_path / "both", total=48, per_shard=8)
    both = [child(children.run_blind, RECIPE, wanted, amount) for amount in (0, 100)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    alone = {}
    for amount in (0, 100):
        out = tmp_path / f"alone-{amount}"
        assert in_child(children.run, RECIPE, small(out, total=48, per_shard=8), None, amount) == 0
        alone[amount] = files_of(out / "pool")
    found = files_of(tmp_path / "both" / "pool")
    for shard in range(6):
        mine = {name: digest for name, digest in found.items() if name.startswith(f"train-{shard:06d}")}
        assert len(mine) == 3
        assert any(mine.items() <= alone[amount].items() for amount in (0, 100)), shard
