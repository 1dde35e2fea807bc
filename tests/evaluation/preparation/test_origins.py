"""Which pools are evaluated: those of generators that have seen no more than their budget, and apart from these all
others."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from synthforge.data.storage import resolve
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, Ran, small
from tests.evaluation.sets import run, sets_of

Cli = Callable[..., Ran]


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
    assert "trained elsewhere" not in both.verdict
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


def test_without_a_pool_it_is_said_how_to_make_one(cli: Cli, tmp_path: Path) -> None:
    given = [part for text in sets_of(tmp_path, "evaluation.generators=null") for part in ("--set", text)]
    ran = cli("evaluate", DIGITS, *given)
    assert ran.status == 2
    assert "no pool there yet; make it first with `synthforge generate`" in ran.err


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
