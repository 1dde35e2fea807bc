"""The verb `evaluate`: what synthetic images are worth, measured on a held-out test set."""

from __future__ import annotations

from synthforge.evaluation.measure import measure, write_result
from synthforge.evaluation.request import EvaluationRequest
from synthforge.evaluation.results.kinds import use_of
from synthforge.evaluation.results.notes import curve_notes, interval_notes, step_notes
from synthforge.evaluation.results.requirements import holds
from synthforge.evaluation.results.types import EvaluateResult
from synthforge.evaluation.results.words import verdict_of
from synthforge.evaluation.sources import EvaluationSources
from synthforge.progress import Reporter


def evaluate(request: EvaluationRequest, reporter: Reporter | None = None) -> EvaluateResult:
    """Train a classifier on every arm, measure it, and write the result; errors as for `measure`."""
    measured = measure(request, EvaluationSources(), reporter or Reporter(), request.require)
    findings = measured.findings
    tables, curve, arms = findings.tables, findings.curve, findings.arms
    compared = next((table for table in tables if table.compares), None)
    result = EvaluateResult(
        **measured.shared(request),
        classes=findings.classes,
        verdict=verdict_of(tables, [(point.real_per_class, point.accuracy) for point in curve], arms),
        tables=tables,
        curve=curve,
        tuned=[tuned.result for tuned in measured.tuned.values()],
        steps=measured.trainer.steps,
        copies_removed=measured.copies_removed,
        notes=measured.all_notes([*step_notes(findings), *curve_notes(findings)], interval_notes(findings)),
        requirements={requirement.text: holds(requirement, tables) for requirement in request.require},
        use=use_of(compared, arms) if compared is not None else "not measured",
    )
    write_result(request, result)
    return result
