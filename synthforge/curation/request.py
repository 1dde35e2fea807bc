"""What `curate` is asked for on the command line: a recipe, or pools and real images without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from synthforge.data.layout import MANIFEST
from synthforge.data.storage import Folder
from synthforge.errors import RequestError
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import RECIPES, config_from_sets, load_recipe
from synthforge.recipe.recipe import Recipe


@dataclass(frozen=True)
class CurationRequest:
    """A curation that was asked for."""

    pools: Sequence[str]
    """Dataset folders, WebDataset tars (also img2dataset's), folders of images by class, or `datasets` on disk."""
    reference: str
    """Real images in any of these forms. Its validation part sets thresholds; its fit part is what is matched."""
    out: str
    """The curated folder."""
    config: CurationConfig = field(default_factory=CurationConfig)
    name: str = "curated"
    """For the dataset card, as are the licence and the tags."""
    licence: str | None = None
    tags: Sequence[str] = ()


def request_of(sources: Sequence[str], real: str | None, out: str | None, sets: Sequence[str] = ()) -> CurationRequest:
    """What the command line asks for; raises RequestError or RecipeError."""
    if not all([*sources, real != "", out != ""]):
        raise RequestError("curate: an address is empty; give a pool, --real and --out as paths or addresses")
    recipes = [source for source in sources if source.endswith(RECIPES)]
    if not recipes:
        if real is None or out is None:
            missing = [option for option, given in (("--real REAL", real), ("--out FOLDER", out)) if given is None]
            raise RequestError(f"curate: without a recipe it also needs {' and '.join(missing)}")
        return CurationRequest(list(sources), real, out, config_from_sets(CurationConfig, sets))
    if len(sources) > 1:
        raise RequestError(f"curate: give one recipe, or pools; not {', '.join(sources)} together")
    recipe = load_recipe(recipes[0], sets)
    if not Folder(recipe.pool_path).exists(MANIFEST):
        raise RequestError(f"{recipe.pool_path}: no pool there yet; make it first: synthforge generate {recipes[0]}")
    return of_recipe(recipe, real, out)


def of_recipe(recipe: Recipe, real: str | None = None, out: str | None = None) -> CurationRequest:
    """A recipe's curation: its pool matched to its reference."""
    reference = real or recipe.reference
    if reference is None:
        raise RequestError("curate: the recipe names no real images; give it `reference:`, or use --real REAL")
    return CurationRequest(
        [recipe.pool_path],
        reference,
        out or recipe.curated_path,
        recipe.curation,
        name=f"{recipe.name}, curated",
        licence=recipe.output.licence,
        tags=recipe.output.tags,
    )
