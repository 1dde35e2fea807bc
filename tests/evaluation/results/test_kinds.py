"""What comparisons are about, and whether synthetic images are to be used."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from synthforge.evaluation.results.kinds import kind_of, use_of
from synthforge.evaluation.results.types import Kind, Use
from synthforge.recipe.evaluation import ArmConfig
from synthforge.statistics import Word
from tests.evaluation.results import made

NAMES = ("real", "random", "curated", "more", "more-curated", "real+random", "real+curated", "real+more")
ARMS = {name: ArmConfig.model_validate(name) for name in NAMES} | {
    "heap": ArmConfig.model_validate({"name": "heap", "of": ["real", "curated"], "mixing": {"policy": "pooled"}})
}


@pytest.mark.parametrize(
    ("arm", "against", "kind"),
    [
        ("real+random", "real", "adding"),
        ("heap", "real", "adding"),
        ("random", "real", "instead"),
        ("curated", "real", "curated-instead"),
        ("more", "real", "other-real"),
        ("real+more", "real", "more-real"),
        ("curated", "random", "curation"),
        ("real+curated", "real+random", "curation-beside-real"),
        ("more-curated", "more", "rule-on-real"),
        ("real+curated", "real+more", "pair"),
        ("curated", "more", "pair"),
        ("heap", "real+curated", "pair"),
    ],
)
def test_a_comparison_is_about_what_its_arms_hold(arm: str, against: str, kind: Kind) -> None:
    found, words = kind_of(ARMS[arm], ARMS[against])
    assert found == kind and (words == f"{arm} minus {against}") == (kind == "pair")


@pytest.mark.parametrize(
    ("each", "on_average", "use"),
    [
        (["helped", "helped"], "cannot tell", "everywhere"),
        (["cannot tell", "cannot tell"], "helped", "everywhere"),
        (["helped", "cannot tell"], "cannot tell", "where they helped"),
        (["helped", "hurt"], "helped", "where they helped"),
        (["cannot tell", "hurt"], "cannot tell", "no proof"),
        (["cannot tell", "did not help"], "did not help", "nowhere"),
        (["hurt", "cannot tell"], "hurt", "nowhere"),
    ],
)
def test_images_are_used_where_adding_them_helped(each: Sequence[Word], on_average: Word, use: Use) -> None:
    comparisons = [made.comparison(arm, "real", verdict) for arm, verdict in zip(("heap", "real+curated"), each, strict=True)]
    claim = made.claim("adding", "adding", 0.0, verdict=on_average)
    assert use_of(made.table([made.setting(comparisons)], [claim]), ARMS) == use


def test_without_an_arm_that_adds_images_nothing_is_advised() -> None:
    comparison = made.comparison("random", "real", "helped")
    assert use_of(made.table([made.setting([comparison])], [made.claim("instead", "instead", 0.1)]), ARMS) == "not measured"
