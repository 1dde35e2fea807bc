"""Evaluations of sets with planted faults, end to end and by the command line: figures, honesty, going on, wrong requests."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import signal
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from rich.console import Console

from synthforge.cli.console import print_evaluation
from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.evaluation import request as evaluationrequest
from synthforge.evaluation.request import WORKERS_IMPORT, evaluation_of
from synthforge.evaluation.results.types import EvaluateResult
from synthforge.evaluation.trainer.jobs import ClassifierTrainer, Training
from synthforge.evaluation.trainer.train import Predictions
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from tests.conftest import DIGITS, FORKS, Ran
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
    assert answer(planted, "more-set less wrong").verdict == "helped"


@pytest.mark.trains
def test_real_images_in_disguise_are_worth_about_as_many_real_ones(planted: EvaluateResult) -> None:
    """How exactly, planted scores tell (tests/test_statistics.py): these trainings are few, and other images than those."""
    (setting,) = planted.tables[0].settings
    compared = difference(planted, "more-set", "real").difference
    assert abs(compared.value) <= 0.06
    worth, wrong = setting.worth["more-set"], setting.worth["wrong"]
    assert REAL / 2 <= worth.equivalent.value <= worth.equivalent.high <= 3 * REAL
    assert worth.equivalent.low > REAL / 5 and not worth.low_is_end  # not the whole curve
    assert wrong.equivalent.high < min(worth.equivalent.low, REAL / 2)


def test_importance_weights_of_a_curated_set_count_in_trainings(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import synthforge.evaluation.trainer.jobs as trainings

    settings = ["encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}", "selection.weights=true"]
    config = config_from_sets(CurationConfig, [*settings, f"cache={tmp_path / 'cache'}", "gates.labels.on=false"])
    curated = curate(CurationRequest([str(sets.more)], str(sets.real), str(tmp_path / "weighted"), config))
    decisions = pq.read_table(tmp_path / "weighted" / "decisions.parquet").to_pylist()
    given = {row["curated_key"]: row["weight"] for row in decisions if row["kept"]}
    assert len(given) == curated.kept > 200 and len(set(given.values())) > 20

    train, seen = trainings.train, []

    def trained(config: Any, mixing: Any, images: Any, **rest: Any) -> Any:
        if not images.is_real_N.any():
            seen.append(images)
        return train(config, mixing, images, **rest)

    monkeypatch.setattr(trainings, "train", trained)
    ask(sets, tmp_path / "asked", tmp_path / "weighted", arms="weighted")
    by_image = {}
    for shard in (tmp_path / "weighted").glob("*.tar"):
        with tarfile.open(shard) as tar:
            images = [member for member in tar if member.name.endswith(".png")]
            by_image |= {tar.extractfile(member).read(): given[member.name.removesuffix(".png")] for member in images}  # type: ignore[union-attr]
    assert len(by_image) == len(given) and seen
    for images in seen:
        files = images.gather(np.arange(len(images)))
        assert images.weight_N.tolist() == [by_image[data] for data in files]


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
    assert any(f"{REAL} real images per class, 1 synthetic for each" in line for line in lines)
    for name in [
        *setting.arms,
        *(f"{one.arm} − {one.against}" for one in setting.comparisons),
        *(f"exchange rate, {one}" for one in setting.worth),
    ]:
        assert sum(line.strip().startswith(f"{name}  ") for line in lines) == 1, name


def test_the_same_request_gives_the_same_figures_without_training_again(
    sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ask(sets, tmp_path, sets.more, arms="real,more-set")
    again = ask(sets, tmp_path / "anew", sets.more, arms="real,more-set")
    monkeypatch.setattr("synthforge.evaluation.trainer.jobs.train", lambda *_, **__: pytest.fail("trained again"))
    resumed = ask(sets, tmp_path, sets.more, arms="real,more-set")
    assert first.tables == again.tables == resumed.tables


def test_an_arm_beside_itself_is_no_different(sets: Sets, tmp_path: Path) -> None:
    twins = "arms=[real, {name: twin, of: [real]}]"
    result = ask(sets, tmp_path, more=(twins,), require=["twin > real", "twin >= real"])
    assert difference(result, "twin", "real").difference.value == 0
    assert result.requirements == {"twin > real": False, "twin >= real": True}


def test_what_is_required_is_asked_of_the_amounts_that_it_names_and_changes_nothing_else(sets: Sets, tmp_path: Path) -> None:
    both = (f"real_per_class=[{REAL}, {2 * REAL}]",)
    asked = ["more-set > wrong", "more-set >= wrong", f"more-set > wrong @ {REAL}", "real >= 0.1"]
    plain = ask(sets, tmp_path, sets.more, sets.wrong, arms="real,more-set,wrong", more=both)
    result = ask(sets, tmp_path, sets.more, sets.wrong, arms="real,more-set,wrong", more=both, require=asked)
    by_what = {one.claim.what: one.claim for one in result.tables[0].required}
    assert {what: one.comparisons for what, one in by_what.items()} == {
        "more-set less wrong": 2,
        f"more-set less wrong with {REAL} real per class": 1,
    }
    assert list(result.requirements) == asked
    assert result.requirements["more-set > wrong"] == (by_what["more-set less wrong"].verdict == "helped")
    assert result.tables[0].model_copy(update={"required": []}) == plain.tables[0]
    assert result.verdict == plain.verdict


@pytest.mark.trains
def test_two_halves_of_one_pool_are_about_as_good(sets: Sets, tmp_path: Path) -> None:
    """Of the same writers in turn; whether their interval holds 0 is chance, in one evaluation of twenty."""
    pool = per_class(digits(), 40, 70)
    one, two = (write(tmp_path / name, pool[start::2]) for name, start in (("one", 0), ("two", 1)))
    result = ask(sets, tmp_path, one, two, arms="one,two", more=("seeds=4", "trainer.steps=60"), require=["one > two", "two > one"])
    first, second = (answer(result, what).difference for what in ("one less two", "two less one"))
    assert (first.value, first.low, first.high) == pytest.approx((-second.value, -second.high, -second.low), abs=2e-5)
    assert first.low < first.value < first.high
    assert abs(first.value) < 0.15
    assert not all(result.requirements.values())


@pytest.mark.parametrize(("later", "is_enough"), [(0.7, False), (0.6, True)])
def test_too_few_steps_are_told(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, later: float, is_enough: bool) -> None:
    """Of planted scores: 6 of 10 images are right, and so many after twice the steps."""

    def scored(trainer: ClassifierTrainer, training: Training, progress: Any) -> Predictions:
        truth_V = trainer._sets.read(training.test_set).label_N
        right_V = np.random.default_rng(training.seed).random(len(truth_V)) < (later if training.config.steps == 20 else 0.6)
        return Predictions(np.where(right_V, truth_V, -1).astype(np.int16), *np.full((2, len(truth_V)), 0.5, np.float32))

    monkeypatch.setattr(ClassifierTrainer, "_train", scored)
    check = ("steps_check=true", "trainer.steps=10", "real_per_class=[20]")
    result = ask(sets, tmp_path, sets.more, arms="real,more-set", more=check)
    (setting,) = result.tables[0].settings
    assert set(setting.steps_check) == {"real", "more-set"}
    assert setting.steps_check_mean is not None and setting.steps_check_mean.value == pytest.approx(later - 0.6, abs=0.05)
    assert setting.has_enough_steps is is_enough
    assert "twice the steps change accuracy by +" in result.notes[0]
    assert ("raise trainer.steps" in result.notes[0]) is not is_enough
    assert ("The trainings were too short: with twice the steps accuracy still changes by up to" in result.verdict) is not is_enough


@pytest.mark.trains
def test_what_twice_the_steps_do_to_a_difference_is_told(sets: Sets, tmp_path: Path) -> None:
    check = ("steps_check=true", "trainer.steps=10", "draws=3", "seeds=1")
    result = ask(sets, tmp_path, sets.more, sets.wrong, arms="real,more-set,wrong", more=check)
    change = difference(result, "wrong", "real").steps_change
    (setting,) = result.tables[0].settings
    by_arm = setting.steps_check
    assert change is not None
    assert change.value == pytest.approx(by_arm["wrong"].value - by_arm["real"].value, abs=2e-5)
    told = f"wrong less real by {100 * change.value:+.1f}" in "\n".join(result.notes)
    assert told == (change.low > 0 or change.high < 0)


def test_what_intervals_do_not_cover_is_told(sets: Sets, tmp_path: Path) -> None:
    """Two draws of 20 images each from some 30 of a class, and one pool for both."""
    result = ask(sets, tmp_path, sets.more, arms="real,more-set", more=("draws=2", "seeds=1"))
    told = "\n".join(result.notes)
    assert f"{REAL} real per class: all draws share one pool" in told or f"{REAL} real per class, from elsewhere: all draws share" in told
    assert f"{2 * REAL} real per class: draws share real images" in told
    assert f"{REAL} real per class: draws share" not in told


def test_one_training_proves_nothing_and_says_so(sets: Sets, tmp_path: Path) -> None:
    result = ask(sets, tmp_path, sets.wrong, arms="real,wrong", more=("seeds=1",))
    assert any(note.startswith("one draw and one seed: intervals cover holdout images only") for note in result.notes)
    (comparison,) = result.tables[0].settings[0].comparisons
    assert (comparison.verdict, comparison.interval_over) == ("cannot tell", "images")
    assert "cannot tell from one training; raise `seeds`" in result.verdict


def test_plain_webdataset_shards_are_worth_what_their_images_are(sets: Sets, tmp_path: Path) -> None:
    shards = tmp_path / "more-set"
    shards.mkdir()
    with wds.ShardWriter(f"{shards}/%03d.tar", maxcount=100, verbose=0) as writer:
        for path in sorted(sets.more.rglob("*.png")):
            writer.write({"__key__": path.stem, "png": path.read_bytes(), "cls": path.parent.name})
    of_shards = ask(sets, tmp_path / "shards", shards, arms="real,more-set,real+more-set")
    of_folder = ask(sets, tmp_path / "folder", sets.more, arms="real,more-set,real+more-set")
    assert of_shards.tables[0].settings == of_folder.tables[0].settings


# The command line


def test_real_only_is_a_baseline_for_any_folder(cli: Cli, sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = cli("evaluate", "--real", sets.real, "--holdout", sets.holdout, "--arms", "real", *settings("real_per_class=[5]", "curve=[10]"))
    assert ran.status == 0, ran.err
    assert "Accuracy with tuned settings and real images only:" in ran.out
    assert (tmp_path / "runs" / "evaluation" / "evaluation.json").exists()


def test_two_workers_start_early_where_several_are_wanted(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[int, Sequence[str]]] = []
    monkeypatch.setattr(evaluationrequest, "start_early", lambda num, modules: started.append((num, modules)))

    def begun(*more: str) -> list[tuple[int, Sequence[str]]]:
        started.clear()
        asked = evaluation_of(None, real=str(sets.real), holdout=str(sets.holdout), out=str(tmp_path / "e.json"), sets=more, arms="real")
        evaluationrequest.start_workers(asked)
        return [*started]

    assert begun("workers=3") == [(2, WORKERS_IMPORT[:1])]
    assert begun("workers=1") == begun("trainer.device=cuda") == []
    (tmp_path / "e.json").touch()
    assert begun("workers=3") == []
    evaluationrequest.start_workers(evaluation_of(load_recipe(DIGITS, ["evaluation.workers=2", f"output.path={tmp_path}"])))
    assert started == [(2, WORKERS_IMPORT)]
    assert all(importlib.util.find_spec(module) for module in WORKERS_IMPORT)


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
    assert answer["claim"]["what"] == "wrong less real"
    assert answer["claim"]["difference"] == ran.json["tables"][0]["settings"][0]["comparisons"][0]["difference"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which real images?"),
        (["--real", "{real}"], "which real images are to measure it?"),
        (["--real", "{real}", "--holdout", "{holdout}", "--arms", "real,curated"], "there is no source 'curated'"),
        (["--real", "{real}", "--holdout", "{holdout}", "--arms", "real,real"], "'real' stands twice"),
        (["--real", "{real}", "--holdout", "{holdout}", "--require", "a is better"], "write it like"),
        (["--real", "{real}", "--holdout", "{holdout}", "--require", "real > nothing"], "there is no arm 'nothing'"),
        (["--real", "{real}", "--holdout", "{holdout}", "--require", "real > 0.5 @ 7"], "7 is none of the amounts"),
        (
            ["--real", "{real}", "--holdout", "{holdout}", "--require", "real > 0.5", "--set", "seeds=1"],
            "one training of each arm proves nothing",
        ),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "real_per_class=[1000]"], "real images in the fit part"),
        (["--real", "{real}", "--holdout", "/nonesuch"], "/nonesuch"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "mixing.policy=nonesuch"], "mixing.policy"),
        (["--real", "/nonesuch", "--holdout", "{holdout}"], "/nonesuch"),
        (["--real", "{real}", "--holdout", "{named}"], "names must be the same"),
        (["--real", "{real}", "--holdout", "{holdout}", "--synthetic", "{named}"], "names must be the same"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "trainer.network=resnet_18"], "resnet_18"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "trainer.start=probe"], "needs a network with pretrained weights"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "seeds=0"], "seeds"),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "real_per_class=[0]"], "real_per_class.0: "),
        (["--real", "{real}", "--holdout", "{holdout}", "--set", "generators=at/{{amount}}"], "generators is about a recipe's generator"),
        ([str(DIGITS), "--synthetic", "{more}"], "not both"),
    ],
)
def test_wrong_requests_are_told_in_a_line(
    cli: Cli, sets: Sets, tmp_path: Path, arguments: list[str], words: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    named = write(tmp_path / "named", per_class(digits(), 0, 2))
    for folder in list(named.iterdir()):
        folder.rename(named / f"digit-{folder.name}")
    places = {**{name: str(getattr(sets, name)) for name in ("real", "holdout", "more")}, "named": str(named)}
    quick = [] if str(DIGITS) in arguments else settings("real_per_class=[10]")
    ran = cli("evaluate", *quick, *[text.format(**places) if "{" in text else text for text in arguments])
    assert ran.status == 2, ran.err
    assert words in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


# Going on


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


@pytest.mark.slow
def test_several_processes_find_what_one_finds(sets: Sets, tmp_path: Path) -> None:
    """With one training to tune by in this process, and then the arms in two."""
    tuned = ("tuning.on=true", "tuning.augmentations=[affine]", "tuning.flip=[false]", "tuning.learning_rates=[0.01, 0.003]", "curve=[5]")
    one = ask(sets, tmp_path / "one", sets.more, arms="real,more-set", more=tuned)
    two = ask(sets, tmp_path / "two", sets.more, arms="real,more-set", more=(*tuned, "workers=2"))
    assert one.tables == two.tables
    assert one.tuned == two.tuned
