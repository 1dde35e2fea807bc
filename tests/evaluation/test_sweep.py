"""Evaluations of recipes: what is made for each amount of real data, with generators that have seen no more than that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.data.reading import read_labelled
from synthforge.data.storage import resolve
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.results.types import EvaluateResult
from synthforge.evaluation.run import evaluate
from synthforge.evaluation.sets import Images
from synthforge.evaluation.trainer.jobs import TrainWork, read_result
from synthforge.evaluation.tuning import Tuning
from synthforge.evaluation.work import Beside, EvaluationWork
from synthforge.executors.protocol import Place
from synthforge.generation.run import generate
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import ArmConfig, EvaluationConfig
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, FORKS, Ran, small
from tests.evaluation.sets import QUICK, tripwire
from tests.features.clips import write_clip

Cli = Callable[..., Ran]


def sets_of(out: Path, *more: str) -> list[str]:
    quick = [f"evaluation.{text}" for text in QUICK]
    curation = ["curation.encoder={kind: pixels, resolution: 8}", f"curation.cache={out / 'cache'}"]
    few = ["evaluation.curve=[4]", "evaluation.real_per_class=[5]", "evaluation.arms=[real, random, curated, real+curated]"]
    return [*small(out, total=100, per_shard=50), *quick, *curation, *few, *more]


def run(out: Path, *more: str) -> EvaluateResult:
    return evaluate(evaluation_of(str(DIGITS), sets=sets_of(out, *more)))


def test_generators_that_are_there_give_a_table_of_their_own(tmp_path: Path) -> None:
    result = run(tmp_path, "evaluation.arms=[real, random, curated, real+curated, more, more-curated, real+more]")
    (table,) = result.tables
    (setting,) = table.settings
    assert table.origin == "own"
    assert table.generator == "builtin:digits/generator-5-per-class"
    assert (setting.budget, setting.missing) == (50, {})
    assert {name: score.images for name, score in setting.arms.items()} == {
        **dict.fromkeys(["real", "random", "curated", "more", "more-curated"], 50),
        **dict.fromkeys(["real+curated", "real+more"], 100),
    }
    compared = {(one.arm, one.against) for one in setting.comparisons}
    assert {("curated", "random"), ("more-curated", "more"), ("real+curated", "real"), ("real+more", "real")} <= compared


def test_generating_curating_preparing_and_tuning_open_no_holdout(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recipe that names one."""
    import synthforge.evaluation.measure as verb

    events, tune = ["start"], verb.tune
    monkeypatch.setattr(verb, "tune", lambda *given: (events.append("tuning"), tune(*given), events.append("tuned"))[1])
    tuning = ["evaluation.tuning.on=true", "evaluation.tuning.augmentations=[affine, shift]"]
    sets = [part for text in sets_of(tmp_path, *tuning) for part in ("--set", text)]
    with tripwire(Path(resolve("builtin:digits/holdout")), lambda: events[-1]) as opened:
        assert cli("generate", DIGITS, *sets).status == 0
        assert cli("curate", DIGITS, *sets).status == 0
        (pool,) = tmp_path.rglob("pool")
        for command in (
            ("plan", DIGITS, *sets, "--measure"),
            ("preview", DIGITS, *sets, "--out", tmp_path / "preview.png", "--per-class", 1),
            ("status", pool),
            ("verify", pool),
            ("show", 3, pool),
            ("recipe", "check", DIGITS),
            ("fit", "builtin:digits/reference", "--out", tmp_path / "fitted", "--set", "loop.images=2000", "--set", "loop.checks=2"),
        ):
            assert cli(*command).status == 0, command
        assert not opened
        evaluate(evaluation_of(str(DIGITS), sets=sets_of(tmp_path, *tuning)))
    assert opened == {"tuned"}


def test_a_generator_that_has_seen_more_than_its_budget_is_refused(tmp_path: Path) -> None:
    shutil.copytree(resolve("builtin:digits/generator-10-per-class"), tmp_path / "generator-5")
    with pytest.raises(Exception, match="was not fitted on just the first 5 real images of each class") as caught:
        run(tmp_path, f"evaluation.generators={tmp_path}/generator-{{amount}}")
    assert "\n" not in str(caught.value)


def test_the_pool_of_a_generator_that_has_seen_more_is_in_another_table(tmp_path: Path) -> None:
    generate(load_recipe(str(DIGITS), sets_of(tmp_path)))
    result = run(tmp_path, "evaluation.generators=null", "evaluation.elsewhere=true")
    assert [table.origin for table in result.tables] == ["elsewhere"]
    both = run(tmp_path, "evaluation.elsewhere=true")
    assert [table.origin for table in both.tables] == ["own", "elsewhere"]
    assert "from elsewhere" not in both.verdict
    own, elsewhere = (table.settings[0].arms for table in both.tables)
    assert own["real"] == elsewhere["real"]
    assert own["random"].accuracy != elsewhere["random"].accuracy
    assert elsewhere.keys() == result.tables[0].settings[0].arms.keys()


