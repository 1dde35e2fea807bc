"""A request to `curate`: from a recipe, or from pools and real images named on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

from synthforge.data.layout import MANIFEST
from synthforge.data.storage import Folder
from synthforge.errors import RequestError
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import RECIPES, load_recipe, sections_from_sets
from synthforge.recipe.recipe import Recipe


@dataclass(frozen=True)
class CurationRequest:
    """Arguments of `curate`."""

    pools: Sequence[str]
    """Synthetic images: dataset folders, WebDataset tars (also img2dataset's), image folders by class, or
    `datasets`."""
    reference: str
    """Real images in any of these forms. Their fit part is matched; their validation part sets thresholds."""
    out: str
    """Folder of the curated set."""
    config: CurationConfig = field(default_factory=CurationConfig)
    name: str = "curated"
    """Title of the dataset card."""
    licence: str | None = None
    """Licence of the images in the dataset card. None: the card names no licence."""
    tags: Sequence[str] = ()
    """Further tags for the dataset card."""


def request_of(sources: Sequence[str], real: str | None, out: str | None, sets: Sequence[str] = ()) -> CurationRequest:
    """The request of a command line; raises RequestError or RecipeError.

    Args:
        sources: one recipe file, or pools.
        real, out: needed without a recipe; with one they replace its reference and the curated folder of its run.
        sets: overrides of the form `dotted.path=value`.
    """
    if not all([*sources, real != "", out != ""]):
        raise RequestError("curate: an address is empty; give a pool, --real and --out as paths or addresses")
    recipes = [source for source in sources if source.endswith(RECIPES)]
    if not recipes:
        if real is None or out is None:
            missing = [option for option, value in (("--real REAL", real), ("--out FOLDER", out)) if value is None]
            raise RequestError(f"curate: without a recipe it also needs {' and '.join(missing)}")
        config = sections_from_sets({"curation": CurationConfig}, sets)["curation"]
        return CurationRequest(list(sources), real, out, cast("CurationConfig", config))
    if len(sources) > 1:
        raise RequestError(f"curate: give one recipe, or pools; not {', '.join(sources)} together")
    recipe = load_recipe(recipes[0], sets)
    if not Folder(recipe.pool_path).exists(MANIFEST):
        raise RequestError(f"{recipe.pool_path}: no pool there yet; make it first: synthforge generate {recipes[0]}")
    return of_recipe(recipe, real, out)


def of_recipe(recipe: Recipe, real: str | None = None, out: str | None = None) -> CurationRequest:
    """The request of a recipe: its pool, matched to its reference. Raises RequestError if there is no reference."""
    reference = real or recipe.reference
    if reference is None:
        raise RequestError("curate: the recipe names no real images; give it `reference:`, or use --real REAL")
    card = recipe.output
    place = out or recipe.curated_path
    name = f"{recipe.name}, curated"
    return CurationRequest([recipe.pool_path], reference, place, recipe.curation, name=name, licence=card.licence, tags=card.tags)
