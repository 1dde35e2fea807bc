"""What `evaluate` is asked for on the command line, checked before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from synthforge.data.layout import digest_of
from synthforge.data.storage import resolve
from synthforge.errors import RequestError
from synthforge.evaluation.results.requirements import Requirement, parsed
from synthforge.executors.process import start_early
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import CHOSEN, DIAGNOSIS_ARMS, MORE, POOL_SOURCES, REAL, ArmConfig, DiagnosisConfig, EvaluationConfig
from synthforge.recipe.load import config_from_sets
from synthforge.recipe.recipe import Recipe

RESULT, DIAGNOSIS = "evaluation.json", "diagnosis.json"
WORKERS_IMPORT = ("synthforge.evaluation.work", "diffusers.pipelines.pipeline_utils")
"""What takes long to import; the second for recipes, of which workers make pools."""


@dataclass(frozen=True)
class Request:
    """An evaluation that was asked for, checked as far as it can be without opening anything."""

    reference: str
    holdout: str
    out: str
    """The file for the result."""
    folder: Path
    """For everything that is made on the way."""
    config: EvaluationConfig
    curation: CurationConfig
    recipe: Recipe | None = None
    synthetic: tuple[tuple[str, str], ...] = ()
    """Names and addresses of sets that were given apart from a recipe."""
    require: tuple[Requirement, ...] = ()
    diagnosis: DiagnosisConfig | None = None
    """Ask what is wrong with the images, and not what they are worth."""
    rendered: str | None = None
    """For a diagnosis of a set that was given apart from a recipe: the real images as its generator renders them."""


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
) -> Request:
    """What is to be evaluated; raises RequestError or RecipeError.

    Args:
        sets: overrides of the evaluation's fields where there is no recipe; a recipe has had its own.
    """
    if recipe is not None and sets:
        raise RequestError("evaluate: apply overrides when the recipe is read: load_recipe(path, sets)")
    if recipe is not None and synthetic:
        raise RequestError("evaluate: give a recipe, or --synthetic sets with --real and --holdout; not both")
    config = recipe.evaluation if recipe is not None else config_from_sets(EvaluationConfig, sets)
    if recipe is None and (idle := sorted(config.model_fields_set & {"elsewhere", "fit", "generators"})):
        raise RequestError(f"evaluate: {idle[0]} is about a recipe's generator, and there is no recipe; leave it out, or give one")
    named = tuple(zip(_names(synthetic), synthetic, strict=True))
    if arms is not None:
        config = _with_arms(config, [name.strip() for name in arms.split(",")])
    elif recipe is None and "arms" not in config.model_fields_set:
        others = [f"{REAL}+{MORE}", MORE] if named else []
        config = _with_arms(config, [REAL, *(name for name, _ in named), *(f"{REAL}+{name}" for name, _ in named), *others])
    reference, holdout = real or (recipe.reference if recipe is not None else None), holdout or config.holdout
    if reference is None:
        raise RequestError("evaluate: which real images? give the recipe `reference:`, or use --real REAL")
    if holdout is None:
        raise RequestError(
            "evaluate: which real images are to measure it? Give some that are used for nothing else, as the recipe's "
            "`evaluation.holdout` or with --holdout HOLDOUT"
        )
    place = resolve(holdout)
    if "://" not in place and not any(mark in place for mark in "*?{") and not Path(place).exists():
        raise RequestError(f"{holdout}: no such holdout; check the path")
    if config.trainer.network != "residual" and any((arm.mixing or config.mixing).policy == "split-norm" for arm in config.arms):
        raise RequestError(f"evaluation.mixing.policy: split-norm is for the residual network, not for {config.trainer.network}")
    if resolve(reference) == place:
        raise RequestError(f"{holdout}: is both holdout and real images; a holdout must be used for nothing else")
    known = [REAL, MORE, *(["more-curated", "random", "curated"] if recipe is not None else []), *(name for name, _ in named)]
    if unknown := [source for arm in config.arms for source in arm.of if source not in known]:
        raise RequestError(f"evaluation.arms: there is no source {unknown[0]!r}; there are {', '.join(known)}")
    required = tuple(parsed(text, [arm.name for arm in config.arms], [str(amount) for amount in config.real_per_class]) for text in require)
    if required and config.draws * config.seeds == 1:
        raise RequestError(f"--require {required[0].text!r}: one training of each arm proves nothing; raise seeds")
    beside = resolve(out).rpartition("/")[0] if out is not None else resolve("runs/evaluation")
    run = recipe.run_path if recipe is not None else beside
    curation = recipe.curation if recipe is not None else CurationConfig()
    folder = Path(run) / "evaluation" if "://" not in run else cache_folder(curation) / "evaluation" / digest_of(run)[:16]
    result = resolve(out) if out is not None else f"{run}/{RESULT}"
    return Request(reference, holdout, result, folder, config, curation, recipe, named, required)


def diagnosis_of(
    recipe: Recipe | None,
    *,
    synthetic: str | None = None,
    real: str | None = None,
    holdout: str | None = None,
    rendered: str | None = None,
    out: str | None = None,
    sets: Sequence[str] = (),
) -> Request:
    """The same of a diagnosis: amounts, draws, seeds and classifier are the evaluation's. Raises RequestError or RecipeError."""
    if recipe is None and synthetic is None:
        raise RequestError("diagnose: which images? give a recipe, or --synthetic SET with --real and --holdout")
    if recipe is not None and rendered is not None:
        raise RequestError("diagnose: --rendered is for --synthetic sets; a recipe's generator renders the real images itself")
    prefix = "diagnosis."
    own = [text.removeprefix(prefix) for text in sets if text.startswith(prefix)]
    others = [text for text in sets if not text.startswith(prefix)]
    asked = evaluation_of(recipe, synthetic=[synthetic] if synthetic is not None else [], real=real, holdout=holdout, out=out, sets=others)
    config = recipe.diagnosis if recipe is not None else config_from_sets(DiagnosisConfig, own)
    amounts = config.real_per_class or asked.config.real_per_class
    update = {
        "arms": [ArmConfig(name=name, of=[name]) for name in DIAGNOSIS_ARMS],
        "real_per_class": [*amounts],
        "curve": [*amounts],
        "synthetic_per_real": [1.0],
        "steps_check": False,
    }
    place = asked.out if out is not None else f"{asked.out.rpartition('/')[0]}/{DIAGNOSIS}"
    return replace(asked, config=asked.config.model_copy(update=update), out=place, diagnosis=config, rendered=rendered)


