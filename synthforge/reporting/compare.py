"""`compare`: several runs side by side in one table and page, such as runs of different generators or selection rules.

Figures are those of the runs. The page warns where test set, classifier or training steps differ.
Intervals belong to each figure alone: differences between runs are not tested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from synthforge.data.storage import resolve
from synthforge.errors import RequestError
from synthforge.evaluation.results.types import EvaluateResult, Kind, SettingResult
from synthforge.evaluation.results.words import listed, percent, points
from synthforge.reporting.answers import REGIMES, TITLES, distance, headline_of, part_of_loss
from synthforge.reporting.gathered import Gathered
from synthforge.reporting.plots import Dot, Plot, dots, in_points
from synthforge.reporting.templates import page_of, write_page

_SETTINGS = ("generator", "sampling", "images", "selection", "kept")
"""Titles of the first rows."""
CLAIMS: dict[Kind, str] = {
    "instead": "random in place of real",
    "curated-instead": "curated in place of real",
    "curation": "curated over random",
    "adding": "added to real",
}
"""Titles of the rows for claims."""
_ALIKE: dict[str, Callable[[EvaluateResult], object]] = {
    "held-out test sets": lambda one: one.holdout,
    "training steps": lambda one: one.steps,
    "classifiers": lambda one: one.trainer,
}
"""What must be equal for the accuracies of two evaluations to be comparable."""


@dataclass(frozen=True)
class ComparedRun:
    """One run: a column of the table."""

    name: str
    folder: str
    headline: str
    cells: dict[str, str]
    """Settings and figures by the row's title; without those that were not measured."""


@dataclass(frozen=True)
class CompareResult:
    """The table, and the files that `compare` wrote."""

    runs: list[ComparedRun]
    rows: list[str]
    """Titles of the table's rows, in order."""
    warnings: list[str]
    """Why figures may not be comparable. Empty: they are."""
    file: str
    plots: list[str]


def compare(runs: Sequence[Gathered], out: str) -> CompareResult:
    """Compare runs, and write the page.

    Args:
        out: the page's file; plots lie beside it.
    Raises:
        RequestError: fewer than two runs.
        DatasetError: results that can't be read.
        PlaceError: `out` can't be written.
    """
    if len(runs) < 2:
        raise RequestError("compare: give two runs or more, as folders or recipes")
    names = _names(runs)
    compared = [
        ComparedRun(name, run.folder.address, headline_of(run.evaluation), _cells(run)) for name, run in zip(names, runs, strict=True)
    ]
    rows = sorted(dict.fromkeys(title for one in compared for title in one.cells), key=lambda title: title not in _SETTINGS)
    plots, warnings, address = _plots(names, runs), _warnings(names, runs), resolve(out)
    page = page_of("compare.html.j2", runs=compared, rows=rows, warnings=warnings, plots=plots)
    return CompareResult(compared, rows, warnings, address, write_page(address, page, plots.values()))


def _names(runs: Sequence[Gathered]) -> list[str]:
    """The shortest endings of the runs' folders that differ from each other."""
    parts = [PurePosixPath(run.folder.address).parts for run in runs]
    if len(set(parts)) < len(parts):
        raise RequestError("compare: a run is given twice")
    for num in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of_run[-num:]) for of_run in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different addresses have different parts")


def _cells(run: Gathered) -> dict[str, str]:
    """Settings and figures of a run, by the row's title."""
    generator, sampling = run.recipe.generator, run.recipe.sampling
    cells = {
        "generator": f"{generator.kind} {run.manifest.get('model', generator.model)}",
        "sampling": f"{sampling.steps} steps, guidance {', '.join(f'{one:g}' for one in sampling.guidance)}",
        "images": f"{len(run.pool):,}" if run.pool is not None else "none yet",
    }
    if sampling.real_guidance is not None:
        cells["sampling"] += f", from real images at strength {', '.join(f'{one:g}' for one in sampling.real_guidance.strength)}"
    if run.curation is not None:
        cells |= {"selection": f"{run.curation.method}, for {REGIMES[run.curation.regime]}", "kept": f"{run.curation.kept:,}"}
        found = run.curation.gap.main
        sets = (("whole pool", found.before), ("random", found.random), ("curated", found.after), ("other real images", found.floor))
        cells |= {f"distance to real images, {title}": distance(one) for title, one in sets if one.value is not None}
    if run.evaluation is not None and (compared := run.evaluation.first) is not None:
        for setting in compared.settings:
            cells |= {_title(setting, name): percent(score.accuracy) for name, score in setting.arms.items()}
        for kind, title in CLAIMS.items():
            if (claim := compared.claim(kind)) is not None:
                cells[f"{title}, points of accuracy"] = f"{points(claim.difference)}: {claim.verdict}"
    if run.diagnosis is not None and run.diagnosis.tables:
        table = run.diagnosis.tables[0]
        amounts = listed([one.amount for one in table.settings])
        for name, part in table.mean.parts.items():
            if lost := part_of_loss(part):
                cells[f"accuracy lost, {TITLES[name]}, {amounts} real images per class"] = lost
    return cells


def _title(setting: SettingResult, arm: str) -> str:
    ratio = f", {setting.synthetic_per_real:g} synthetic per real image" if setting.synthetic_per_real != 1 else ""
    return f"{arm}, {setting.amount} real images per class{ratio}"


def _plots(names: Sequence[str], runs: Sequence[Gathered]) -> dict[str, Plot]:
    """Plots of the distances to the real images, and of the accuracies of arms that several runs have. Each run is a
    row."""
    plots: dict[str, Plot] = {}
    gaps: dict[str, list[Dot]] = {}
    accuracies: dict[str, list[Dot]] = {}
    for name, run in zip(names, runs, strict=True):
        if run.curation is not None:
            gap = run.curation.gap.main
            for title, one in (("random", gap.random), ("curated", gap.after)):
                if (measured := one.measured) is not None:
                    gaps.setdefault(title, []).append(Dot(name, measured.value, measured.low, measured.high, title))
        if run.evaluation is not None and (table := run.evaluation.first) is not None:
            for setting in table.settings:
                for arm, score in setting.arms.items():
                    accuracies.setdefault(_title(setting, arm), []).append(Dot(name, *in_points(score.accuracy)))
    if gaps:
        axis = "distance to the real images (lower is better)"
        plots["compared-gap"] = dots("compared-gap", "Distance to the real images", gaps, axis, form=".3g")
    shared = {title: rows for title, rows in accuracies.items() if len(rows) > 1}
    if shared:
        axis = "accuracy on the held-out test set, %"
        plots["compared-accuracy"] = dots("compared-accuracy", "Accuracy in percent on the held-out test set", shared, axis)
    return plots


def _warnings(names: Sequence[str], runs: Sequence[Gathered]) -> list[str]:
    warnings = []
    for name, run in zip(names, runs, strict=True):
        stages = (("curate", run.curation), ("evaluate", run.evaluation), ("diagnose", run.diagnosis))
        lacks = [verb for verb, found in stages if found is None]
        if lacks:
            warnings.append(f"{name}: no results yet of {', '.join(lacks)}")
    evaluated = [run.evaluation for run in runs if run.evaluation is not None]
    for title, of in _ALIKE.items():
        if any(of(one) != of(evaluated[0]) for one in evaluated[1:]):
            warnings.append(f"The runs were evaluated with different {title}, so their accuracies are not comparable.")
    measured_by = [run.curation.metric_encoder for run in runs if run.curation is not None]
    if any(one != measured_by[0] for one in measured_by[1:]):
        warnings.append("Distances were measured with different metric encoders, so they are not comparable.")
    return warnings
