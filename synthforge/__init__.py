"""Generate synthetic training images with diffusion models, match them to real data, and measure whether they help.

The Python API mirrors the command line. Names are imported when they are first used, so `import synthforge` is fast:

    import synthforge

    recipe = synthforge.load_recipe("recipes/digits.yaml", ["count.per_class=50"])
    result = synthforge.generate(recipe)
    for problem in synthforge.verify(result.folder)[0].problems:
        print(problem)
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

_NAMES = {
    "curation.result": ("CurateResult",),
    "curation.run": ("curate",),
    "data.audit": ("status",),
    "data.folder": ("DatasetFolder",),
    "errors": ("SynthforgeError",),
    "evaluation.diagnosis.request": ("diagnosis_of",),
    "evaluation.diagnosis.run": ("diagnose",),
    "evaluation.request": ("evaluation_of",),
    "evaluation.results.types": ("DiagnoseResult", "EvaluateResult"),
    "evaluation.run": ("evaluate",),
    "generation.inspect": ("preview", "show", "summarize", "verify"),
    "generation.plan": ("Plan",),
    "generation.run": ("GenerateResult", "generate"),
    "generators.pixel.config": ("PixelFitConfig",),
    "generators.pixel.fit": ("fit",),
    "generators.pixel.pipeline": ("PixelPipeline",),
    "progress": ("Reporter",),
    "recipe.curation": ("CurationConfig",),
    "recipe.evaluation": ("EvaluationConfig",),
    "recipe.load": ("load_recipe",),
    "recipe.recipe": ("Recipe",),
    "reporting.compare": ("CompareResult", "compare"),
    "reporting.gathered": ("Gathered",),
    "reporting.report": ("ReportResult", "report"),
    "stages": ("RunResult", "run"),
}
"""Public names by module; imported when they are first used."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOMES)

if TYPE_CHECKING:
    from synthforge.curation.result import CurateResult as CurateResult
    from synthforge.curation.run import curate as curate
    from synthforge.data.audit import status as status
    from synthforge.data.folder import DatasetFolder as DatasetFolder
    from synthforge.errors import SynthforgeError as SynthforgeError
    from synthforge.evaluation.diagnosis.request import diagnosis_of as diagnosis_of
    from synthforge.evaluation.diagnosis.run import diagnose as diagnose
    from synthforge.evaluation.request import evaluation_of as evaluation_of
    from synthforge.evaluation.results.types import DiagnoseResult as DiagnoseResult, EvaluateResult as EvaluateResult
    from synthforge.evaluation.run import evaluate as evaluate
    from synthforge.generation.inspect import preview as preview, show as show, summarize as summarize, verify as verify
    from synthforge.generation.plan import Plan as Plan
    from synthforge.generation.run import GenerateResult as GenerateResult, generate as generate
    from synthforge.generators.pixel.config import PixelFitConfig as PixelFitConfig
    from synthforge.generators.pixel.fit import fit as fit
    from synthforge.generators.pixel.pipeline import PixelPipeline as PixelPipeline
    from synthforge.progress import Reporter as Reporter
    from synthforge.recipe.curation import CurationConfig as CurationConfig
    from synthforge.recipe.evaluation import EvaluationConfig as EvaluationConfig
    from synthforge.recipe.load import load_recipe as load_recipe
    from synthforge.recipe.recipe import Recipe as Recipe
    from synthforge.reporting.compare import CompareResult as CompareResult, compare as compare
    from synthforge.reporting.gathered import Gathered as Gathered
    from synthforge.reporting.report import ReportResult as ReportResult, report as report
    from synthforge.stages import RunResult as RunResult, run as run


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("synthforge")
    if name not in _HOMES:
        raise AttributeError(f"module 'synthforge' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"synthforge.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
