"""Several workers on one dataset: local processes that die, hang and fail, and parts of an array; always the same
bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from synthforge.data.folder import DatasetFolder
from synthforge.errors import RequestError
from synthforge.executors.array import ArrayPart
from synthforge.generation import work as shardwork
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests import tiny_models
from tests.children import FaultyWork
from tests.conftest import DIGITS, Ran, brief, files_of, small

Cli = Callable[..., Ran]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of diffusers and transformers


def write_recipe(folder: Path, model: Path) -> Path:
    path = folder / "sd.yaml"
    path.write_text(
        f"name: sd\ngenerator: {{kind: text-to-image, model: {model}}}\nclasses: [cat, dog]\n"
        "prompts: {templates: ['a {size} {class}'], values: {size: [small, large]}}\n"
        "sampling: {steps: 2, guidance: [2.0, 4.0], resolution: 16}\n"
        "count: {total: 48}\noutput: {samples_per_shard: 6}\nexecution: {threads: 1, batch: 3}\n"
    )
    return path


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Stable Diffusion recipe."""
    place = tmp_path_factory.mktemp("sd")
    return write_recipe(place, tiny_models.save("sd", place))


@pytest.fixture(scope="module")
def one_process(stable_diffusion: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of its undisturbed run in one process."""
    out = tmp_path_factory.mktemp("one")
    assert generate(load_recipe(stable_diffusion, [f"output.path={out}"])).is_complete
    return files_of(out / "pool")


def kill_one_worker_after_a_shard(pool: Path, killed: list[int]) -> None:
    """SIGKILL to a worker process of this process, once the first shard is there."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        workers = [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]
        if len(workers) >= 3 and list(pool.glob("*.tar")):
            workers[-1].kill()
            killed.append(workers[-1].pid)
            return
        time.sleep(0.01)


@pytest.mark.slow
def test_three_workers_of_which_one_is_killed(stable_diffusion: Path, one_process: dict[str, str], tmp_path: Path) -> None:
    killed = list[int]()
    killer = threading.Thread(target=kill_one_worker_after_a_shard, args=(tmp_path / "pool", killed))
    killer.start()
    sets = [f"output.path={tmp_path}", "execution.workers=3"]
    result = generate(load_recipe(stable_diffusion, sets))
    killer.join()
    assert killed
    assert (result.is_complete, result.samples, result.quarantined) == (True, 48, {})
    assert files_of(tmp_path / "pool") == one_process
    assert not [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], list[str]]:
    """Choose a fault, KIND:SHARD:TIMES; the overrides of a run of two workers that will meet it."""

    def choose(fault: str) -> list[str]:
        (tmp_path / "faults").mkdir()
        monkeypatch.setenv("FAULT", fault)
        monkeypatch.setenv("FAULTS", str(tmp_path / "faults"))
        monkeypatch.setattr(shardwork, "ShardWork", FaultyWork)
        return [*brief(tmp_path), "execution.workers=2", "execution.deadline_seconds=3"]

    return choose


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["kill:1:1", "hang:1:1", "bug:0:1", "fail:2:2"])
def test_a_fault_that_passes_leaves_no_trace(
    fault: str, faulty: Callable[[str], list[str]], undisturbed: dict[str, str], tmp_path: Path
) -> None:
    result = generate(load_recipe(DIGITS, faulty(fault)))
    assert list((tmp_path / "faults").iterdir())
    assert (result.is_complete, result.quarantined) == (True, {})
    assert files_of(tmp_path / "pool") == undisturbed


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "reason"), [("kill:1:99", "signal 9"), ("hang:1:99", "taken for hung"), ("fail:1:99", "chosen")])
def test_a_fault_that_stays_is_quarantined_with_its_reason_and_everything_else_is_made(
    fault: str, reason: str, faulty: Callable[[str], list[str]], undisturbed: dict[str, str], tmp_path: Path, cli: Cli
) -> None:
    ran = cli("generate", DIGITS, *[part for text in faulty(fault) for part in ("--set", text)], "--json")
    assert ran.status == 1
    assert list(ran.json["quarantined"]) == ["train-000001"]
    assert reason in ran.json["quarantined"]["train-000001"]
    assert (ran.json["is_complete"], ran.json["samples"], ran.json["shards"]) == (True, 16, 2)
    found = files_of(tmp_path / "pool")
    assert all(found[name] == digest for name, digest in undisturbed.items() if name.startswith(("train-000000.", "train-000002.")))