@pytest.mark.slow
def test_the_whole_reference_and_a_generator_fitted_on_it_are_of_one_budget(tmp_path: Path) -> None:
    generate(load_recipe(str(DIGITS), small(tmp_path, total=1000, per_shard=500)))
    result = run(tmp_path, "evaluation.real_per_class=[all]", "count={total: 1000}", "output.samples_per_shard=500")
    (table,) = result.tables
    assert (table.origin, table.settings[0].budget) == ("own", 1000)


@pytest.mark.slow
def test_what_an_encoder_of_unknown_origin_chose_is_in_the_other_table(tmp_path: Path) -> None:
    generate(load_recipe(str(DIGITS), small(tmp_path, total=1000, per_shard=500)))
    encoder = f"curation.encoder={{kind: open_clip, model: {write_clip(tmp_path / 'clip')}}}"
    result = run(tmp_path, "evaluation.real_per_class=[all]", "count={total: 1000}", "output.samples_per_shard=500", encoder)
    assert [table.origin for table in result.tables] == ["elsewhere"]
    assert set(result.tables[0].settings[0].arms) == {"real", "random", "curated", "real+curated"}
    assert "may have seen more real images than the arms have" in result.verdict


def test_a_draw_of_which_nothing_passes_the_gates_lacks_that_arm_and_no_other(tmp_path: Path) -> None:
    result = run(tmp_path, "curation.gates.copies.factor=10", "curation.gates.copies.loss=0.99")
    (setting,) = result.tables[0].settings
    assert set(setting.arms) == {"real", "random"}
    assert setting.missing["curated"] == "there are no images of curated"
    assert any("no image passes the gates" in note for note in result.notes)


def test_an_unfinished_pool_from_elsewhere_is_told_and_named_by_its_own_model(tmp_path: Path) -> None:
    generate(load_recipe(str(DIGITS), sets_of(tmp_path)))
    gone = sorted((tmp_path / "pool").glob("train-000001.*"))
    for path in [*gone, tmp_path / "pool" / "complete.json"]:
        path.unlink()
    changed = "generator.model=builtin:digits/generator-50-per-class"
    result = run(tmp_path, "evaluation.generators=null", "evaluation.elsewhere=true", "evaluation.arms=[real, random]", changed)
    assert result.tables[0].generator == "builtin:digits/generator"
    assert any("1 of 2 shards are not made yet" in note for note in result.notes)


@pytest.mark.slow
def test_two_workers_prepare_what_one_does(tmp_path: Path) -> None:
    """And tune meanwhile, of which nothing but the result is told."""
    amounts = ("evaluation.real_per_class=[5, 10]", "evaluation.seeds=1", "evaluation.tuning.on=true")
    one, two = run(tmp_path / "one", *amounts), run(tmp_path / "two", *amounts, "evaluation.workers=2")
    assert one.tables == two.tables
    assert one.tuned == two.tuned
    assert len(one.tuned[0].scores) > 1


def test_a_training_beside_the_draws_tells_no_progress_and_leaves_its_result(tmp_path: Path) -> None:
    request = evaluation_of(str(DIGITS), sets=sets_of(tmp_path, "evaluation.tuning.on=true", "evaluation.trainer.resolution=8"))
    reference = Reference.open(request.reference, tmp_path, Reporter())
    draws = reference.draws(5, request.config)
    training = Tuning.of(draws, request.config.trainer, request.config, request.folder, len(reference.classes)).trainings[0]
    work = EvaluationWork(TrainWork(request.folder, tmp_path, "cpu", 1), None)
    told: list[int] = []
    assert list(work.open(Place(0, 1)).run(iter([Beside(training)]), told.append)) == [(Beside(training), training.digest)]
    assert set(told) == {0}
    assert read_result(request.folder, training) is not None


def test_without_a_pool_it_is_said_how_to_make_one(cli: Cli, tmp_path: Path) -> None:
    given = [part for text in sets_of(tmp_path, "evaluation.generators=null") for part in ("--set", text)]
    ran = cli("evaluate", DIGITS, *given)
    assert ran.status == 2
    assert "no pool there yet; make it first with `synthforge generate`" in ran.err


