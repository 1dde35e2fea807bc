"""The verb `diagnose`: split the accuracy that synthetic images cost into its causes, and say what to do next.

It trains and measures as `evaluate` does, with the same held-out test set and classifiers, so no training is done
twice.
"""

from __future__ import annotations

from synthforge.evaluation.diagnosis.request import DiagnosisRequest
from synthforge.evaluation.diagnosis.sources import DiagnosisSources
from synthforge.evaluation.diagnosis.tables import tables_of
from synthforge.evaluation.diagnosis.words import advice_of, notes_of, pool_note, verdict_of
from synthforge.evaluation.measure import measure, write_result
from synthforge.evaluation.results.notes import comparison_notes, interval_notes
from synthforge.evaluation.results.types import DiagnoseResult
from synthforge.progress import Reporter


def diagnose(request: DiagnosisRequest, reporter: Reporter | None = None) -> DiagnoseResult:
    """Train arms that differ in one thing, compare them, and write the result; errors as for `measure`."""
    measured = measure(request, DiagnosisSources(request.diagnosis, request.rendered), reporter or Reporter())
    findings, tables = measured.findings, tables_of(measured.findings)
    covered = pool_note(request.config, tables)
    of_intervals = [covered, *comparison_notes(findings)] if covered is not None else interval_notes(findings)
    result = DiagnoseResult(
        **measured.shared(request),
        verdict=verdict_of(tables),
        advice=advice_of(tables),
        tables=tables,
        strength=request.diagnosis.strength if request.recipe is not None else None,
        draws=request.config.draws,
        seeds=request.config.seeds,
        notes=measured.all_notes(notes_of(tables), of_intervals),
    )
    write_result(request, result)
    return result
