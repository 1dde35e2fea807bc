"""`report`: the results of a run as one HTML page that opens from disk and needs no network.

The page says which results are missing, and how to get them. It shows at most a fixed number of images, whatever the pool's size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from synthforge.curation.choice import NOT_SELECTED
from synthforge.curation.gap.metrics import METRICS, Metric
from synthforge.curation.gates import CopiesGate, in_words
from synthforge.curation.result import CurateResult, Distance, Distances, Gap, Nearer, Region
from synthforge.data.pools import Ints, Table
from synthforge.data.storage import resolve
from synthforge.errors import some
from synthforge.evaluation.results.types import EvaluateResult, Loss, SettingResult, TableResult
from synthforge.evaluation.results.words import listed
from synthforge.progress import Reporter
from synthforge.reporting.answers import Answer, answers_of, headline_of
from synthforge.reporting.figures import REGIMES, distance, in_points
from synthforge.reporting.gathered import Decisions, Gathered
from synthforge.reporting.pictures import Strip, sheet, strip, thumbnails
from synthforge.reporting.plots import Dot, Picture, curves, dots
from synthforge.reporting.templates import page_of, write_page
from synthforge.statistics import Over

REPORT, REPORT_WITHOUT = "report.html", "report-without-real-images.html"
SHOWN_CLASSES = 12
SHOWN_IMAGES = 12
"""Of a class, or of whatever else stands in a row."""
SHOWN_REGIONS = 8
SHOWN_PAIRS = 12
MAPPED = {"real": 300, "pool": 600, "kept": 300}
"""Points of the map, at most."""
FEWEST_MAPPED = 10
MAP_SIDE = 32
"""Pixels of an image that the map shows."""
_LIBRARIES = ("synthforge", "torch", "diffusers", "open-clip-torch", "faiss-cpu", "numpy")


@dataclass(frozen=True)
class ReportResult:
    """What `report` leaves behind."""

    file: str
    plots: list[str]
    bytes: int
    headline: str
    missing: list[str]
    """What the page could not show, and how to get it."""
    seconds: float


@dataclass(frozen=True)
class _Class:
    """Images of a class, a row of each kind."""

    name: str
    rows: list[tuple[str, Strip | None]]
    num: int
    kept: int


@dataclass(frozen=True)
class _Reason:
    """Images that were dropped for one reason."""

    title: str
    why: str
    num: int
    images: Strip | None


@dataclass(frozen=True)
class _Pair:
    """A kept image beside the real one that is nearest to it."""

    images: Strip | None
    distance: str


@dataclass(frozen=True)
class _Lack:
    """A region that lacks images, with examples of both sides."""

    region: Region
    pool: Strip | None
    real: Strip | None


@dataclass(frozen=True)
class _Map:
    """Images as points."""

    points: str
    """JSON."""
    sprite: Strip | None
    num: dict[str, int]


@dataclass
class _Page:
    """What the template shows."""

    name: str
    run: Gathered
    headline: str
    answers: list[Answer]
    asked: list[tuple[str, str]]
    over: str = ""
    """What intervals cover."""
    sets: str = ""
    """What the sets are that are compared."""
    missing: list[str] = field(default_factory=list)
    first: list[tuple[str, Strip | None]] = field(default_factory=list)
    """An image of each class, of each kind: what a reader wants to see before anything."""
    plots: dict[str, Picture] = field(default_factory=dict)
    classes: list[_Class] = field(default_factory=list)
    classes_left: int = 0
    reasons: list[_Reason] = field(default_factory=list)
    copies: str = ""
    """How many were found, in words."""
    kept_in_words: str = ""
    pairs: list[_Pair] = field(default_factory=list)
    map: _Map | None = None
    gap_in_words: str = ""
    gap_rows: list[tuple[Metric, Distances]] = field(default_factory=list)
    tables: list[TableResult] = field(default_factory=list)
    """Of the evaluation, as far as they have arms."""
    regions: list[_Lack] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reproduce: list[str] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    recipe: str = ""
    shows_real: bool = True

    def add(self, plot: Picture) -> None:
        """Show a plot."""
        self.plots[plot.name] = plot


def report(
    run: Gathered, out: str | None = None, reporter: Reporter | None = None, *, real_images: bool = True, trouble: str | None = None
) -> ReportResult:
    """Write the page and its plots.

    Args:
        out: the page's file; otherwise report.html in the run's folder, or report-without-real-images.html. Plots lie beside it.
        real_images: whether real images are shown; without, the page can leave the house.
        trouble: why there is no more than there is.
    Raises: DatasetError for results that can't be read; PlaceError for a place that can't be written.
    """
    reporter, started = reporter or Reporter(), time.perf_counter()
    page = _Page(
        name=run.name,
        run=run,
        headline=headline_of(run.evaluation),
        answers=answers_of(run.evaluation, run.curation, run.diagnosis),
        over=_over(run.evaluation),
        sets=_sets(run),
        asked=_asked(run),
        shows_real=real_images,
        missing=[f"The run ended early: {trouble}"] if trouble is not None else [],
    )
    reporter.note("collecting results and images")
    _add_images(page, run, real_images)
    _add_gap(page, run)
    _add_evaluation(page, run)
    _add_diagnosis(page, run)
    reporter.note("drawing the map")
    page.map = _map(run, real_images, page.missing)
    _add_reproduction(page, run)
    address = resolve(out) if out is not None else run.folder.where(REPORT if real_images else REPORT_WITHOUT)
    content = page_of("page.html.j2", page=page)
    written = write_page(address, content, page.plots.values())
    return ReportResult(
        file=address,
        plots=written,
        bytes=len(content),
        headline=page.headline,
        missing=page.missing,
        seconds=round(time.perf_counter() - started, 1),
    )


def _over(evaluation: EvaluateResult | None) -> str:
    """What the intervals of the first claim cover."""
    table = evaluation.first if evaluation is not None else None
    if table is None or not table.claims:
        return ""
    return _COVERED[table.claims[0].interval_over]


_COVERED: dict[Over, str] = {
    "draws and images": "draws of real images, training seeds and test images",
    "seeds and images": "training seeds and test images, not other real images",
    "images": "test images only, of a single training",
}


def _sets(run: Gathered) -> str:
    """What was compared, for somebody who sees the page for the first time."""
    if run.evaluation is None or (table := run.evaluation.first) is None:
        return ""
    scores = [score for setting in table.settings for score in setting.arms.values()]
    trainings = max((score.draws * score.seeds for score in scores), default=0)
    amounts = listed(list(dict.fromkeys(f"{setting.real_per_class:g}" for setting in table.settings)))
    ratios = listed(list(dict.fromkeys(f"{setting.synthetic_per_real:g}" for setting in table.settings)))
    own = " The generator was trained on these real images only." if table.origin == "own" else ""
    return (
        f"Training sets: real images ({amounts} per class), synthetic images ({ratios} per real image), or both.{own} “Random” synthetic "
        "images are a random choice; “curated” ones were selected by `synthforge curate`. "
        f"On each training set {trainings} classifiers were trained. They were tested on {run.evaluation.holdout_images:,} "
        "held-out real images."
    )


# Settings


def _asked(run: Gathered) -> list[tuple[str, str]]:
    recipe, made_by = run.recipe, run.manifest
    guidance = ", ".join(f"{one:g}" for one in recipe.sampling.guidance)
    rows = [
        ("generator", f"{recipe.generator.kind} {made_by.get('model', recipe.generator.model)}"),
        ("weights, SHA-256", str(made_by.get("sha256", "not known yet"))[:16]),
        ("classes", f"{len(recipe.classes):,}: {some(recipe.classes, 12)}"),
        ("images requested", f"{recipe.num_samples:,}"),
        (
            "sampling",
            f"{recipe.sampling.steps} steps, guidance {guidance}, seed {recipe.sampling.seed}",
        ),
        ("real images", recipe.reference or "none"),
        ("held-out test set", recipe.evaluation.holdout or "none"),
    ]
    if (found := run.curation) is not None:
        rows.append(
            ("curation", f"selection rule {found.method}, for {REGIMES[found.regime]}; {found.kept:,} of {found.pool:,} images kept")
        )
    return rows


# Images


def _add_images(page: _Page, run: Gathered, real_images: bool) -> None:
    if run.pool is None:
        page.missing.append("There are no synthetic images yet: run `synthforge generate`.")
        return
    if not run.has_records:
        page.missing.append("The pool has no records of how it was made, such as its generator. It was not made by `synthforge generate`.")
    if run.curation is None:
        page.missing.append(
            "The pool is not curated yet: run `synthforge curate`. If a curated set of another pool is there, add `--reselect`."
        )
    if run.recipe.reference is not None and run.real is None:
        page.missing.append("The real images are not where the recipe says, so they are not shown. Correct `reference` in the recipe.")
    classes = list(run.recipe.classes)
    of_pool, of_real = run.pool.class_indices(classes), run.real.class_indices(classes) if run.real is not None else None
    kept = run.kept()
    page.classes_left = max(0, len(classes) - SHOWN_CLASSES)
    for number, name in enumerate(classes[:SHOWN_CLASSES]):
        rows: list[tuple[str, Strip | None]] = []
        if real_images and run.real is not None and of_real is not None:
            rows.append(("real", _row(run.real, np.flatnonzero(of_real == number), f"real images of class {name}")))
        rows.append(("synthetic", _row(run.pool, np.flatnonzero(of_pool == number), f"synthetic images of class {name}")))
        if run.decisions is not None:
            rows.append(("kept", _row(run.pool, kept[of_pool[kept] == number], f"synthetic images of class {name} that were kept")))
        page.classes.append(_Class(name, rows, num=int((of_pool == number).sum()), kept=int((of_pool[kept] == number).sum())))
    of_kinds = [("synthetic", run.pool, np.arange(len(run.pool)), of_pool)]
    if run.decisions is not None:
        of_kinds.append(("kept", run.pool, kept, of_pool[kept]))
    if real_images and run.real is not None and of_real is not None:
        of_kinds.insert(0, ("real", run.real, np.arange(len(run.real)), of_real))
    for label, table, rows_of, class_of in of_kinds:
        ones = [
            int(rows_of[np.argmax(class_of == number)]) if (class_of == number).any() else -1
            for number in range(min(SHOWN_CLASSES, len(classes)))
        ]
        page.first.append((label, strip(table, ones, f"{label}: an image of each class")))
    if run.decisions is not None and run.curation is not None:
        _add_reasons(page, run.pool, run.decisions, run.curation)
        if real_images and run.real is not None:
            _add_pairs(page, run.pool, run.real, run.decisions)
        _add_regions(page, run.pool, run.real if real_images else None, run.curation)


def _row(table: Table, rows: Ints, alt: str) -> Strip | None:
    """The first so many of some rows."""
    chosen = rows[:SHOWN_IMAGES].tolist()
    return strip(table, chosen, f"{len(chosen)} {alt}")


def _add_reasons(page: _Page, pool: Table, decisions: Decisions, curation: CurateResult) -> None:
    """Images that were dropped, by reason."""
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
        page.reasons.append(_Reason(title, why, num, _row(pool, spread, f"images dropped: {title}")))


def _add_pairs(page: _Page, pool: Table, real: Table, decisions: Decisions) -> None:
    """The kept images that are nearest to a real one."""
    kept, nearest_real = np.flatnonzero(decisions.kept), decisions.nearest_real
    if nearest_real is None or decisions.nearest_real_distance is None or not len(kept):
        return
    apart = np.array([np.inf if one is None else one for one in decisions.nearest_real_distance], float)
    usual = max(float(np.median(apart[kept])), 1e-12)
    row_of = {key: row for row, key in enumerate(real.strings("key"))}
    for made in kept[np.argsort(apart[kept], kind="stable")[:SHOWN_PAIRS]].tolist():
        if nearest_real[made] in row_of:
            both = [*thumbnails(pool, np.array([made]), 64), *thumbnails(real, np.array([row_of[nearest_real[made]]]), 64)]
            beside = sheet(both, "a kept image and its nearest real image", 2, 64, gap=4)
            page.pairs.append(_Pair(beside, _percent(apart[made] / usual)))


def _add_regions(page: _Page, pool: Table, real: Table | None, curation: CurateResult) -> None:
    """Where images lack, with examples."""
    of_pool = {key: number for number, key in enumerate(pool.strings("key"))}
    of_real = {key: number for number, key in enumerate(real.strings("key"))} if real is not None else {}
    for region in curation.lacking[:SHOWN_REGIONS]:
        nearest = [of_pool[key] for key in region.pool_keys if key in of_pool]
        examples = [of_real[key] for key in region.real_keys if key in of_real]
        alt = f"real images of class {region.class_name} that are underrepresented"
        page.regions.append(
            _Lack(
                region,
                strip(pool, nearest, f"the most similar synthetic images of class {region.class_name}"),
                strip(real, examples, alt) if real is not None else None,
            )
        )


_NOT_NEEDED = (
    "Not selected",
    "These images passed every filter. The selection rule preferred others, since there are more than requested.",
)


def _why(reason: str) -> tuple[str, str]:
    return _NOT_NEEDED if reason == NOT_SELECTED else in_words(reason)


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
    sets: list[tuple[str, str, Distance]] = [
        ("whole pool", "other", found.before),
        ("random, same size", "random", found.random),
        ("curated", "curated", found.after),
        ("other real images", "real", found.floor),
    ]
    rows = [Dot(label, one.value, one.low, one.high, colour) for label, colour, of in sets if (one := of.measured) is not None]
    if rows:
        told = "; ".join(f"{label} {distance(one)}" for label, _, one in sets if one.measured is not None)
        floor = found.floor.measured
        alt, axis = f"{title} to the real images: {told}", f"{title} to the real images (lower is better)"
        page.add(dots("gap", alt, {"": rows}, axis, band=(floor.low, floor.high) if floor is not None else None))
    page.gap_in_words = _is_nearer(gap, held_out)


_NEARER: dict[Nearer, str] = {
    "smaller": "The curated images are nearer to the real images than a random selection of the same size.",
    "larger": "The curated images are farther from the real images than a random selection of the same size.",
    "no different": "Curated images and a random selection of the same size do not differ significantly in distance to the real images.",
}


def _is_nearer(gap: Gap, held_out: Gap | None) -> str:
    """Whether curation brought the set nearer to the real images, and whether as near as other real images are.

    Args:
        held_out: the gap to real images that the selection did not use.
    """
    difference, floor, after = gap.against_random, gap.main.floor, gap.main.after.value
    if difference is None or difference.verdict is None or after is None:
        return ""
    if gap.nothing_chosen:
        return "All images that passed the filters were kept, so there is no selection to compare with a random one."
    words = _NEARER[difference.verdict]
    other = held_out.against_random if held_out is not None else None
    if other is not None and other.verdict is not None and other.verdict != difference.verdict:
        result = {"smaller": "they are nearer", "larger": "they are farther away", "no different": "this is not significant"}[other.verdict]
        words += f" Compared with the validation images alone, which the selection did not use, {result}."
    if floor.low is None or floor.high is None or floor.high <= 0:
        return words
    if after < floor.low:
        return f"{words} They are nearer than other real images would be, so the selection overfits these real images."
    if after <= floor.high:
        return f"{words} They are as near as other real images would be."
    return f"{words} Their distance is {after / floor.high:.1f} times the largest distance expected of other real images."


_COLOURS = {"real": "real", "random": "random", "curated": "curated"}
_ORDER = {name: place for place, name in enumerate(_COLOURS)}


def _add_evaluation(page: _Page, run: Gathered) -> None:
    if run.evaluation is None:
        page.missing.append(
            "There is no evaluation of this version: run `synthforge evaluate`. It needs a held-out test set (`evaluation.holdout`)."
        )
        return
    page.tables += [table for table in run.evaluation.tables if any(setting.arms for setting in table.settings)]
    for table in page.tables:
        titles = _titles(table.settings)
        accuracies = {title: _accuracies(setting) for title, setting in zip(titles, table.settings, strict=True)}
        alt = f"Accuracy on the held-out test set. {_told(accuracies, '.1f', ' %')}"
        page.add(dots(f"accuracy-{table.origin}", alt, accuracies, "accuracy on the held-out test set, %"))
        differences = {
            title: [Dot(f"{one.arm} − {one.against}", *in_points(one.difference), _colour(one.arm)) for one in setting.comparisons]
            for title, setting in zip(titles, table.settings, strict=True)
            if setting.comparisons
        }
        if differences:
            alt = f"Differences in points of accuracy. {_told(differences, '+.1f')}"
            page.add(dots(f"differences-{table.origin}", alt, differences, "difference of accuracy, points", zero=True))
        _add_curve(page, run.evaluation, table)
    page.notes += run.evaluation.notes


def _titles(settings: Sequence[SettingResult]) -> list[str]:
    """Of rows in a plot, all different."""
    titles: list[str] = []
    for one in settings:
        ratio = f", {one.synthetic_per_real:g} synthetic for each" if one.synthetic_per_real != 1 else ""
        title = f"{one.real_per_class:g} real images per class{ratio}"
        titles.append(f"{title} ({one.amount})" if title in titles else title)
    return titles


def _accuracies(setting: SettingResult) -> list[Dot]:
    in_order = sorted(setting.arms.items(), key=lambda item: (item[0].count("+"), _ORDER.get(item[0], len(_ORDER))))
    return [Dot(name, *in_points(score.accuracy), _colour(name)) for name, score in in_order]


def _colour(arm: str) -> str:
    return _COLOURS.get(arm, "other")


def _told(groups: Mapping[str, Sequence[Dot]], form: str, unit: str = "") -> str:
    """What a plot shows."""
    return "; ".join(f"{title}: {', '.join(f'{one.label} {one.value:{form}}{unit}' for one in rows)}" for title, rows in groups.items())


def _add_curve(page: _Page, evaluation: EvaluateResult, table: TableResult) -> None:
    """Accuracy over the amount of real data, of real only and of arms that stand beside it."""
    lines: dict[str, tuple[str, list[tuple[float, float, float, float]]]] = {}
    if len(evaluation.curve) > 1:
        lines["real"] = ("real", [(one.real_per_class, *in_points(one.accuracy)) for one in evaluation.curve])
    fewest = min(setting.synthetic_per_real for setting in table.settings)
    for name, colour in (("random", "random"), ("curated", "curated"), ("real+curated", "other")):
        found = [
            (setting.real_per_class, *in_points(setting.arms[name].accuracy))
            for setting in table.settings
            if name in setting.arms and setting.synthetic_per_real == fewest
        ]
        if len(found) > 1:
            lines[name] = (colour, found)
    if lines:
        told = "; ".join(
            f"{name}: {', '.join(f'{value:.1f} % with {size:g}' for size, value, _, _ in rows)}" for name, (_, rows) in lines.items()
        )
        alt = f"Accuracy by the number of real images per class. {told}"
        page.add(curves(f"curve-{table.origin}", alt, lines, "real images per class", "accuracy, %"))


def _add_diagnosis(page: _Page, run: Gathered) -> None:
    if run.diagnosis is None:
        page.missing.append("There is no diagnosis of this version: run `synthforge diagnose`.")
        return
    for table in run.diagnosis.tables:
        groups: dict[str, list[Dot]] = {}
        for one in table.settings:
            title = f"{one.real_per_class:g} real images per class"
            groups[f"{title} ({one.amount})" if title in groups else title] = _losses(one.loss)
        if len(table.settings) > 1:
            groups["mean"] = _losses(table.mean)
        alt = f"Loss of accuracy by cause, in points. {_told(groups, '+.1f')}"
        page.add(dots(f"diagnosis-{table.origin}", alt, groups, "loss of accuracy, points", zero=True))
    page.notes += [note for note in run.diagnosis.notes if note not in page.notes]


def _losses(loss: Loss) -> list[Dot]:
    """In all, and by part, as far as they were measured."""
    whole = [Dot("total", *in_points(loss.whole.loss), "ink")] if loss.whole.loss is not None else []
    return [*whole, *(Dot(name, *in_points(part.loss), "other") for name, part in loss.parts.items() if part.loss is not None)]


# The map


def _map(run: Gathered, real_images: bool, missing: list[str]) -> _Map | None:
    """Real, made and kept images in two dimensions, by what the metric encoder makes of them (t-SNE; van der Maaten and Hinton 2008)."""
    if run.pool is None or run.real is None or run.decisions is None:
        return None
    chooser, kept = np.random.default_rng(0), run.kept()
    others = np.setdiff1d(np.arange(len(run.pool)), kept)
    rows = {
        "real": chooser.permutation(len(run.real))[: MAPPED["real"]],
        "pool": chooser.permutation(others)[: MAPPED["pool"]],
        "kept": chooser.permutation(kept)[: MAPPED["kept"]],
    }
    found = {kind: run.features(run.real if kind == "real" else run.pool, chosen) for kind, chosen in rows.items()}
    if any(part is None for part in found.values()):
        missing.append("The map needs the metric encoder's features, which are no longer in the cache: run `synthforge curate --reselect`.")
        return None
    parts = []
    for kind, part in found.items():  # images that can't be read have none
        assert part is not None
        fine = np.isfinite(part).all(axis=1)
        rows[kind] = rows[kind][fine]
        parts.append(part[fine])
    features = np.concatenate(parts)
    if len(features) < FEWEST_MAPPED:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    reduced = PCA(min(30, *features.shape), random_state=0).fit_transform(features)
    places = TSNE(2, perplexity=min(30.0, (len(features) - 1) / 3), init="pca", random_state=0, max_iter=500).fit_transform(reduced)
    places = (places - places.min(axis=0)) / np.maximum(np.ptp(places, axis=0), 1e-9)
    points, images = [], []
    start = 0
    for kind, chosen in rows.items():
        table = run.real if kind == "real" else run.pool
        classes, keys = table.strings("class")[chosen], table.strings("key")[chosen]
        if kind != "real" or real_images:
            images += thumbnails(table, chosen, MAP_SIDE)
        shown = kind != "real" or real_images
        for number in range(len(chosen)):
            x, y = places[start + number].tolist()
            points.append(
                [
                    round(x, 4),
                    round(y, 4),
                    kind,
                    str(classes[number]),
                    str(keys[number]),
                    len(images) - len(chosen) + number if shown else -1,
                ]
            )
        start += len(chosen)
    whole = sheet(images, "", 40, MAP_SIDE)
    return _Map(json.dumps(points), whole, {kind: len(chosen) for kind, chosen in rows.items()})


# How to make it again


def _add_reproduction(page: _Page, run: Gathered) -> None:
    page.recipe = json.dumps(run.recipe.model_dump(mode="json", exclude_defaults=True), indent=2)
    page.reproduce = [f"synthforge {verb} recipe.yaml" for verb in ("generate", "curate", "evaluate", "diagnose", "report")]
    for name in _LIBRARIES:
        try:
            page.versions.append((name, version(name)))
        except PackageNotFoundError:
            continue
    if run.pool is not None:
        page.versions.append(("digest of the pool", str(run.pool.collections[0].digest)))
    if run.curation is not None:
        page.versions.append(("digest of the curation plan", run.curation.digest))
    if run.evaluation is not None:
        page.versions.append(("trained on", run.evaluation.device))
