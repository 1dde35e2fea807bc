"""JSON Schemas of result files and of recipes."""

from __future__ import annotations

from typing import Any

from synthforge.curation.result import CurateResult
from synthforge.data.layout import COMPLETE, DIAGNOSIS, EVALUATION, GAP, NOTES, Completion, Document
from synthforge.errors import RequestError
from synthforge.evaluation.results.types import DiagnoseResult, EvaluateResult
from synthforge.recipe.recipe import json_schema
from synthforge.stages import RunNotes

_FILES: dict[str, type[Document]] = {
    EVALUATION: EvaluateResult,
    DIAGNOSIS: DiagnoseResult,
    GAP: CurateResult,
    NOTES: RunNotes,
    COMPLETE: Completion,
}
DOCUMENTS = {file.removesuffix(".json"): model for file, model in _FILES.items()}
"""Models of the result files, by file name without `.json`."""


def schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a result file, or of recipes; raises RequestError for an unknown name."""
    if name == "recipe":
        return json_schema()
    if name not in DOCUMENTS:
        raise RequestError(f"recipe schema: unknown result file {name!r}; choose from {', '.join(DOCUMENTS)}")
    schema = DOCUMENTS[name].model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
