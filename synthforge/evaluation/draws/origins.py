"""Which draws are to be prepared, with pools of which origin; and a refusal, before anything is made, of what can't be prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import MANIFEST
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder, resolve
from synthforge.data.units import Part
from synthforge.errors import RequestError, some
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.results.types import Origin
from synthforge.features.encoders.config import FittedConfig
from synthforge.generation.plan import Plan
from synthforge.generators.pixel.report import was_fitted_on
from synthforge.recipe.evaluation import Amount, ArmConfig, EvaluationConfig
from synthforge.recipe.recipe import Recipe

_SYNTHETIC = ("random", "curated", "more-curated")
"""Sources that draws are prepared for; the last is real, but curation chooses it."""
_PARTS: tuple[Part, ...] = ("fit", "validation")


@dataclass(frozen=True)
class DrawToPrepare:
    """One draw with pools of one origin, which are prepared in one go."""

    amount: Amount
    draw: int
    origin: Origin


def curated_sources(config: EvaluationConfig) -> list[tuple[ArmConfig, str]]:
    """Every arm with each of its sources that curation chooses."""
    return [(arm, source) for arm in config.arms for source in arm.of if source.endswith("curated")]


def draws_to_prepare(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> list[DrawToPrepare]:
    """The draws of one amount; raises RequestError for a generator that has seen more than its budget, or no pool at all."""
    if not any(source in _SYNTHETIC for arm in config.arms for source in arm.of):
        return []
    _require_possible(reference, amount, recipe, config)
    is_own = config.fit is not None or _has_own_generator(reference, amount, recipe, config)
    has_pool = Folder(recipe.pool_path).exists(MANIFEST)
    is_own_pool = is_own and amount == "all" and config.fit is None
    if has_pool and is_own_pool:
        # What lies there must be of this very generator. Of one from elsewhere nothing is claimed, so none is loaded.
        plan = Plan.of(recipe)
        DatasetFolder.open(recipe.pool_path).require_same_plan(plan.digest, plan.identity)
    if not has_pool and (is_own_pool or not is_own):
        raise RequestError(
            f"{recipe.pool_path}: no pool there yet; make it first with `synthforge generate`, or let evaluation.fit make one"
        )
    origins: list[Origin] = ["own"] if is_own else []
    if not is_own or (config.elsewhere and has_pool and not is_own_pool):
        origins.append("elsewhere")
    return [DrawToPrepare(amount, number, origin) for origin in origins for number in range(config.draws)]


def _has_own_generator(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> bool:
    """Is there a generator that was fitted on just these images? Raises RequestError for one that is named and was not."""
    if amount == "all":
        guided = recipe.sampling.real_guidance
        if guided is not None and resolve(guided.reference) != resolve(reference.address):
            return False
        parts = read_labelled(reference.address)
        present = [found for part in _PARTS if (found := parts.get(part)) is not None and found.examples]
        return was_fitted_on(Path(resolve(str(recipe.generator.model))), present)
    if config.generators is None:
        return False
    model = resolve(config.generators.replace("{amount}", str(amount)))
    if not Path(model).exists():
        raise RequestError(f"evaluation.generators: there is no {model}; fit one with --set per_class={amount}, or leave generators out")
    if not was_fitted_on(Path(model), [read_labelled(reference.address)["fit"].first_of_each(int(amount))]):
        raise RequestError(
            f"evaluation.generators: {model} was not fitted on just the first {amount} real images of each class, so "
            f"its arms would have seen more than their budget; fit one with --set per_class={amount}, or leave generators out"
        )
    return True


def _require_possible(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> None:
    """Refuse now what would fail only once a generator is fitted."""
    if lacking := [name for name in reference.classes if name not in recipe.classes]:
        raise RequestError(
            f"evaluation: class {lacking[0]!r} of the real images is not among the recipe's ({', '.join(list(recipe.classes)[:8])}): there "
            "would be no synthetic images of it; add it to `classes`, or leave its real images out"
        )
    if config.fit is not None:
        if recipe.generator.kind != "pixel":
            raise RequestError(
                f"evaluation.fit: fits a generator of kind pixel, and the recipe's is {recipe.generator.kind}; leave fit out, or make the "
                "generator `{kind: pixel, model: none}`"
            )
        labels = {str(name if spec.label is None else spec.label) for name, spec in recipe.classes.items()}
        if missing := sorted(labels - set(reference.classes)):
            raise RequestError(
                f"evaluation.fit: class {missing[0]!r} of the recipe is not among the real images' ({some(reference.classes)}); "
                "leave it out, or add images of it"
            )
    curated = curated_sources(config)
    encoder = recipe.curation.encoder or FittedConfig()
    folds = encoder.folds if isinstance(encoder, FittedConfig) and encoder.model is None and curated else 0
    if isinstance(amount, int) and (num := amount * len(reference.classes)) < 2 * folds:
        raise RequestError(
            f"evaluation.real_per_class: {num} real images in all are too few for the {folds} folds of curation's encoder; raise it, or "
            "make the encoder `{kind: pixels}`"
        )
    methods = [arm.selection or recipe.curation.selection.method for arm, _ in curated]
    if "auto" in methods and (amount != "all" or reference.fit.all()):
        raise RequestError(
            f"evaluation: selection `auto` tries rules out on a validation part, and {amount} real images have none; name a rule"
        )