def test_what_one_shard_can_never_be_is_quarantined_in_one_process_too(
    faulty: Callable[[str], list[str]], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    from synthforge.generation.engine import Engine

    monkeypatch.setattr(Engine, "_make", Engine._make)  # the work runs in this process, and the fault is to go with the test
    sets = [*faulty("fail:1:99"), "execution.workers=1"]
    ran = cli("generate", DIGITS, *[part for text in sets for part in ("--set", text)], "--json")
    assert (ran.status, list(ran.json["quarantined"])) == (1, ["train-000001"])


# --- parts of an array ---


def run_part(out: Path, number: int, of: int, **changes: object) -> Any:
    return generate(load_recipe(DIGITS, brief(out, **changes)), part=ArrayPart(number, of))


@pytest.mark.parametrize("of", [2, 3, 7])
def test_parts_in_any_order_make_what_one_run_makes(of: int, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """Also with more parts than shards: some then have nothing to do."""
    results = [run_part(tmp_path, number, of) for number in reversed(range(1, of + 1))]
    assert [result.is_complete for result in results] == [False] * max(0, min(of, 3) - 1) + [True] * (of - min(of, 3) + 1) or of > 3
    assert results[-1].is_complete
    assert sum(result.made for result in results) == 24
    assert files_of(tmp_path / "pool") == undisturbed


def test_a_rerun_of_any_part_repairs_it(undisturbed: dict[str, str], tmp_path: Path) -> None:
    for number in (1, 2):
        run_part(tmp_path, number, 2)
    for name in ("train-000000.json", "train-000002.tar", "train-000002.json", "train-000002.parquet", "complete.json"):
        (tmp_path / "pool" / name).unlink()
    assert run_part(tmp_path, 2, 2).is_complete is False  # the shards that are gone are the other part's
    repaired = run_part(tmp_path, 1, 2)
    assert (repaired.is_complete, repaired.made) == (True, 8)
    assert files_of(tmp_path / "pool") == undisturbed


@pytest.mark.slow
def test_a_local_run_that_an_array_goes_on_with(undisturbed: dict[str, str], tmp_path: Path, cli: Cli) -> None:
    run_part(tmp_path, 2, 3)
    options = [part for text in [*brief(tmp_path), "execution.workers=2"] for part in ("--set", text)]
    part = cli("generate", DIGITS, *options, "--part", "1/3")
    assert part.status == 0
    assert "part 1/3 done" in part.out
    assert "other parts are not generated yet" in part.out
    assert cli("generate", DIGITS, *options, "--part", "3/3").status == 0
    assert files_of(tmp_path / "pool") == undisturbed


def test_slurm_says_which_part(undisturbed: dict[str, str], tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    options = [part for text in brief(tmp_path) for part in ("--set", text)]
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "0")
    for task in ("1", "0"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", task)
        assert cli("generate", DIGITS, *options, "--part", "slurm").status == 0
    assert files_of(tmp_path / "pool") == undisturbed


def test_parts_that_make_no_sense(tmp_path: Path, cli: Cli) -> None:
    options = [part for text in brief(tmp_path) for part in ("--set", text)]
    for wrong, words in {"0/4": "parts count from 1", "5/4": "only 4 parts", "x": "such as 2/8"}.items():
        ran = cli("generate", DIGITS, *options, "--part", wrong)
        assert ran.status == 2
        assert words in ran.err
    with pytest.raises(RequestError, match=r"--part 1/2: can't be combined with --overwrite"):
        generate(load_recipe(DIGITS, small(tmp_path)), part=ArrayPart(1, 2), overwrite=True)
    assert not (tmp_path / "pool").exists()


def test_a_wrong_request_is_found_by_workers_before_anything_changes(tmp_path: Path) -> None:
    sets = small(tmp_path, execution__device="cuda:99", execution__workers=2)
    with pytest.raises(RequestError, match=r"execution.device: cuda:99 is not on this machine"):
        generate(load_recipe(DIGITS, sets))
    assert not (tmp_path / "pool" / "dataset.json").exists()


def test_status_of_a_part(tmp_path: Path) -> None:
    run_part(tmp_path, 1, 3)
    assert len(DatasetFolder.open(str(tmp_path / "pool")).state().sealed) == 1


def test_a_part_does_not_fail_for_what_another_part_gave_up(tmp_path: Path, cli: Cli) -> None:
    run_part(tmp_path, 1, 3)
    dataset = DatasetFolder.open(str(tmp_path / "pool"))
    dataset.quarantine(dataset.state().missing[0], "for the test", 3)
    options = [part for text in brief(tmp_path) for part in ("--set", text)]
    assert cli("generate", DIGITS, *options, "--part", "3/3").status == 0
    assert cli("generate", DIGITS, *options, "--part", "2/3").status == 1
