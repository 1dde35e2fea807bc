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
    "CurateResult": "curation.curate",
    "CurationConfig": "curation.config",
    "DatasetFolder": "shards.folder",
    "DiagnoseResult": "evaluation.diagnosis",
    "EvaluateResult": "evaluation.findings",
    "EvaluationConfig": "evaluation.config",
    "Gathered": "reporting.gathered",
    "GenerateResult": "generation",
    "PixelFitConfig": "generators.config",
    "PixelPipeline": "generators.pixel.pipeline",
    "Plan": "plan",
    "Recipe": "recipe",
    "ReportResult": "reporting.report",
    "Reporter": "progress",
    "RunResult": "pipeline",
    "SynthforgeError": "errors",
    "compare": "reporting.compare",
    "curate": "curation.curate",
    "diagnose": "diagnosing",
    "diagnosis_of": "evaluationrequest",
    "evaluate": "evaluating",
    "evaluation_of": "evaluationrequest",
    "fit": "generators.pixel.fit",
    "generate": "generation",
    "load_recipe": "recipe_file",
    "preview": "inspection",
    "report": "reporting.report",
    "run": "pipeline",
    "show": "inspection",
    "status": "shards.audit",
    "summarize": "inspection",
    "verify": "inspection",
}
__all__ = [*sorted(_HOMES)]

if TYPE_CHECKING:
    from synthforge.curation.config import CurationConfig as CurationConfig
    from synthforge.curation.curate import CurateResult as CurateResult
    from synthforge.curation.curate import curate as curate
    from synthforge.diagnosing import diagnose as diagnose
    from synthforge.errors import SynthforgeError as SynthforgeError
    from synthforge.evaluating import evaluate as evaluate
    from synthforge.evaluation.config import EvaluationConfig as EvaluationConfig
    from synthforge.evaluation.diagnosis import DiagnoseResult as DiagnoseResult
    from synthforge.evaluation.findings import EvaluateResult as EvaluateResult
    from synthforge.evaluationrequest import diagnosis_of as diagnosis_of
    from synthforge.evaluationrequest import evaluation_of as evaluation_of
    from synthforge.generation import GenerateResult as GenerateResult
    from synthforge.generation import generate as generate
    from synthforge.generators.config import PixelFitConfig as PixelFitConfig
    from synthforge.generators.pixel.fit import fit as fit
    from synthforge.generators.pixel.pipeline import PixelPipeline as PixelPipeline
    from synthforge.inspection import preview as preview
    from synthforge.inspection import show as show
    from synthforge.inspection import summarize as summarize
    from synthforge.inspection import verify as verify
    from synthforge.pipeline import RunResult as RunResult
    from synthforge.pipeline import run as run
    from synthforge.plan import Plan as Plan
    from synthforge.progress import Reporter as Reporter
    from synthforge.recipe import Recipe as Recipe
    from synthforge.recipe_file import load_recipe as load_recipe
    from synthforge.reporting.compare import CompareResult as CompareResult
    from synthforge.reporting.compare import compare as compare
    from synthforge.reporting.gathered import Gathered as Gathered
    from synthforge.reporting.report import ReportResult as ReportResult
    from synthforge.reporting.report import report as report
    from synthforge.shards.audit import status as status
    from synthforge.shards.folder import DatasetFolder as DatasetFolder


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("synthforge")
    if name not in _HOMES:
        raise AttributeError(f"module 'synthforge' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"synthforge.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
