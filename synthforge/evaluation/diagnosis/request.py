"""What `diagnose` is asked for, checked before anything heavy is imported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from synthforge.data.layout import DIAGNOSIS
from synthforge.errors import RequestError
from synthforge.evaluation.request import MeasurementRequest, sections_of
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.evaluation import DIAGNOSIS_ARMS, ArmConfig, DiagnosisConfig, EvaluationConfig
from synthforge.recipe.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class DiagnosisRequest(MeasurementRequest):
    """A diagnosis, checked as far as possible without opening any images."""

    diagnosis: DiagnosisConfig
    rendered: str | None = None
    """Without a recipe: address of the real images as the generator renders them. None: appearance is not measured."""


def diagnosis_of(
    recipe: Recipe | None,
    *,
    synthetic: str | None = None,
    real: str | None = None,
    holdout: str | None = None,
    rendered: str | None = None,
    out: str | None = None,
    sets: Sequence[str] = (),
) -> DiagnosisRequest:
    """The diagnosis of a recipe, or of a synthetic set; draws, seeds and classifier are the evaluation's.

    Raises RequestError or RecipeError.

    Args:
        sets: overrides without a recipe, of fields of the sections `evaluation`, `diagnosis` and `curation`.
    """
    if recipe is None and synthetic is None:
        raise RequestError("diagnose: which images? give a recipe, or --synthetic SET with --real and --holdout")
    if recipe is not None and rendered is not None:
        raise RequestError("diagnose: --rendered is for --synthetic sets; a recipe's generator renders the real images itself")
    sections = sections_of(recipe, sets, {"evaluation": EvaluationConfig, "diagnosis": DiagnosisConfig, "curation": CurationConfig})
    given = [synthetic] if synthetic is not None else []
    shared = MeasurementRequest.of(
        "diagnose", recipe, synthetic=given, real=real, holdout=holdout, out=out, sections=sections, file=DIAGNOSIS
    )
    diagnosis = cast("DiagnosisConfig", sections["diagnosis"])
    amounts = diagnosis.real_per_class or shared.config.real_per_class
    update = {
        "arms": [ArmConfig(name=name, of=[name]) for name in DIAGNOSIS_ARMS],
        "real_per_class": [*amounts],
        "curve": [*amounts],
        "synthetic_per_real": [1.0],
        "steps_check": False,
    }
    return DiagnosisRequest(**vars(shared) | {"config": shared.config.model_copy(update=update)}, diagnosis=diagnosis, rendered=rendered)
