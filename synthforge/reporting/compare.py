"""`compare`: several runs side by side, such as of different generators, guidance levels or selection rules, in one table and page.

Figures are those of the runs themselves. Where runs were not measured alike (another holdout, classifier, or amount of real data) they say
little of each other, which is said. Runs are not tested against each other: intervals are of each figure by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from synthforge.data.storage import resolve
from synthforge.errors import RequestError
from synthforge.evaluation.results.types import EvaluateResult, Kind, SettingResult
from synthforge.evaluation.results.words import percent, points
from synthforge.reporting.answers import TITLES, headline_of
from synthforge.reporting.figures import distance, in_points, part_of_loss
from synthforge.reporting.gathered import Gathered
from synthforge.reporting.plots import Dot, Picture, dots
from synthforge.reporting.templates import page_of, write_page

CLAIMS: dict[Kind, str] = {
    "instead": "in place of real",
    "curated-instead": "curated in place of real",
    "curation": "curated over random",
    "adding": "added to real",
}
_ALIKE: dict[str, Callable[[EvaluateResult], object]] = {
    "holdouts": lambda one: one.holdout,
    "training steps": lambda one: one.steps,
    "classifiers": lambda one: one.trainer,
}
"""What of an evaluation should be the same for figures to be compared."""


@dataclass(frozen=True)
class ComparedRun:
    """One run in the table."""

    name: str
    folder: str
    headline: str
    cells: dict[str, str]
    """What is asked for and what was found, by the row's title; what was not measured is not there."""


@dataclass(frozen=True)
class CompareResult:
    """What `compare` leaves behind."""

    runs: list[ComparedRun]
    rows: list[str]
    """Titles of the table's rows, in order."""
    warnings: list[str]
    """Why figures may not be comparable."""
    file: str
    plots: list[str]


def compare(runs: Sequence[Gathered], out: str) -> CompareResult:
    """Put runs side by side, and write the page.

    Args:
        out: the page's file; plots lie beside it.
    Raises: RequestError for fewer than two runs; DatasetError for results that can't be read; PlaceError for a place that can't be written.
    """
    if len(runs) < 2:
        raise RequestError("compare: give two runs or more, as folders or recipes")
    names = _names(runs)
    compared = [
        ComparedRun(name, run.folder.address, headline_of(run.evaluation), _cells(run)) for name, run in zip(names, runs, strict=True)
    ]
    rows = sorted(dict.fromkeys(title for one in compared for title in one.cells), key=_place)
    pictures = _pictures(names, runs)
    warnings = _warnings(names, runs)
    address = resolve(out)
    page = page_of("compare.html.j2", runs=compared, rows=rows, warnings=warnings, plots=pictures)
    return CompareResult(compared, rows, warnings, address, write_page(address, page, pictures.values()))


def _names(runs: Sequence[Gathered]) -> list[str]:
    """The last parts of their folders, as many as tell them apart."""
    parts = [PurePosixPath(run.folder.address).parts for run in runs]
    if len(set(parts)) < len(parts):
        raise RequestError("compare: a run is given twice")
    for num in range(1, max(map(len, parts)) + 1):
        names = ["/".join(of_run[-num:]) for of_run in parts]
        if len(set(names)) == len(names):
            return names
    raise AssertionError("different addresses have different parts")


_FIRST = ("generator", "sampling", "images", "selection", "kept")


def _place(title: str) -> int:
    """What was asked for comes first, then what was found, in the order in which it was met."""
    return _FIRST.index(title) if title in _FIRST else len(_FIRST)


