"""Evaluations of sets with planted faults, end to end and by the command line."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds
from rich.console import Console

from synthforge.cli.console import print_evaluation
from synthforge.evaluation.results.types import EvaluateResult
from tests.conftest import Ran
from tests.evaluation.sets import REAL, Sets, ask, difference, digits, per_class, settings, write

Cli = Callable[..., Ran]


@pytest.fixture(scope="module")
def planted(sets: Sets, tmp_path_factory: pytest.TempPathFactory) -> EvaluateResult:
    """With a curve whose ends are far below and above what trainings with `REAL` images give."""
    required = ["more-set > wrong", "wrong > more-set"]
    more = ("trainer.steps=120", "seeds=3", "curve=[1, 30]")
    return ask(sets, tmp_path_factory.mktemp("planted"), sets.more, sets.wrong, require=required, more=more)


def answer(result: EvaluateResult, what: str) -> Any:
    return next(one.claim for one in result.tables[0].required if one.claim.what == what)


@pytest.mark.trains
def test_half_of_the_labels_wrong_is_worse_than_none(planted: EvaluateResult) -> None:
    accuracy = {name: score.accuracy for name, score in planted.tables[0].settings[0].arms.items()}
    assert accuracy["wrong"].high < accuracy["more-set"].low
    assert planted.requirements == {"more-set > wrong": True, "wrong > more-set": False}
    assert answer(planted, "more-set minus wrong").verdict == "helped"


@pytest.mark.trains
def test_real_images_in_disguise_are_worth_about_as_many_real_ones(planted: EvaluateResult) -> None:
    """How exactly, planted scores tell (tests/test_statistics.py): these trainings are few, and other images than
    those."""
    (setting,) = planted.tables[0].settings
    compared = difference(planted, "more-set", "real").difference
    assert abs(compared.value) <= 0.06
    worth, wrong = setting.worth["more-set"], setting.worth["wrong"]
    assert REAL / 2 <= worth.equivalent.value <= worth.equivalent.high <= 3 * REAL
    assert worth.equivalent.low > REAL / 5 and not worth.low_is_end  # not the whole curve
    assert wrong.equivalent.high < min(worth.equivalent.low, REAL / 2)


@pytest.mark.trains
def test_everything_is_told(planted: EvaluateResult) -> None:
    (table,) = planted.tables
    (setting,) = table.settings
    assert table.origin == "elsewhere"
    assert "trained elsewhere" in planted.verdict
    assert (setting.budget, setting.real_per_class) == (100, REAL)
    assert [point.real_per_class for point in planted.curve] == [1, 10, 30]
    score = setting.arms["real+more-set"]
    assert (score.images, score.draws, score.seeds, score.interval_over) == (200, 1, 3, "seeds and images")
    assert set(score.recall) == set(planted.classes)
    assert 0 <= score.calibration_error <= 1
    written = json.loads(Path(planted.file or "").read_bytes())
    assert written["tables"][0]["settings"][0]["arms"]["real"]["accuracy"]["value"] == setting.arms["real"].accuracy.value


@pytest.mark.trains
def test_a_table_is_drawn_by_amounts(planted: EvaluateResult) -> None:
    console = Console(record=True, width=120, file=io.StringIO())
    print_evaluation(console, planted.tables[0])
    lines = console.export_text().splitlines()
    (setting,) = planted.tables[0].settings
    assert "generator trained elsewhere" in lines[0]
    assert any(f"{REAL} real images per class, 1 synthetic per real image" in line for line in lines)
    for name in [
        *setting.arms,
        *(f"{one.arm} − {one.against}" for one in setting.comparisons),
        *(f"exchange rate, {one}" for one in setting.worth),
    ]:
        assert sum(line.strip().startswith(f"{name}  ") for line in lines) == 1, name


def test_an_arm_beside_itself_is_no_different(sets: Sets, tmp_path: Path) -> None:
    twins = "arms=[real, {name: twin, of: [real]}]"
    result = ask(sets, tmp_path, more=(twins,), require=["twin > real", "twin >= real"])
    assert difference(result, "twin", "real").difference.value == 0
    assert result.requirements == {"twin > real": False, "twin >= real": True}


@pytest.mark.trains
def test_two_halves_of_one_pool_are_about_as_good(sets: Sets, tmp_path: Path) -> None:
    """Of the same writers in turn; whether their interval holds 0 is chance, in one evaluation of twenty."""
    pool = per_class(digits(), 40, 70)
    one, two = (write(tmp_path / name, pool[start::2]) for name, start in (("one", 0), ("two", 1)))
    result = ask(sets, tmp_path, one, two, arms="one,two", more=("seeds=4", "trainer.steps=60"), require=["one > two", "two > one"])
    first, second = (answer(result, what).difference for what in ("one minus two", "two minus one"))
    assert (first.value, first.low, first.high) == pytest.approx((-second.value, -second.high, -second.low), abs=2e-5)
    assert first.low < first.value < first.high
    assert abs(first.value) < 0.15
    assert not all(result.requirements.values())


def test_one_training_proves_nothing_and_says_so(sets: Sets, tmp_path: Path) -> None:
    result = ask(sets, tmp_path, sets.wrong, arms="real,wrong", more=("seeds=1",))
    assert any(note.startswith("one draw and one seed: intervals cover only the test images") for note in result.notes)
    (comparison,) = result.tables[0].settings[0].comparisons
    assert (comparison.verdict, comparison.interval_over) == ("cannot tell", "images")
    assert "cannot tell from one training run; raise `seeds`" in result.verdict


def test_plain_webdataset_shards_are_worth_what_their_images_are(sets: Sets, tmp_path: Path) -> None:
    shards = tmp_path / "more-set"
    shards.mkdir()
    with wds.ShardWriter(f"{shards}/%03d.tar", maxcount=100, verbose=0) as writer:
        for path in sorted(sets.more.rglob("*.png")):
            writer.write({"__key__": path.stem, "png": path.read_bytes(), "cls": path.parent.name})
    of_shards = ask(sets, tmp_path / "shards", shards, arms="real,more-set,real+more-set")
    of_folder = ask(sets, tmp_path / "folder", sets.more, arms="real,more-set,real+more-set")
    assert of_shards.tables[0].settings == of_folder.tables[0].settings


def test_real_only_is_a_baseline_for_any_folder(cli: Cli, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("evaluate", "--real", sets.real, "--holdout", sets.holdout, "--arms", "real", *settings("real_per_class=[5]", "curve=[10]"))
    assert ran.status == 0, ran.err
    assert "Accuracy of tuned classifiers that were trained on real images only:" in ran.out
    assert (tmp_path / "runs" / "evaluation" / "evaluation.json").exists()


@pytest.mark.trains
def test_a_requirement_that_does_not_hold_is_status_1(cli: Cli, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli(
        *("evaluate", "--synthetic", sets.wrong, "--real", sets.real, "--holdout", sets.holdout, "--json"),
        *("--arms", "real,wrong", "--require", "wrong > real", "--require", "real >= 0.2"),
        *settings("real_per_class=[10]", "curve=[5]", "seeds=4"),  # two would give intervals that may hold everything
    )
    assert ran.status == 1
    assert ran.json["requirements"] == {"wrong > real": False, "real >= 0.2": True}
    (answer,) = ran.json["tables"][0]["required"]
    assert answer["claim"]["what"] == "wrong minus real"
    assert answer["claim"]["difference"] == ran.json["tables"][0]["settings"][0]["comparisons"][0]["difference"]
