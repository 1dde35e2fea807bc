"""`run`: every stage once, and after that only those of which something has changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from synthforge.errors import RequestError
from synthforge.recipe.load import load_recipe
from synthforge.stages import RunResult, run
from tests.conftest import DIGITS, Ran, files_of, in_child, small
from tests.evaluation.sets import QUICK, digits, per_class, write

Cli = Callable[..., Ran]


def sets_of(place: Path, *more: str) -> list[str]:
    few = ["evaluation.real_per_class=[5]", "evaluation.curve=[5]", "evaluation.arms=[real, random]"]
    quick = [f"evaluation.{text}" for text in [*QUICK, "seeds=1"]]
    curation = [f"curation.cache={place / 'cache'}", "curation.trials.check=false"]
    return [*small(place / "run", total=200, per_shard=100), *quick, *few, *curation, *more]


def states(result: RunResult) -> dict[str, str]:
    return {one.stage: one.state for one in result.stages}


MADE, IDLE = "made", "nothing to do"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done."""
    place = tmp_path_factory.mktemp("whole")
    assert set(states(run(load_recipe(DIGITS, sets_of(place)))).values()) == {MADE}
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    for name in ("run", "cache"):
        shutil.copytree(whole / name, tmp_path / name)
    run(load_recipe(DIGITS, sets_of(tmp_path)))  # results name places, so some are written again
    return tmp_path


def test_a_second_run_does_nothing_and_says_so(place: Path, cli: Cli) -> None:
    before = files_of(place / "run")
    ran = cli("run", DIGITS, *[part for text in sets_of(place) for part in ("--set", text)], "--json")
    assert ran.status == 0, ran.err
    assert {one["state"] for one in ran.json["stages"]} == {IDLE}
    assert ran.err.count("nothing has changed") == 5
    assert files_of(place / "run") == before


def test_the_recipe_is_read_once(place: Path, tmp_path: Path) -> None:
    """Whoever edits the file meanwhile changes the next run, not a later stage of this one."""
    file = tmp_path / "digits.yaml"
    file.write_text(DIGITS.read_text())
    recipe = load_recipe(file, sets_of(place))
    file.write_text("edited: meanwhile")
    assert set(states(run(recipe)).values()) == {IDLE}
    (place / "run" / "evaluation.json").unlink()
    assert states(run(recipe))["evaluate"] == MADE


def test_a_change_of_the_evaluation_remakes_it_and_the_page_only(place: Path) -> None:
    result = run(load_recipe(DIGITS, sets_of(place, "evaluation.mixing.weight=0.5", "evaluation.arms=[real, random, real+random]")))
    assert states(result) == {"generate": IDLE, "curate": IDLE, "evaluate": MADE, "diagnose": IDLE, "report": MADE}


def test_a_change_of_the_diagnosis_remakes_it_and_the_page_only(place: Path) -> None:
    result = run(load_recipe(DIGITS, sets_of(place, "diagnosis.strength=0.5")))
    assert states(result) == {"generate": IDLE, "curate": IDLE, "evaluate": IDLE, "diagnose": MADE, "report": MADE}


@pytest.mark.slow
def test_a_change_of_curation_remakes_what_follows_from_it(place: Path) -> None:
    result = run(load_recipe(DIGITS, sets_of(place, "curation.selection.method=random")))
    assert states(result) == {"generate": IDLE, "curate": MADE, "evaluate": MADE, "diagnose": IDLE, "report": MADE}


@pytest.mark.slow
def test_other_holdout_images_remake_what_was_measured_on_them(place: Path, tmp_path: Path) -> None:
    holdout = write(tmp_path / "holdout", per_class(digits("holdout"), 0, 10))
    sets = sets_of(place, f"evaluation.holdout={holdout}")
    first = {"generate": IDLE, "curate": IDLE, "evaluate": MADE, "diagnose": MADE, "report": MADE}
    assert states(run(load_recipe(DIGITS, sets))) == first
    next((holdout / "4").iterdir()).unlink()
    assert states(run(load_recipe(DIGITS, sets))) == first


def test_a_result_that_was_changed_or_removed_is_made_again(place: Path) -> None:
    (place / "run" / "evaluation.json").write_text("{}")
    (place / "run" / "report.html").unlink()
    assert states(run(load_recipe(DIGITS, sets_of(place)))) == {
        "generate": IDLE,
        "curate": IDLE,
        "evaluate": MADE,
        "diagnose": IDLE,
        "report": MADE,
    }
    assert json.loads((place / "run" / "evaluation.json").read_text())["verdict"]


def test_without_real_images_or_holdout_stages_are_left_out_and_the_page_stands(tmp_path: Path) -> None:
    result = run(load_recipe(DIGITS, [*sets_of(tmp_path), "reference=null"]))
    assert states(result) == {"generate": MADE, "curate": "left out", "evaluate": "left out", "diagnose": "left out", "report": MADE}
    assert "no real images" in str(result.stages[1].reason)
    assert (tmp_path / "run" / "report.html").exists()
    assert len(result.missing) == 3


def test_a_recipe_that_would_make_another_pool_is_refused_and_leaves_everything(place: Path) -> None:
    before = files_of(place / "run")
    with pytest.raises(RequestError, match="steps"):
        run(load_recipe(DIGITS, sets_of(place, "sampling.steps=5")))
    assert files_of(place / "run") == before


def _run(place: Path) -> None:
    run(load_recipe(DIGITS, sets_of(place)))


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [9, 20])
def test_a_killed_run_goes_on_to_the_same_end(whole: Path, tmp_path: Path, seconds: float) -> None:
    in_child(_run, tmp_path, kill_after=seconds)
    run(load_recipe(DIGITS, sets_of(tmp_path)))
    for name in ("pool", "curated"):
        mine, theirs = (files_of(place / "run" / name) for place in (tmp_path, whole))
        assert mine == theirs
    for name in ("evaluation.json", "diagnosis.json"):
        mine, theirs = (json.loads((place / "run" / name).read_text()) for place in (tmp_path, whole))
        assert (mine["verdict"], mine["tables"]) == (theirs["verdict"], theirs["tables"])