@pytest.mark.slow
def test_fitting_inside_the_sweep_sees_each_draw_and_nothing_else(tmp_path: Path) -> None:
    fitted = "evaluation.fit={loop: {images: 2000, checks: 2}, threads: 1}"
    result = run(tmp_path, fitted, "evaluation.generators=null", "evaluation.draws=2", "evaluation.arms=[real, random, curated]")
    (table,) = result.tables
    assert (table.origin, table.generator) == ("own", "fitted on these images")
    assert table.settings[0].arms["random"].interval_over == "draws and images"
    folders = sorted(path for path in (tmp_path / "evaluation").glob("real-5-draw-*"))
    assert len(folders) == 2
    of_draw = []
    for folder in folders:
        report = json.loads((folder / "generator" / "fit.json").read_bytes())
        assert (report["real_budget"], report["images_validation"]) == (50, 0)
        of_draw.append({example.sha256 for example in read_labelled(str(folder / "reference"))["fit"].examples})
    reference = read_labelled("builtin:digits/reference")["fit"]
    assert not of_draw[0] & of_draw[1]
    assert of_draw[0] | of_draw[1] < {example.sha256 for example in reference.examples}


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


def test_draws_share_as_few_images_as_they_can_and_more_draws_change_none() -> None:
    reference = Reference.open("builtin:digits/reference", cache_folder(CurationConfig()), Reporter())

    def held(amount: int, draws: int) -> list[set[str]]:
        config = EvaluationConfig(draws=draws, real_per_class=[amount])
        return [set(draw.fit.sha256_N) for draw in reference.draws(amount, config)]

    five = held(5, 5)
    assert all(len(one) == 50 for one in five)
    assert len(set.union(*five)) == 250
    assert five == held(5, 6)[:5]
    assert all(small < large for small, large in zip(five, held(50, 5), strict=True))
    assert len(set.union(*held(50, 2))) == sum(reference.fit)
    assert held(5, 1) == five[:1]


def test_a_weighted_set_gives_arms_of_equal_size_and_keeps_its_weights() -> None:
    """Of a class of 40 half counts nothing, and half 3 times; 20 are wanted, or as many as there are."""
    real, pool = (_images(num, is_real) for num, is_real in ((10, True), (40, False)))
    pool = replace(pool, weight_N=np.where(np.arange(80) % 2 == 0, 0.0, 3.0))
    draw = RealDraw(10, 0, real, None, real.take(np.arange(0)))
    arm = ArmConfig.model_validate("curated")
    for ratio, num in ((1.5, 15), (5.0, 20)):
        setting = Setting(draw, ratio, "own", {arm.key_of("curated"): pool})
        (part,) = setting.parts(arm, 0, 2, {})
        assert not isinstance(part, str)
        assert part.per_class(2).tolist() == [num, num]
        assert set(part.weight_N) == {3.0}


def _images(per_class: int, is_real: bool) -> Images:
    num = 2 * per_class
    names = np.array([f"{is_real} {row}" for row in range(num)], object)
    return Images("x", np.arange(num), np.repeat([0, 1], per_class), names, is_real, np.ones(num))


def test_what_could_never_be_prepared_is_refused_at_once(cli: Cli, tmp_path: Path) -> None:
    for setting, words in (
        ("evaluation.curve=[4, 5000]", "evaluation.curve: 5000 asked for"),
        ("evaluation.synthetic_per_real=[0.05]", "0.05 for each of 5 real images is no image at all"),
        ("evaluation.synthetic_per_real=[2, 0.1]", "0.1 for each of 5 real images is no image at all"),
        ("curation.selection.method=auto", "selection `auto` tries rules out on a validation part"),
    ):
        given = [part for text in sets_of(tmp_path, setting) for part in ("--set", text)]
        ran = cli("evaluate", DIGITS, *given)
        assert ran.status == 2
        assert words in ran.err
    fitted = ["evaluation.generators=null", "evaluation.fit={}"]
    for classes, words in (
        ("classes=[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, x]", "class 'x' of the recipe is not among the real images'"),
        ("classes=[0, 1, 2]", "class '3' of the real images is not among the recipe's"),
    ):
        ran = cli("evaluate", DIGITS, *[part for text in sets_of(tmp_path, *fitted, classes) for part in ("--set", text)])
        assert ran.status == 2
        assert words in ran.err
    assert not list((tmp_path / "evaluation").glob("real-*"))


def test_another_number_of_synthetic_images_fits_no_generator_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = [
        "evaluation.fit={loop: {images: 1000, checks: 1}, threads: 1}",
        "evaluation.generators=null",
        "evaluation.arms=[real, random]",
    ]
    run(tmp_path, *fitted)
    monkeypatch.setattr("synthforge.generators.pixel.fit.fit", lambda *_: pytest.fail("fitted again"))
    result = run(tmp_path, *fitted, "count={total: 150}")
    assert result.tables[0].settings[0].arms["random"].images == 50


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
