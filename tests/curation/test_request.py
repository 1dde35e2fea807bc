"""Requests to `curate` from the words of a command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from synthforge.curation.request import CurationRequest, of_recipe, request_of
from synthforge.errors import RecipeError, RequestError
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, Ran

Cli = Callable[..., Ran]


def test_pools_and_real_images_without_a_recipe() -> None:
    request = request_of(["a", "b"], "real", "out", ["selection.method=nearest"])
    assert (list(request.pools), request.reference, request.out) == (["a", "b"], "real", "out")
    assert request.config.selection.method == "nearest"


def test_a_recipe_gives_pool_reference_place_and_card(tmp_path: Path) -> None:
    sets = [f"output.path={tmp_path}", "output.licence=cc-by-4.0", "output.tags=[tiny]", "curation.samples_per_shard=7"]
    recipe = load_recipe(DIGITS, sets)
    request = of_recipe(recipe)
    assert list(request.pools) == [f"{tmp_path}/pool"] and request.out == f"{tmp_path}/curated"
    assert (request.licence, list(request.tags), request.name) == ("cc-by-4.0", ["tiny"], f"{recipe.name}, curated")
    assert request.config.samples_per_shard == 7 and request.reference == recipe.reference
    other = of_recipe(recipe, "photos", "elsewhere")
    assert (other.reference, other.out) == ("photos", "elsewhere")


@pytest.mark.parametrize(
    ("sources", "real", "out", "words"),
    [
        (["a"], None, "out", "also needs --real REAL$"),
        (["a"], None, None, "also needs --real REAL and --out FOLDER$"),
        (["a", ""], "real", "out", "an address is empty"),
        (["a"], "", "out", "an address is empty"),
        (["r.yaml", "a"], "real", "out", "give one recipe, or pools; not r.yaml, a together"),
    ],
)
def test_what_is_missing_or_too_much_is_named(sources: list[str], real: str | None, out: str | None, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        request_of(sources, real, out)


def test_a_recipe_without_real_images_needs_some(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, [f"output.path={tmp_path}"]).model_copy(update={"reference": None})
    with pytest.raises(RequestError, match="names no real images"):
        of_recipe(recipe)
    assert isinstance(of_recipe(recipe, "photos"), CurationRequest)


def test_a_mistake_in_a_setting_is_that_of_the_setting() -> None:
    with pytest.raises(RecipeError, match="did you mean 'method'"):
        request_of(["a"], "real", "out", ["selection.methd=mmd"])


def test_a_recipe_whose_pool_is_not_made_yet(cli: Cli, tmp_path: Path) -> None:
    ran = cli("curate", DIGITS, "--set", f"output.path={tmp_path}")
    assert ran.status == 2 and "no pool there yet; make it first: synthforge generate" in ran.err and ran.err.count("\n") == 1
