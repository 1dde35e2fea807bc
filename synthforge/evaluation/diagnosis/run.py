"""The verb `diagnose`: what of the accuracy that synthetic images lose comes of what, and what to do about it.

It trains and measures as `evaluate` does, on the same holdout and with the same classifiers, so that what that has trained is not trained
again; nothing is chosen by what it finds.
"""

from __future__ import annotations

from synthforge.evaluation.diagnosis.words import advice_of, notes_of, of_intervals, tables_of, verdict_of
from synthforge.evaluation.request import Request
from synthforge.evaluation.results.types import DiagnoseResult
from synthforge.evaluation.run import measured, write_result
from synthforge.progress import Reporter


def diagnose(request: Request, reporter: Reporter | None = None) -> DiagnoseResult:
    """Prepare every setting, train the arms that differ in one thing, and write the result; errors as for `evaluate`."""
    assert request.diagnosis is not None
    evaluation, findings = measured(request, reporter or Reporter())
    tables = tables_of(findings)
    result = DiagnoseResult(
        verdict=verdict_of(tables),
        advice=advice_of(tables),
        tables=tables,
        holdout=request.holdout,
        holdout_images=len(findings.holdout),
        strength=request.diagnosis.strength if request.recipe is not None else None,
        trainer=evaluation.base.model_dump(mode="json"),
        draws=request.config.draws,
        seeds=request.config.seeds,
        notes=evaluation.all_notes(notes_of(tables), of_intervals(findings, tables)),
        trainings=evaluation.num_trainings,
        device=evaluation.device_name,
        seconds=evaluation.seconds,
        file=request.out,
    )
    write_result(request, result)
    return result