def _cells(run: Gathered) -> dict[str, str]:
    recipe = run.recipe
    sampling = recipe.sampling
    guided = f", from real images at {', '.join(f'{one:g}' for one in sampling.real_guidance.strength)}" if sampling.real_guidance else ""
    cells = {
        "generator": f"{recipe.generator.kind} {run.manifest.get('model', recipe.generator.model)}",
        "sampling": f"{sampling.steps} steps, guidance {', '.join(f'{one:g}' for one in sampling.guidance)}{guided}",
        "images": f"{len(run.pool):,}" if run.pool is not None else "none yet",
    }
    if run.curation is not None:
        cells |= {"selection": f"{run.curation.method}, for {run.curation.regime}", "kept": f"{run.curation.kept:,}"}
        found = run.curation.gap.main
        sets = (("whole pool", found.before), ("random", found.random), ("curated", found.after), ("real to real", found.floor))
        cells |= {f"gap, {title}": distance(one) for title, one in sets if one.value is not None}
    if run.evaluation is not None and (compared := run.evaluation.first) is not None:
        for setting in compared.settings:
            cells |= {_title(setting, name): percent(score.accuracy) for name, score in setting.arms.items()}
        for kind, title in CLAIMS.items():
            if (claim := compared.claim(kind)) is not None:
                cells[f"{title}, points"] = f"{points(claim.difference)}: {claim.verdict}"
    if run.diagnosis is not None and run.diagnosis.tables:
        table = run.diagnosis.tables[0]
        amounts = ", ".join(one.amount for one in table.settings)
        for name, part in table.mean.parts.items():
            if told := part_of_loss(part):
                cells[f"points lost by {TITLES[name]}, {amounts} real per class"] = told
    return cells


def _title(setting: SettingResult, arm: str) -> str:
    ratio = f", {setting.synthetic_per_real:g} for each" if setting.synthetic_per_real != 1 else ""
    return f"{arm}, {setting.amount} real per class{ratio}"


def _pictures(names: Sequence[str], runs: Sequence[Gathered]) -> dict[str, Picture]:
    """Gaps, and accuracies of arms that several runs have, each run a row."""
    found: dict[str, Picture] = {}
    gaps: dict[str, list[Dot]] = {}
    accuracies: dict[str, list[Dot]] = {}
    for name, run in zip(names, runs, strict=True):
        if run.curation is not None:
            found_gap = run.curation.gap.main
            for title, one in (("random", found_gap.random), ("curated", found_gap.after)):
                if (measured := one.measured) is not None:
                    gaps.setdefault(title, []).append(Dot(name, measured.value, measured.low, measured.high, title))
        if run.evaluation is not None and (table := run.evaluation.first) is not None:
            for setting in table.settings:
                for arm, score in setting.arms.items():
                    accuracies.setdefault(_title(setting, arm), []).append(Dot(name, *in_points(score.accuracy)))
    if gaps:
        found["compared-gap"] = dots(
            "compared-gap", f"Gap to the real images. {_told(gaps, '.3g')}", gaps, "distance to the real images (nearer is better)"
        )
    shared = {title: rows for title, rows in accuracies.items() if len(rows) > 1}
    if shared:
        alt = f"Accuracy on the holdout, %. {_told(shared, '.1f')}"
        found["compared-accuracy"] = dots("compared-accuracy", alt, shared, "accuracy on real holdout images, %")
    return found


def _told(groups: dict[str, list[Dot]], form: str) -> str:
    return "; ".join(f"{title}: {', '.join(f'{one.label} {one.value:{form}}' for one in rows)}" for title, rows in groups.items())


def _warnings(names: Sequence[str], runs: Sequence[Gathered]) -> list[str]:
    warnings = []
    for name, run in zip(names, runs, strict=True):
        stages = (("curate", run.curation), ("evaluate", run.evaluation), ("diagnose", run.diagnosis))
        lacks = [verb for verb, found in stages if found is None]
        if lacks:
            warnings.append(f"{name}: nothing is there yet of {', '.join(lacks)}")
    evaluated = [run.evaluation for run in runs if run.evaluation is not None]
    for title, of in _ALIKE.items():
        if any(of(one) != of(evaluated[0]) for one in evaluated[1:]):
            warnings.append(f"The runs were evaluated with different {title}, so their accuracies say little of each other.")
    measured_by = [run.curation.metric_encoder for run in runs if run.curation is not None]
    if any(one != measured_by[0] for one in measured_by[1:]):
        warnings.append("The gaps were measured by different metric encoders, so they can't be compared.")
    return warnings
