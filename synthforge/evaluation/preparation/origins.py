"""Decide which draws to prepare, with pools of which origin, and refuse early what can't be prepared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import MANIFEST
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder, resolve
from synthforge.data.units import Part
from synthforge.errors import RequestError, some
from synthforge.evaluation.preparation.curated import curated_sources
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.results.types import Origin
from synthforge.features.encoders.config import FittedConfig
from synthforge.generation.plan import Plan
from synthforge.generators.pixel.fit_report import was_fitted_on
from synthforge.recipe.evaluation import Amount, EvaluationConfig
from synthforge.recipe.recipe import Recipe

_PREPARED = ("random", "curated", "more-curated")
"""Sources that need a prepared draw. The last holds real images, but curation chooses them."""
_PARTS: tuple[Part, ...] = ("fit", "validation")


@dataclass(frozen=True)
class DrawToPrepare:
    """One draw with pools of one origin, prepared in one go."""

    amount: Amount
    draw: int
    origin: Origin

    @property
    def name(self) -> str:
        """For progress and errors."""
        return f"{self.amount} real images{' per class' * (self.amount != 'all')}, draw {self.draw}"


def draws_to_prepare(reference: Reference, request: MeasurementRequest) -> list[DrawToPrepare]:
    """The draws of all amounts; empty without a recipe.

    Raises RequestError if a generator saw more real images than its budget, or if there is no pool at all.
    """
    recipe, config = request.recipe, request.config
    if recipe is None or not any(source in _PREPARED for arm in config.arms for source in arm.of):
        return []
    return [unit for amount in config.real_per_class for unit in _of_amount(reference, amount, recipe, config)]


def _of_amount(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> list[DrawToPrepare]:
    _require_possible(reference, amount, recipe, config)
    is_own = config.fit is not None or _has_own_generator(reference, amount, recipe, config)
    has_pool = Folder(recipe.pool_path).exists(MANIFEST)
    is_own_pool = is_own and amount == "all" and config.fit is None
    if has_pool and is_own_pool:
        # Nothing is claimed of a generator from elsewhere, so only this pool must come from this very generator.
        plan = Plan.of(recipe)
        DatasetFolder.open(recipe.pool_path).require_same_plan(plan.digest, plan.identity)
    if not has_pool and (is_own_pool or not is_own):
        raise RequestError(
            f"{recipe.pool_path}: no pool there yet; make it first with `synthforge generate`, or have one made with `evaluation.fit`"
        )
    origins: list[Origin] = ["own"] if is_own else []
    if not is_own or (config.elsewhere and has_pool and not is_own_pool):
        origins.append("elsewhere")
    return [DrawToPrepare(amount, number, origin) for origin in origins for number in range(config.draws)]


def _has_own_generator(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> bool:
    """Whether a generator was fitted on just these images; raises RequestError if a named one was not."""
    reading = reference.table.collections[0].reading
    if amount == "all":
        guided = recipe.sampling.real_guidance
        if guided is not None and resolve(guided.reference) != resolve(reference.address):
            return False
        parts = read_labelled(reference.address, reading=reading)
        present = [images for part in _PARTS if (images := parts.get(part)) is not None and images.examples]
        return was_fitted_on(Path(resolve(str(recipe.generator.model))), present)
    if config.generators is None:
        return False
    model = resolve(config.generators.replace("{amount}", str(amount)))
    if not Path(model).exists():
        raise RequestError(f"evaluation.generators: there is no {model}; fit one with --set per_class={amount}, or leave `generators` out")
    if not was_fitted_on(Path(model), [read_labelled(reference.address, reading=reading)["fit"].first_of_each(int(amount))]):
        raise RequestError(
            f"evaluation.generators: {model} was not fitted on just the first {amount} real images of each class, so "
            f"its arms would have seen more than their budget; fit one with --set per_class={amount}, or leave `generators` out"
        )
    return True


def _require_possible(reference: Reference, amount: Amount, recipe: Recipe, config: EvaluationConfig) -> None:
    """Refuse now what would fail only after a generator is fitted; raises RequestError."""
    if lacking := [name for name in reference.classes if name not in recipe.classes]:
        raise RequestError(
            f"evaluation: class {lacking[0]!r} of the real images is not among the recipe's ({', '.join(list(recipe.classes)[:8])}): there "
            "would be no synthetic images of it; add it to `classes`, or leave its real images out"
        )
    if config.fit is not None:
        if recipe.generator.kind != "pixel":
            raise RequestError(
                f"evaluation.fit: fits a generator of kind `pixel`, but the recipe's is `{recipe.generator.kind}`; leave `fit` out, or "
                "make the generator `{kind: pixel, model: none}`"
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
            f"evaluation.real_per_class: {num} real images in total are too few for the {folds} folds of curation's encoder; raise it, or "
            "make the encoder `{kind: pixels}`"
        )
    methods = [arm.selection or recipe.curation.selection.method for arm, _ in curated]
    if "auto" in methods and (amount != "all" or reference.fit.all()):
        raise RequestError(
            f"evaluation: selection `auto` tries rules out on a validation part, but `real_per_class: {amount}` has none; name a rule"
        )
