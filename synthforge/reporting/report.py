"""`report`: the results of a run as one HTML page that opens from disk and needs no network.

How a figure gets onto the page: `Gathered` reads it from the run's folder, `report` or a function `_add_...` puts it
into `_Page`, and page.html.j2 shows it. The page says which results are missing, and how to get them. The number of
images on it is bounded.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from synthforge.arrays import Ints
from synthforge.curation.choice import NOT_SELECTED
from synthforge.curation.gap.metrics import METRICS, Metric
from synthforge.curation.gates import CopiesGate, heading_and_text
from synthforge.curation.result import CurateResult, Distances, Gap, Nearer, Region
from synthforge.data.image_table import Table
from synthforge.data.layout import PAGE
from synthforge.data.storage import resolve
from synthforge.errors import some
from synthforge.evaluation.results.types import EvaluateResult, Loss, SettingDiagnosis, SettingResult, TableResult
from synthforge.evaluation.results.words import listed
from synthforge.progress import Reporter
from synthforge.reporting.answers import REGIMES, TITLES, Answer, answers_of, headline_of
from synthforge.reporting.gathered import Decisions, Gathered
from synthforge.reporting.map import Map, map_of
from synthforge.reporting.pictures import Strip, sheet, strip, thumbnails
from synthforge.reporting.plots import Dot, Plot, curves, dots, in_points
from synthforge.reporting.templates import page_of, write_page
from synthforge.statistics import Over

PAGE_WITHOUT = "report-without-real-images.html"
SHOWN_CLASSES = 12
SHOWN_IMAGES = 12
"""Images in one row, at most."""
SHOWN_REGIONS = 8
SHOWN_PAIRS = 12
_LIBRARIES = ("synthforge", "torch", "diffusers", "open-clip-torch", "faiss-cpu", "numpy")


@dataclass(frozen=True)
class ReportResult:
    """The page, and the files that `report` wrote."""

    file: str
    plots: list[str]
    bytes: int
    headline: str
    missing: list[str]
    """What the page could not show, and how to get it; empty if it shows everything."""
    seconds: float


@dataclass(kw_only=True)
class _Page:
    """What page.html.j2 shows, in its order."""

    run: Gathered
    shows_real: bool
    plots: dict[str, Plot] = field(default_factory=dict)
    """All plots, by name."""

    # Top
    headline: str
    examples: list[tuple[str, Strip | None]] = field(default_factory=list)
    """One image of each class, a row for each kind."""
    training_sets: str
    """What was compared."""
    answers: list[Answer]
    covered: str
    """What the intervals cover."""
    missing: list[str]

    # Accuracy of classifiers
    tables: list[TableResult] = field(default_factory=list)
    """Tables of the evaluation that have arms."""

    # Images
    classes: list[tuple[str, list[tuple[str, Strip | None]], int, int]] = field(default_factory=list)
    """Name, a row of images for each kind, number of synthetic images, and of kept ones."""
    classes_left: int = 0
    """Classes that are not shown."""

    # Curation
    kept_in_words: str = ""
    reasons: list[tuple[str, str, int, Strip | None]] = field(default_factory=list)
    """Why images were dropped: title, explanation, their number, examples."""
    copies: str = ""
    pairs: list[tuple[Strip, str]] = field(default_factory=list)
    """A kept image beside its nearest real image, and their distance."""
    regions: list[tuple[Region, Strip | None, Strip | None]] = field(default_factory=list)
    """Regions with too few curated images, examples of real ones, and the most similar curated ones."""

    # Map, and distance to the real images
    map: Map | None = None
    gap_in_words: str = ""
    gap_rows: list[tuple[Metric, Distances]] = field(default_factory=list)

    # Settings and reproduction
    settings: list[tuple[str, str]]
    notes: list[str] = field(default_factory=list)
    versions: list[tuple[str, str]]
    recipe: str
    """All that differs from the defaults, as JSON."""

    def add(self, plot: Plot) -> None:
        """Show a plot."""
        self.plots[plot.name] = plot


def report(
    run: Gathered, out: str | None = None, reporter: Reporter | None = None, *, real_images: bool = True, trouble: str | None = None
) -> ReportResult:
    """Write the page and its plots.

    Args:
        out: the page's file; plots go beside it. None: `PAGE` or, without real images, `PAGE_WITHOUT` in the run's
        folder.
        real_images: show real images. Without them the page can be shared.
        trouble: why the run ended early. None: it did not.
    Raises: DatasetError for results that can't be read; PlaceError for a place that can't be written.
    """
    reporter, started = reporter or Reporter(), time.perf_counter()
    table = run.evaluation.first if run.evaluation is not None else None
    page = _Page(
        run=run,
        shows_real=real_images,
        headline=headline_of(run.evaluation),
        training_sets=_training_sets(run),
        answers=answers_of(run.evaluation, run.curation, run.diagnosis),
        covered=_COVERED[table.claims[0].interval_over] if table is not None and table.claims else "",
        missing=[f"The run ended early: {trouble}"] if trouble is not None else [],
        settings=_settings(run),
        versions=_versions(run),
        recipe=json.dumps(run.recipe.model_dump(mode="json", exclude_defaults=True), indent=2),
    )
    reporter.note("collecting results and images")
    _add_images(page, run)
    _add_gap(page, run)
    _add_evaluation(page, run)
    _add_diagnosis(page, run)
    reporter.note("drawing the map")
    page.map = map_of(run, page.missing, real_images=real_images)
    address = resolve(out) if out is not None else run.folder.where(PAGE if real_images else PAGE_WITHOUT)
    content = page_of("page.html.j2", page=page)
    plots = write_page(address, content, page.plots.values())
    seconds = round(time.perf_counter() - started, 1)
    return ReportResult(address, plots, bytes=len(content), headline=page.headline, missing=page.missing, seconds=seconds)


_COVERED: dict[Over, str] = {
    "draws and images": "draws of real images, training seeds and test images",
    "seeds and images": "training seeds and test images, not other real images",
    "images": "test images only, of a single training run",
}


def _training_sets(run: Gathered) -> str:
    """What was compared, for somebody who sees the page for the first time."""
    if run.evaluation is None or (table := run.evaluation.first) is None:
        return ""
    scores = [score for setting in table.settings for score in setting.arms.values()]
    most = max((score.draws * score.seeds for score in scores), default=0)
    amounts = listed(list(dict.fromkeys(f"{setting.real_per_class:g}" for setting in table.settings)))
    ratios = listed(list(dict.fromkeys(f"{setting.synthetic_per_real:g}" for setting in table.settings)))
    own = " The generator was trained on these real images only." if table.origin == "own" else ""
    return (
        f"Training sets: real images ({amounts} per class), synthetic images ({ratios} per real image), or both.{own} “Random” synthetic "
        "images are chosen at random; “curated” ones were selected (kept) by `synthforge curate`. "
        f"Classifiers trained on each training set: {most}, each tested on {run.evaluation.holdout_images:,} held-out real images."
    )


def _settings(run: Gathered) -> list[tuple[str, str]]:
    """The recipe in short."""
    recipe, generator, sampling = run.recipe, run.manifest, run.recipe.sampling
    rows = [
        ("generator", f"{recipe.generator.kind} {generator.get('model', recipe.generator.model)}"),
        ("weights, SHA-256", str(generator.get("sha256", "not known yet"))[:16]),
        ("classes", f"{len(recipe.classes):,}: {some(recipe.classes, 12)}"),
        ("images requested", f"{recipe.num_samples:,}"),
        ("sampling", f"{sampling.steps} steps, guidance {', '.join(f'{one:g}' for one in sampling.guidance)}, seed {sampling.seed}"),
        ("real images", recipe.reference or "none"),
        ("held-out test set", recipe.evaluation.holdout or "none"),
    ]
    results = [result for result in (run.curation, run.evaluation) if result is not None]
    if found := dict.fromkeys(str(one) for result in results for one in result.inputs):
        rows.append(("images read", "; ".join(found)))
    if (curation := run.curation) is not None:
        kept = f"{curation.kept:,} of {curation.pool:,} images kept"
        rows.append(("curation", f"selection rule {curation.method}, for {REGIMES[curation.regime]}; {kept}"))
    return rows


def _versions(run: Gathered) -> list[tuple[str, str]]:
    """Versions of libraries, digests of data, and the hardware."""
    rows = []
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            rows.append((name, version(name)))
    if run.pool is not None:
        rows.append(("digest of the pool", str(run.pool.collections[0].digest)))
    if run.curation is not None:
        rows.append(("digest of curation inputs and settings", run.curation.digest))
    if run.evaluation is not None:
        rows.append(("classifiers trained on", run.evaluation.device))
    return rows


# Images


@dataclass(frozen=True)
class _Kind:
    """Images of one kind, such as the kept ones."""

    label: str
    table: Table
    rows: Ints
    class_of: Ints
    """Class of each row."""

    def of_class(self, number: int) -> Ints:
        rows: Ints = self.rows[self.class_of == number]
        return rows


def _add_images(page: _Page, run: Gathered) -> None:
    if run.pool is None:
        page.missing.append("There are no synthetic images yet: run `synthforge generate`.")
        return
    if not run.has_records:
        page.missing.append("It is not known how the pool was made, since it does not come from `synthforge generate`.")
    if run.curation is None:
        page.missing.append("The pool is not curated yet: run `synthforge curate`. `--reselect` replaces the curated set of another pool.")
    if run.recipe.reference is not None and run.real is None:
        page.missing.append("The real images are not where the recipe says, so they are not shown. Correct `reference` in the recipe.")
    classes, kept, real = list(run.recipe.classes), run.kept(), run.real if page.shows_real else None
    of_pool = run.pool.class_indices(classes)
    kinds = [_Kind("synthetic", run.pool, np.arange(len(run.pool)), of_pool)]
    if real is not None:
        kinds.insert(0, _Kind("real", real, np.arange(len(real)), real.class_indices(classes)))
    if run.decisions is not None:
        kinds.append(_Kind("kept", run.pool, kept, of_pool[kept]))
    page.classes_left = max(0, len(classes) - SHOWN_CLASSES)
    for number, name in enumerate(classes[:SHOWN_CLASSES]):
        rows = [(kind.label, _row(kind.table, kind.of_class(number), f"{kind.label} images of class {name}")) for kind in kinds]
        page.classes.append((name, rows, int((of_pool == number).sum()), int((of_pool[kept] == number).sum())))
    for kind in kinds:
        firsts = [int(next(iter(kind.of_class(number)), -1)) for number in range(len(page.classes))]
        page.examples.append((kind.label, strip(kind.table, firsts, f"{kind.label}: an image of each class")))
    if run.decisions is not None and run.curation is not None:
        _add_reasons(page, run.pool, run.decisions, run.curation)
        if real is not None:
            _add_pairs(page, run.pool, real, run.decisions)
        _add_regions(page, run.pool, real, run.curation)


def _row(table: Table, rows: Ints, alt: str) -> Strip | None:
    """The first of these rows, as one picture."""
    chosen = rows[:SHOWN_IMAGES].tolist()
    return strip(table, chosen, f"{len(chosen)} {alt}")


def _add_reasons(page: _Page, pool: Table, decisions: Decisions, curation: CurateResult) -> None:
    """Images that were dropped, by reason, in the order of the filters."""
    reasons = decisions.reason
    page.kept_in_words = f"{int(decisions.kept.sum()):,} of {len(reasons):,} images were kept."
    for gate in curation.gates:
        if gate.gate == CopiesGate.title:
            page.copies = f"{sum(gate.dropped.values()):,} images were dropped as near-copies of a real image."
    counts = {str(reason): int((reasons == reason).sum()) for reason in dict.fromkeys(reasons) if reason is not None}
    in_order = [*(reason for gate in curation.gates for reason in gate.dropped), NOT_SELECTED]
    for reason, num in sorted(counts.items(), key=lambda item: in_order.index(item[0]) if item[0] in in_order else -1):
        rows = np.flatnonzero(reasons == reason)
        spread = rows[np.linspace(0, len(rows) - 1, min(SHOWN_IMAGES, len(rows))).astype(np.int64)]
        title, why = _why(reason)
        page.reasons.append((title, why, num, _row(pool, spread, f"images dropped: {title}")))


def _add_pairs(page: _Page, pool: Table, real: Table, decisions: Decisions) -> None:
    """The kept images with the smallest distance to a real one."""
    kept, nearest_real = np.flatnonzero(decisions.kept), decisions.nearest_real
    if nearest_real is None or decisions.nearest_real_distance is None or not len(kept):
        return
    apart = np.nan_to_num(decisions.nearest_real_distance.astype(float), nan=np.inf)
    usual = max(float(np.median(apart[kept])), 1e-12)
    row_of = {key: row for row, key in enumerate(real.strings("key"))}
    for made in kept[np.argsort(apart[kept], kind="stable")[:SHOWN_PAIRS]].tolist():
        if nearest_real[made] in row_of:
            both = [*thumbnails(pool, np.array([made]), 64), *thumbnails(real, np.array([row_of[nearest_real[made]]]), 64)]
            beside = sheet(both, "a kept image and its nearest real image", 2, 64, gap=4)
            page.pairs.append((beside, _percent(apart[made] / usual)))


def _add_regions(page: _Page, pool: Table, real: Table | None, curation: CurateResult) -> None:
    """Regions of real images with too few curated ones, and examples."""
    of_pool = {key: number for number, key in enumerate(pool.strings("key"))}
    of_real = {key: number for number, key in enumerate(real.strings("key"))} if real is not None else {}
    for region in curation.lacking[:SHOWN_REGIONS]:
        nearest = [of_pool[key] for key in region.pool_keys if key in of_pool]
        examples = [of_real[key] for key in region.real_keys if key in of_real]
        shown = strip(real, examples, f"real images of class {region.class_name} that are underrepresented") if real is not None else None
        page.regions.append((region, shown, strip(pool, nearest, f"the most similar curated images of class {region.class_name}")))


def _why(reason: str) -> tuple[str, str]:
    if reason != NOT_SELECTED:
        return heading_and_text(reason)
    return "Not selected", "These images passed every filter. More passed than were requested, and the selection rule preferred others."


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


# Gap, evaluation, diagnosis


def _add_gap(page: _Page, run: Gathered) -> None:
    if run.curation is None:
        return
    gap, held_out = run.curation.gap, run.curation.gap_held_out
    in_order = [(metric, gap.metrics[name]) for name, metric in METRICS.items() if name in gap.metrics]
    page.gap_rows = [(metric, found) for metric, found in in_order if found.after.value is not None]
    found, title = gap.main, METRICS[gap.primary].name
    sets = [
        ("whole pool", "other", found.before),
        ("random, same size", "random", found.random),
        ("curated", "curated", found.after),
        ("other real images", "real", found.floor),
    ]
    rows = [Dot(label, one.value, one.low, one.high, colour) for label, colour, distance in sets if (one := distance.measured) is not None]
    if rows:
        floor, axis = found.floor.measured, f"{title} to the real images (lower is better)"
        page.add(dots("gap", f"{title} to the real images", {"": rows}, axis, form=".3g", band=(floor.low, floor.high) if floor else None))
    page.gap_in_words = _is_nearer(gap, held_out)


_NEARER: dict[Nearer, str] = {
    "smaller": "The curated images are nearer to the real images than a random selection of the same size.",
    "larger": "The curated images are farther from the real images than a random selection of the same size.",
    "no different": "Curated images and a random selection of the same size do not differ significantly in distance to the real images.",
}


def _is_nearer(gap: Gap, held_out: Gap | None) -> str:
    """Whether curation brought the set nearer to the real images, and whether as near as other real images are.

    Args:
        held_out: the gap to the validation part, which the selection did not match.
    """
    difference, floor, after = gap.against_random, gap.main.floor, gap.main.after.value
    if difference is None or difference.verdict is None or after is None:
        return ""
    if gap.nothing_chosen:
        return "All images that passed the filters were kept, so there is no selection to compare with a random one."
    words = _NEARER[difference.verdict]
    other = held_out.against_random if held_out is not None else None
    if other is not None and other.verdict is not None and other.verdict != difference.verdict:
        result = {"smaller": "they are nearer", "larger": "they are farther away", "no different": "there is no significant difference"}
        words += f" Measured against the validation images alone, which the selection did not match, {result[other.verdict]}."
    if floor.low is None or floor.high is None or floor.high <= 0:
        return words
    if after < floor.low:
        return f"{words} The curated images are nearer than other real images, so the selection overfits these real images."
    if after <= floor.high:
        return f"{words} The curated images are as near as other real images."
    return f"{words} Curated images are at {after / floor.high:.1f} times the largest distance expected for other real images."


_COLOURED = ("real", "random", "curated")
"""Arms with a colour of their own, in the order of rows."""


def _colour(arm: str) -> str:
    return arm if arm in _COLOURED else "other"


def _add_evaluation(page: _Page, run: Gathered) -> None:
    if run.evaluation is None:
        page.missing.append("There is no evaluation, or one of an older version: run `synthforge evaluate`. It needs `evaluation.holdout`.")
        return
    page.tables += [table for table in run.evaluation.tables if any(setting.arms for setting in table.settings)]
    for table in page.tables:
        titles = _titles(table.settings)
        accuracies = {title: _accuracies(setting) for title, setting in zip(titles, table.settings, strict=True)}
        page.add(dots(f"accuracy-{table.origin}", "Accuracy on the held-out test set", accuracies, "accuracy on the held-out test set, %"))
        differences = {
            title: [Dot(f"{one.arm} − {one.against}", *in_points(one.difference), _colour(one.arm)) for one in setting.comparisons]
            for title, setting in zip(titles, table.settings, strict=True)
            if setting.comparisons
        }
        if differences:
            name, axis = f"differences-{table.origin}", "difference in accuracy, points"
            page.add(dots(name, "Differences in points of accuracy", differences, axis, form="+.1f", zero=True))
        _add_curve(page, run.evaluation, table)
    page.notes += run.evaluation.notes


def _titles(settings: Sequence[SettingResult | SettingDiagnosis]) -> list[str]:
    """A title for each setting, all different."""
    titles: list[str] = []
    for setting in settings:
        ratio = setting.synthetic_per_real if isinstance(setting, SettingResult) else 1
        title = f"{setting.real_per_class:g} real images per class" + (f", {ratio:g} synthetic per real image" if ratio != 1 else "")
        titles.append(f"{title} ({setting.amount})" if title in titles else title)
    return titles


def _accuracies(setting: SettingResult) -> list[Dot]:
    def place(arm: str) -> tuple[int, int]:
        return arm.count("+"), _COLOURED.index(arm) if arm in _COLOURED else len(_COLOURED)

    return [Dot(arm, *in_points(setting.arms[arm].accuracy), _colour(arm)) for arm in sorted(setting.arms, key=place)]


def _add_curve(page: _Page, evaluation: EvaluateResult, table: TableResult) -> None:
    """Accuracy over the amount of real data: for real images alone, and for some other arms."""
    lines: dict[str, tuple[str, list[tuple[float, float, float, float]]]] = {}
    if len(evaluation.curve) > 1:
        lines["real"] = ("real", [(one.real_per_class, *in_points(one.accuracy)) for one in evaluation.curve])
    fewest = min(setting.synthetic_per_real for setting in table.settings)
    for name in ("random", "curated", "real+curated"):
        points = [
            (setting.real_per_class, *in_points(setting.arms[name].accuracy))
            for setting in table.settings
            if name in setting.arms and setting.synthetic_per_real == fewest
        ]
        if len(points) > 1:
            lines[name] = (_colour(name), points)
    if lines:
        title = "Accuracy in percent by the number of real images per class"
        page.add(curves(f"curve-{table.origin}", title, lines, "real images per class", "accuracy, %"))


def _add_diagnosis(page: _Page, run: Gathered) -> None:
    if run.diagnosis is None:
        page.missing.append("There is no diagnosis, or one of an older version: run `synthforge diagnose`.")
        return
    for table in run.diagnosis.tables:
        groups = {title: _losses(setting.loss) for title, setting in zip(_titles(table.settings), table.settings, strict=True)}
        if len(groups) > 1:
            groups["mean"] = _losses(table.mean)
        page.add(dots(f"diagnosis-{table.origin}", "Accuracy lost, by cause", groups, "accuracy lost, points", form="+.1f", zero=True))
    page.notes += [note for note in run.diagnosis.notes if note not in page.notes]


def _losses(loss: Loss) -> list[Dot]:
    """The whole loss and its parts, without those that were not measured."""
    parts = {"total": (loss.whole, "ink")} | {TITLES[name]: (part, "other") for name, part in loss.parts.items()}
    return [Dot(name, *in_points(part.loss), colour) for name, (part, colour) in parts.items() if part.loss is not None]
