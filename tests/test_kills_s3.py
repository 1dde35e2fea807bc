"""The same on an object store: killed before any change, with faults, and with two writers, the bytes end up those of
the disk."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from synthforge.data.audit import verify
from synthforge.data.folder import DatasetFolder
from tests import children
from tests.conftest import DIGITS, brief, child, in_child, s3_files, small
from tests.faulty_proxy import FaultyProxy

RECIPE = str(DIGITS)


def test_s3_gives_the_bytes_of_the_disk_and_survives_kills(s3: str, tmp_path: Path, undisturbed: dict[str, str]) -> None:
    counted = tmp_path / "count"
    assert in_child(children.run_and_die_on_s3, RECIPE, brief(f"{s3}/0"), 0, str(counted)) == 0
    assert s3_files(f"{s3}/0/pool") == undisturbed
    for step in range(1, int(counted.read_text()) + 1, 4):
        out = f"{s3}/{step}"
        assert in_child(children.run_and_die_on_s3, RECIPE, brief(out), step) in {-9, 0}, step
        assert in_child(children.run, RECIPE, brief(out)) == 0, step
        assert s3_files(f"{out}/pool") == undisturbed, step


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 4))
def test_s3_survives_a_kill_at_every_request_that_changes_it(s3: str, tmp_path: Path, undisturbed: dict[str, str], first: int) -> None:
    """In three tests, each with every third request."""
    counted = tmp_path / "count"
    assert in_child(children.run_and_die_on_s3, RECIPE, brief(f"{s3}/0"), 0, str(counted)) == 0
    assert int(counted.read_text()) > 15
    for step in range(first, int(counted.read_text()) + 1, 3):
        out = f"{s3}/{step}"
        assert in_child(children.run_and_die_on_s3, RECIPE, brief(out), step) in {-9, 0}, step
        assert in_child(children.run, RECIPE, brief(out)) == 0, step
        assert s3_files(f"{out}/pool") == undisturbed, step


def test_s3_killed_at_random_moments(s3: str, undisturbed: dict[str, str]) -> None:
    rng = random.Random(9)
    for turn in range(10):
        out = f"{s3}/random-{turn}"
        in_child(children.run, RECIPE, brief(out), kill_after=rng.uniform(0.05, 3))
        assert in_child(children.run, RECIPE, brief(out)) == 0
        assert s3_files(f"{out}/pool") == undisturbed, turn


def test_two_processes_on_s3(s3: str) -> None:
    wanted = small(f"{s3}/both", total=48, per_shard=8)
    both = [child(children.run_blind, RECIPE, wanted, amount) for amount in (0, 100)]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    audit = verify(DatasetFolder.open(f"{s3}/both/pool"))
    assert audit.problems == []
    assert audit.samples == 48


@pytest.mark.parametrize("fault", ["unavailable", "dropped", "answer lost", "answer cut short", "request cut short"])
def test_s3_with_faults(s3: str, s3_server: str, fault: str, undisturbed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of all requests go wrong in one way; the run ends with the same bytes all the same."""
    with FaultyProxy(s3_server, fault, every=3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.address)
        out = f"{s3}/faulty"
        assert in_child(children.run, RECIPE, brief(out)) == 0
        assert proxy.faults > 5
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    assert s3_files(f"{s3}/faulty/pool") == undisturbed
