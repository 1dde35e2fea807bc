"""What `evaluate` and `diagnose` are asked for, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from pydantic import ValidationError

from synthforge.config import Config
from synthforge.data.layout import EVALUATION, digest_of
from synthforge.data.storage import resolve
from synthforge.errors import RequestError
from synthforge.evaluation.results.requirements import Requirement, parsed
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import CHOSEN, MORE, POOL_SOURCES, REAL, ArmConfig, EvaluationConfig
from synthforge.recipe.load import sections_from_sets
from synthforge.recipe.recipe import Recipe

_READING = {"background", "batch", "cache", "columns", "decoders", "device", "encoder"}
"""Fields of the section `curation` that count without a recipe."""
SECTIONS: dict[str, type[Config]] = {"evaluation": EvaluationConfig, "curation": CurationConfig}


def sections_of(recipe: Recipe | None, sets: Sequence[str], sections: Mapping[str, type[Config]] = SECTIONS) -> Mapping[str, Config]:
    """Some sections of a recipe; without one, made from overrides. Raises RecipeError."""
    if recipe is None:
        return sections_from_sets(sections, sets)
    if sets:
        raise RequestError("apply overrides when the recipe is read: load_recipe(path, sets)")
    return {name: getattr(recipe, name) for name in sections}


@dataclass(frozen=True, kw_only=True)
class MeasurementRequest:
    """Classifiers to train and to measure on a held-out test set: what an evaluation and a diagnosis share."""

    reference: str
    """Address of the real images."""
    holdout: str
    """Address of the held-out test set."""
    out: str
    """The file for the result."""
    folder: Path
    """For pools, training sets and predictions."""
    config: EvaluationConfig
    curation: CurationConfig
    recipe: Recipe | None
    """None: `synthetic` sets are measured."""
    synthetic: tuple[tuple[str, str], ...]
    """Name and address of each synthetic set that is given in place of a recipe."""

    @classmethod
    def of(
        cls,
        verb: str,
        recipe: Recipe | None,
        *,
        synthetic: Sequence[str],
        real: str | None,
        holdout: str | None,
        out: str | None,
        sections: Mapping[str, Config],
        file: str,
    ) -> MeasurementRequest:
        """Find real images, test set and places; raises RequestError or RecipeError.

        Args:
            sections: the sections `evaluation` and `curation`, see `sections_of`.
            file: name of the result in the run's folder, for `out` None.
        """
        if recipe is not None and synthetic:
            raise RequestError(f"{verb}: give a recipe, or --synthetic sets with --real and --holdout; not both")
        config, curation = cast("EvaluationConfig", sections["evaluation"]), cast("CurationConfig", sections["curation"])
        if recipe is None and (idle := sorted(config.model_fields_set & {"elsewhere", "fit", "generators"})):
            raise RequestError(f"{verb}: `{idle[0]}` concerns a recipe's generator, but there is no recipe; leave it out, or give a recipe")
        if recipe is None and (idle := sorted(curation.model_fields_set - _READING)):
            raise RequestError(f"{verb}: `{idle[0]}` concerns curation, which is not done without a recipe; leave it out, or give a recipe")
        reference, holdout = real or (recipe.reference if recipe is not None else None), holdout or config.holdout
        if reference is None:
            raise RequestError(f"{verb}: which real images? give the recipe `reference:`, or use --real REAL")
        if holdout is None:
            raise RequestError(
                f"{verb}: which real images are the held-out test set? Give some that are used for nothing else, as the recipe's "
                "`evaluation.holdout` or with --holdout HOLDOUT"
            )
        place = resolve(holdout)
        if "://" not in place and not any(mark in place for mark in "*?{") and not Path(place).exists():
            raise RequestError(f"{holdout}: no such file or folder for the held-out test set; check the path")
        if resolve(reference) == place:
            raise RequestError(f"{holdout}: is both the real images and the held-out test set, which must be used for nothing else")
        beside = resolve(out).rpartition("/")[0] if out is not None else resolve("runs/evaluation")
        run = recipe.run_path if recipe is not None else beside
        return cls(
            reference=reference,
            holdout=holdout,
            out=resolve(out) if out is not None else f"{run}/{file}",
            folder=Path(run) / "evaluation" if "://" not in run else cache_folder(curation) / "evaluation" / digest_of(run)[:16],
            config=config,
            curation=curation,
            recipe=recipe,
            synthetic=tuple(zip(_names(synthetic), synthetic, strict=True)),
        )


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest(MeasurementRequest):
    """An evaluation, checked as far as possible without opening any images."""

    require: tuple[Requirement, ...] = ()


def evaluation_of(
    recipe: Recipe | None,
    *,
    synthetic: Sequence[str] = (),
    real: str | None = None,
    holdout: str | None = None,
    arms: str | None = None,
    out: str | None = None,
    require: Sequence[str] = (),
    sets: Sequence[str] = (),
) -> EvaluationRequest:
    """The evaluation of a recipe, or of synthetic sets; raises RequestError or RecipeError.

    Args:
        arms: names of arms, separated by commas. None: those of the recipe, or every set alone and beside the real
            images.
        require: comparisons that must hold, such as "curated > random".
        sets: overrides without a recipe, of the sections `evaluation` and `curation`; a recipe has had its own.
    """
    sections = sections_of(recipe, sets)
    shared = MeasurementRequest.of(
        "evaluate", recipe, synthetic=synthetic, real=real, holdout=holdout, out=out, sections=sections, file=EVALUATION
    )
    config, names = shared.config, [name for name, _ in shared.synthetic]
    if arms is not None:
        config = _with_arms(config, [name.strip() for name in arms.split(",")])
    elif recipe is None and "arms" not in config.model_fields_set:
        others = [f"{REAL}+{MORE}", MORE] if names else []
        config = _with_arms(config, [REAL, *names, *(f"{REAL}+{name}" for name in names), *others])
    if config.trainer.network != "residual" and any((arm.mixing or config.mixing).policy == "split-norm" for arm in config.arms):
        raise RequestError(f"evaluation.mixing.policy: split-norm is for the residual network, not for {config.trainer.network}")
    known = [REAL, MORE, *(["more-curated", "random", "curated"] if recipe is not None else []), *names]
    if unknown := [source for arm in config.arms for source in arm.of if source not in known]:
        raise RequestError(f"evaluation.arms: there is no source {unknown[0]!r}; there are {', '.join(known)}")
    required = tuple(parsed(text, [arm.name for arm in config.arms], [str(amount) for amount in config.real_per_class]) for text in require)
    if required and config.draws * config.seeds == 1:
        raise RequestError(f"--require {required[0].text!r}: one training run of each arm proves nothing; raise `seeds`")
    return EvaluationRequest(**vars(shared) | {"config": config}, require=required)


def _with_arms(config: EvaluationConfig, names: Sequence[str]) -> EvaluationConfig:
    known = {arm.name: arm for arm in config.arms}
    try:
        arms = [known.get(name) or ArmConfig.model_validate(name) for name in names]
        return EvaluationConfig.model_validate({**{name: getattr(config, name) for name in type(config).model_fields}, "arms": arms})
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise RequestError(f"--arms {','.join(names)}: {reason}; write names such as real,random,real+curated") from error


def _names(addresses: Sequence[str]) -> list[str]:
    """A name for each set: the last part of its address that is not `pool`."""
    names: list[str] = []
    for address in addresses:
        parts = [part for part in Path(address).parts if part not in {"/", "pool"}]
        name = "".join(letter if letter.isalnum() or letter in "_-." else "-" for letter in (parts[-1] if parts else "synthetic"))
        name = name[:50]
        name = f"{name}-set" if name in {REAL, MORE, *POOL_SOURCES, *CHOSEN} else name
        same = sum(other == name or other.rpartition("~")[0] == name for other in names)
        names.append(f"{name}~{same + 1}" if same else name)
    return names
