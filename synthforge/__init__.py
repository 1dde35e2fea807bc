"""Synthetic training images with diffusion models, matched to real data and measured on it.

The Python API is that of the command line; names are loaded when they are first used, so importing this costs nothing:

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

_HOMES = {
    "CompareResult": "reporting.compare",
    "CurateResult": "curation.result",
    "CurationConfig": "recipe.curation",
    "DatasetFolder": "data.folder",
    "DiagnoseResult": "evaluation.results.types",
    "EvaluateResult": "evaluation.results.types",
    "EvaluationConfig": "recipe.evaluation",
    "Gathered": "reporting.gathered",
    "GenerateResult": "generation.run",
    "PixelFitConfig": "generators.pixel.config",
    "PixelPipeline": "generators.pixel.pipeline",
    "Plan": "generation.plan",
    "Recipe": "recipe.recipe",
    "ReportResult": "reporting.report",
    "Reporter": "progress",
    "RunResult": "job",
    "SynthforgeError": "errors",
    "compare": "reporting.compare",
    "curate": "curation.run",
    "diagnose": "evaluation.diagnosis.run",
    "diagnosis_of": "evaluation.diagnosis.request",
    "evaluate": "evaluation.run",
    "evaluation_of": "evaluation.request",
    "fit": "generators.pixel.fit",
    "generate": "generation.run",
    "load_recipe": "recipe.load",
    "preview": "generation.inspect",
    "report": "reporting.report",
    "run": "job",
    "show": "generation.inspect",
    "status": "data.audit",
    "summarize": "generation.inspect",
    "verify": "generation.inspect",
}
__all__ = [*sorted(_HOMES)]

if TYPE_CHECKING:
    from synthforge.curation.result import CurateResult as CurateResult
    from synthforge.curation.run import curate as curate
    from synthforge.data.audit import status as status
    from synthforge.data.folder import DatasetFolder as DatasetFolder
    from synthforge.errors import SynthforgeError as SynthforgeError
    from synthforge.evaluation.diagnosis.request import diagnosis_of as diagnosis_of
    from synthforge.evaluation.diagnosis.run import diagnose as diagnose
    from synthforge.evaluation.request import evaluation_of as evaluation_of
    from synthforge.evaluation.results.types import DiagnoseResult as DiagnoseResult
    from synthforge.evaluation.results.types import EvaluateResult as EvaluateResult
    from synthforge.evaluation.run import evaluate as evaluate
    from synthforge.generation.inspect import preview as preview
    from synthforge.generation.inspect import show as show
    from synthforge.generation.inspect import summarize as summarize
    from synthforge.generation.inspect import verify as verify
    from synthforge.generation.plan import Plan as Plan
    from synthforge.generation.run import GenerateResult as GenerateResult
    from synthforge.generation.run import generate as generate
    from synthforge.generators.pixel.config import PixelFitConfig as PixelFitConfig
    from synthforge.generators.pixel.fit import fit as fit
    from synthforge.generators.pixel.pipeline import PixelPipeline as PixelPipeline
    from synthforge.job import RunResult as RunResult
    from synthforge.job import run as run
    from synthforge.progress import Reporter as Reporter
    from synthforge.recipe.curation import CurationConfig as CurationConfig
    from synthforge.recipe.evaluation import EvaluationConfig as EvaluationConfig
    from synthforge.recipe.load import load_recipe as load_recipe
    from synthforge.recipe.recipe import Recipe as Recipe
    from synthforge.reporting.compare import CompareResult as CompareResult
    from synthforge.reporting.compare import compare as compare
    from synthforge.reporting.gathered import Gathered as Gathered
    from synthforge.reporting.report import ReportResult as ReportResult
    from synthforge.reporting.report import report as report


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("synthforge")
    if name not in _HOMES:
        raise AttributeError(f"module 'synthforge' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"synthforge.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