def start_workers(request: Request) -> None:
    """Start two of the workers now if several will be wanted: they import what they need while the caller still imports and reads."""
    config = request.config
    wanted = config.workers or (os.cpu_count() if config.trainer.device in {"auto", "cpu"} else 1) or 1
    if wanted > 1 and not os.path.exists(request.out):  # what was evaluated before has little left to do
        start_early(2, WORKERS_IMPORT if request.recipe is not None else WORKERS_IMPORT[:1])


def _with_arms(config: EvaluationConfig, names: Sequence[str]) -> EvaluationConfig:
    known = {arm.name: arm for arm in config.arms}
    try:
        arms = [known.get(name) or ArmConfig.model_validate(name) for name in names]
        return EvaluationConfig.model_validate({**{name: getattr(config, name) for name in type(config).model_fields}, "arms": arms})
    except ValidationError as error:
        told = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise RequestError(f"--arms {','.join(names)}: {told}; write names such as real,random,real+curated") from error


def _names(addresses: Sequence[str]) -> list[str]:
    """A name for each set: the last part of its address that says something."""
    names: list[str] = []
    for address in addresses:
        parts = [part for part in Path(address).parts if part not in {"/", "pool"}]
        name = "".join(letter if letter.isalnum() or letter in "_-." else "-" for letter in (parts[-1] if parts else "synthetic"))
        name = name[:50]
        name = f"{name}-set" if name in {REAL, MORE, *POOL_SOURCES, *CHOSEN} else name
        same = sum(other == name or other.rpartition("~")[0] == name for other in names)
        names.append(f"{name}~{same + 1}" if same else name)
    return names
