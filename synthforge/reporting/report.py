"""`report`: everything that is known of a run as one page of HTML, which opens from disk and asks nothing of any network.

What a run has not got, the page says, and how to get it. Its size is bounded: of a pool of any size the same number of images is shown.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from synthforge.curation.choice import NOT_SELECTED
from synthforge.curation.gap.metrics import METRICS
from synthforge.curation.gates import CopiesGate, in_words
from synthforge.data.pools import Ints, Table
from synthforge.data.storage import resolve
from synthforge.errors import some
from synthforge.progress import Reporter
from synthforge.reporting.answers import PARTS, Answer, answers_of, first_table, headline_of
from synthforge.reporting.figures import distance, in_points
from synthforge.reporting.gathered import Gathered
from synthforge.reporting.pictures import Strip, sheet, strip, thumbnails
from synthforge.reporting.plots import Dot, Picture, curves, dots
from synthforge.reporting.templates import page_of, write_page

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


@dataclass
class _Page:
    """What the template shows."""

    name: str
    headline: str
    verdict: str
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
    classes: list[dict[str, Any]] = field(default_factory=list)
    classes_left: int = 0
    reasons: list[dict[str, Any]] = field(default_factory=list)
    rules: list[tuple[str, str]] = field(default_factory=list)
    """Of each gate."""
    copies: str = ""
    """How many were found, in words."""
    kept_in_words: str = ""
    pairs: list[dict[str, Any]] = field(default_factory=list)
    map: dict[str, Any] | None = None
    gap: dict[str, Any] | None = None
    tables: list[dict[str, Any]] = field(default_factory=list)
    diagnosis: dict[str, Any] | None = None
    regions: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reproduce: list[str] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    recipe: str = ""
    shows_real: bool = True


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
        headline=headline_of(run.evaluation),
        verdict=run.evaluation["verdict"] if run.evaluation is not None else "",
        answers=answers_of(run.evaluation, run.gap, run.diagnosis),
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
    return ReportResult(address, written, len(content), page.headline, page.missing, round(time.perf_counter() - started, 1))


def _over(evaluation: dict[str, Any] | None) -> str:
    """What the intervals of the first claim cover."""
    table = first_table(evaluation)
    over = table["claims"][0]["interval_over"] if table is not None and table["claims"] else ""
    return f"{over}, not other draws of the real images" if over == "seeds and images" else over


def _sets(run: Gathered) -> str:
    if (table := first_table(run.evaluation)) is None or run.evaluation is None:
        return ""
    scores = [score for setting in table["settings"] for score in setting["arms"].values()]
    draws, seeds = max((score["draws"], score["seeds"]) for score in scores) if scores else (0, 0)
    amounts = ", ".join(dict.fromkeys(f"{setting['real_per_class']:g}" for setting in table["settings"]))
    ratios = ", ".join(dict.fromkeys(f"{setting['synthetic_per_real']:g}" for setting in table["settings"]))
    own = ", from a generator that has seen only these real ones" if table["origin"] == "own" else ""
    return (
        f"With {amounts} real images of a class, {ratios} synthetic for each{own}. Random ones are drawn blindly, curated (or kept) ones "
        f"were chosen. {draws * seeds} classifiers were trained on each set, and tested on {run.evaluation['holdout_images']:,} other real "
        "images (the holdout)." + (" Pictures, map and gap are of the recipe's own pool." if run.pool is not None else "")
    )


# What was asked for


def _asked(run: Gathered) -> list[tuple[str, str]]:
    recipe, made_by = run.recipe, run.manifest
    guidance = ", ".join(f"{one:g}" for one in recipe.sampling.guidance)
    rows = [
        ("generator", f"{recipe.generator.kind} {made_by.get('model', recipe.generator.model)}"),
        ("weights, SHA-256", str(made_by.get("sha256", "not known yet"))[:16]),
        ("classes", f"{len(recipe.classes):,}: {some(recipe.classes, 12)}"),
        ("images asked for", f"{recipe.num_samples:,}"),
        (
            "sampling",
            f"{recipe.sampling.steps} steps, guidance {guidance}, seed {recipe.sampling.seed}",
        ),
        ("real images", recipe.reference or "none"),
        ("holdout", recipe.evaluation.holdout or "none"),
    ]
    if run.gap is not None:
        rows.append(("curation", f"{run.gap['method']}, for {run.gap['regime']}; {run.gap['kept']:,} of {run.gap['pool']:,} kept"))
    return rows


# Images


def _add_images(page: _Page, run: Gathered, real_images: bool) -> None:
    if run.pool is None:
        page.missing.append("There is no pool yet: run `synthforge generate`.")
        return
    if not run.has_records:
        page.missing.append("The pool keeps no records of how it was made, such as its generator: it comes from elsewhere.")
    if run.gap is None:
        page.missing.append("The pool, as it is now, is not curated yet: run `synthforge curate` (with --reselect if it was another).")
    if run.recipe.reference is not None and run.real is None:
        page.missing.append("The real images are not where the recipe says, so they are not shown.")
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
        page.classes.append(
            {"name": name, "rows": rows, "num": int((of_pool == number).sum()), "kept": int((of_pool[kept] == number).sum())}
        )
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
    _add_decisions(page, run, kept, real_images)


def _row(table: Table, rows: Ints, alt: str) -> Strip | None:
    """The first so many of some rows."""
    chosen = rows[:SHOWN_IMAGES].tolist()
    return strip(table, chosen, f"{len(chosen)} {alt}")


def _add_decisions(page: _Page, run: Gathered, kept: Ints, real_images: bool) -> None:
    if run.decisions is None or run.gap is None or run.pool is None:
        return
    reasons = run.decisions["reason"]
    page.kept_in_words = f"{len(kept):,} of {len(reasons):,} images were kept."
    page.rules = [(gate["gate"], gate["rule"]) for gate in run.gap["gates"]]
    copies = sum(num for gate in run.gap["gates"] for reason, num in gate["dropped"].items() if reason.startswith("copy of"))
    if any(gate["gate"] == CopiesGate.title for gate in run.gap["gates"]):
        page.copies = f"Of the pool {copies:,} were dropped as copies of a real image."
    counts = {str(reason): int((reasons == reason).sum()) for reason in dict.fromkeys(reasons) if reason is not None}
    in_order = [*(reason for gate in run.gap["gates"] for reason in gate["dropped"]), NOT_SELECTED]
    for reason, num in sorted(counts.items(), key=lambda item: in_order.index(item[0]) if item[0] in in_order else -1):
        rows = np.flatnonzero(reasons == reason)
        spread = rows[np.linspace(0, len(rows) - 1, min(SHOWN_IMAGES, len(rows))).astype(np.int64)]
        title, why = _why(reason)
        page.reasons.append({"title": title, "num": num, "why": why, "images": _row(run.pool, spread, f"images dropped: {title}")})
    if real_images and run.real is not None and "nearest_real" in run.decisions and len(kept):
        apart = np.array([np.inf if one is None else one for one in run.decisions["nearest_real_distance"]], float)
        nearest = kept[np.argsort(apart[kept], kind="stable")[:SHOWN_PAIRS]]
        usual = float(np.median(apart[kept]))
        row_of = {key: row for row, key in enumerate(run.real.strings("key"))}
        pairs = [(int(row), row_of[run.decisions["nearest_real"][row]]) for row in nearest if run.decisions["nearest_real"][row] in row_of]
        for made, real in pairs:
            both = [*thumbnails(run.pool, np.array([made]), 64), *thumbnails(run.real, np.array([real]), 64)]
            beside = sheet(both, "a kept image, and the real one nearest to it", 2, 64, gap=4)
            page.pairs.append({"images": beside, "distance": _percent(apart[made] / max(usual, 1e-12))})
    of_pool = {key: number for number, key in enumerate(run.pool.strings("key"))}
    of_real = {key: number for number, key in enumerate(run.real.strings("key"))} if run.real is not None else {}
    for region in [one for one in run.gap["regions"] if one["is_significant"]][:SHOWN_REGIONS]:
        row: dict[str, Any] = {
            "class": region["class_name"],
            "wanted": region["num_wanted"],
            "real_share": region["real_share"],
            "pool_share": region["pool_share"],
        }
        row["pool"] = strip(
            run.pool,
            [of_pool[key] for key in region["pool_keys"] if key in of_pool],
            f"the synthetic images of class {region['class_name']} that come nearest",
        )
        row["real"] = None
        if real_images and run.real is not None:
            row["real"] = strip(
                run.real,
                [of_real[key] for key in region["real_keys"] if key in of_real],
                f"real images of class {region['class_name']} of which there are too few synthetic ones",
            )
        page.regions.append(row)


_NOT_NEEDED = (
    "Not needed",
    "Nothing is wrong with these: there are more than were wanted, and the rule of selection preferred others.",
)


def _why(reason: str) -> tuple[str, str]:
    return _NOT_NEEDED if reason == NOT_SELECTED else in_words(reason)


def _percent(share: float) -> str:
    return f"{100 * share:.{0 if share >= 0.1 else 1}f} %"


# Gap, evaluation, diagnosis


def _add_gap(page: _Page, run: Gathered) -> None:
    if run.gap is None:
        return
    gap = run.gap["gap"]
    names = {
        "before": ("whole pool", "other"),
        "random": ("random, as many", "random"),
        "after": ("curated", "curated"),
        "floor": ("real against real", "real"),
    }
    rows = []
    for metric, found in [(metric, gap["metrics"][metric]) for metric in METRICS if metric in gap["metrics"]]:
        figures = {which: found[which] for which in names}
        if figures["after"]["value"] is None:
            continue
        rows.append(
            {
                "metric": METRICS[metric].name,
                "meaning": METRICS[metric].sentence,
                "better": {"near floor": "as real ones"}.get(METRICS[metric].better, METRICS[metric].better),
                **{which: distance(one) for which, one in figures.items()},
            }
        )
    found = gap["metrics"][gap["primary"]]
    known = {which: found[which] for which in names if found[which]["low"] is not None and found[which]["value"] is not None}
    if known:
        title = METRICS[gap["primary"]].name
        told = "; ".join(f"{names[which][0]} {distance(one)}" for which, one in known.items())
        dots_of = [Dot(names[which][0], one["value"], one["low"], one["high"], names[which][1]) for which, one in known.items()]
        band = (known["floor"]["low"], known["floor"]["high"]) if "floor" in known else None
        page.plots["gap"] = dots(
            "gap", f"{title} to the real images: {told}", {"": dots_of}, f"{title} to the real images (nearer is better)", band=band
        )
    told = _is_nearer(gap, run.gap.get("gap_held_out"))
    page.gap = {"told": told, "sentence": run.gap["sentence"], "rows": rows, "notes": run.gap["notes"]}


def _is_nearer(gap: dict[str, Any], held_out: dict[str, Any] | None) -> str:
    """Whether curation brought the set nearer to the real images, and whether as near as other real ones, for any reader.

    Args:
        held_out: the gap to real images that nothing was matched to.
    """
    found = gap["metrics"][gap["primary"]]
    difference, floor, after = found["after_minus_random"], found["floor"], found["after"]["value"]
    if difference is None or difference["verdict"] is None or after is None:
        return ""
    words = {"smaller": "Yes", "larger": "No, they are farther away", "no different": "That can’t be told"}
    told = f"Are the kept images nearer to the real ones than as many at random? {words[difference['verdict']]}."
    if gap.get("nothing_chosen"):
        return "All images that passed were kept, so none were chosen for being near to the real ones."
    other = held_out["metrics"][held_out["primary"]]["after_minus_random"] if held_out is not None else None
    if other is not None and other["verdict"] not in {None, difference["verdict"]}:
        answer = "that may be chance" if other["verdict"] == "no different" else "the answer is another one"
        told += f" But against the validation images alone, which nothing was matched to, {answer}."
    if floor["high"] is None or floor["high"] <= 0:
        return told
    if after < floor["low"]:
        return f"{told} They lie nearer than other real images would, so they are fitted to these very images."
    if after <= floor["high"]:
        return f"{told} They can’t be told from other real images."
    return f"{told} The distance of the kept ones is {after / floor['high']:.1f} times what that of other real images would be at most."


_COLOURS = {"real": "real", "random": "random", "curated": "curated"}
_ORDER = {name: place for place, name in enumerate(_COLOURS)}


def _add_evaluation(page: _Page, run: Gathered) -> None:
    if run.evaluation is None:
        page.missing.append(
            "There is no evaluation, or one of another version: run `synthforge evaluate` (it needs a holdout of real images)."
        )
        return
    for table in run.evaluation["tables"]:
        if not any(setting["arms"] for setting in table["settings"]):
            continue
        origin = table["origin"]
        groups: dict[str, list[Dot]] = {}
        for setting in table["settings"]:
            ratio = f", {setting['synthetic_per_real']:g} synthetic for each" if setting["synthetic_per_real"] != 1 else ""
            title = f"{setting['real_per_class']:g} real per class{ratio}"
            title = f"{title} ({setting['amount']})" if title in groups else title
            in_order = sorted(setting["arms"].items(), key=lambda item: (item[0].count("+"), _ORDER.get(item[0], len(_ORDER))))
            groups[title] = [_dot(name, score["accuracy"], _COLOURS.get(name, "other")) for name, score in in_order]
        told = "; ".join(f"{title}: {', '.join(f'{one.label} {one.value:.1f} %' for one in rows)}" for title, rows in groups.items())
        page.plots[f"accuracy-{origin}"] = dots(
            f"accuracy-{origin}", f"Accuracy on the holdout. {told}", groups, "accuracy on real holdout images, %"
        )
        differences = {
            title: [
                Dot(
                    f"{one['arm']} − {one['against']}",
                    *in_points(one["difference"]),
                    _COLOURS.get(one["arm"], "other"),
                )
                for one in setting["comparisons"]
            ]
            for title, setting in zip(groups, table["settings"], strict=True)
            if setting["comparisons"]
        }
        if differences:
            told = "; ".join(
                f"{title}: {', '.join(f'{one.label} {one.value:+.1f}' for one in rows)}" for title, rows in differences.items()
            )
            page.plots[f"differences-{origin}"] = dots(
                f"differences-{origin}",
                f"Differences in points of accuracy. {told}",
                differences,
                "difference, points of accuracy",
                zero=True,
            )
        page.tables.append(
            {"origin": origin, "generator": table["generator"], "settings": [setting["sentence"] for setting in table["settings"]]}
        )
        _add_curve(page, run.evaluation, table)
    page.notes += run.evaluation["notes"]


def _dot(name: str, accuracy: dict[str, float], colour: str) -> Dot:
    return Dot(name, *in_points(accuracy), colour)


def _add_curve(page: _Page, evaluation: dict[str, Any], table: dict[str, Any]) -> None:
    """Accuracy over the amount of real data, of real only and of arms that stand beside it."""

    def point(size: float, accuracy: dict[str, float]) -> tuple[float, float, float, float]:
        return size, *in_points(accuracy)

    lines: dict[str, tuple[str, list[tuple[float, float, float, float]]]] = {}
    if len(evaluation["curve"]) > 1:
        lines["real"] = ("real", [point(one["real_per_class"], one["accuracy"]) for one in evaluation["curve"]])
    ratios = {setting["synthetic_per_real"] for setting in table["settings"]}
    for name, colour in (("random", "random"), ("curated", "curated"), ("real+curated", "other")):
        found = [
            point(setting["real_per_class"], setting["arms"][name]["accuracy"])
            for setting in table["settings"]
            if name in setting["arms"] and setting["synthetic_per_real"] == min(ratios)
        ]
        if len(found) > 1:
            lines[name] = (colour, found)
    if lines:
        told = "; ".join(
            f"{name}: {', '.join(f'{value:.1f} % with {size:g}' for size, value, _, _ in rows)}" for name, (_, rows) in lines.items()
        )
        name = f"curve-{table['origin']}"
        page.plots[name] = curves(
            name, f"Accuracy by the number of real images per class. {told}", lines, "real images per class", "accuracy, %"
        )


def _add_diagnosis(page: _Page, run: Gathered) -> None:
    if run.diagnosis is None:
        page.missing.append("There is no diagnosis, or one of another version: run `synthforge diagnose`.")
        return
    tables = []
    for table in run.diagnosis["tables"]:
        groups = {}
        for one in [*table["settings"], {"real_per_class": None, "loss": table["mean"]}]:
            if one["real_per_class"] is None and len(table["settings"]) < 2:
                continue
            title = f"{one['real_per_class']:g} real per class" if one["real_per_class"] is not None else "mean"
            title = f"{title} ({one['amount']})" if title in groups else title
            parts = {"in all": one["loss"]["whole"], **{name: one["loss"]["parts"][name] for name in PARTS}}
            groups[title] = [
                Dot(name, *in_points(part["loss"]), "ink" if name == "in all" else "other")
                for name, part in parts.items()
                if part["loss"] is not None
            ]
        told = "; ".join(f"{title}: {', '.join(f'{one.label} {one.value:+.1f}' for one in rows)}" for title, rows in groups.items())
        name = f"diagnosis-{table['origin']}"
        page.plots[name] = dots(name, f"Points of accuracy lost, by cause. {told}", groups, "points of accuracy lost", zero=True)
        tables.append({"origin": table["origin"], "sentences": [one["sentence"] for one in table["settings"]], "plot": name})
    page.diagnosis = {
        "verdict": run.diagnosis["verdict"],
        "advice": run.diagnosis["advice"],
        "tables": tables,
        "strength": run.diagnosis["strength"],
    }
    page.notes += [note for note in run.diagnosis["notes"] if note not in page.notes]


# The map


def _map(run: Gathered, real_images: bool, missing: list[str]) -> dict[str, Any] | None:
    """Real, made and kept images in two dimensions, by what the metric encoder makes of them (t-SNE; van der Maaten and Hinton 2008)."""
    if run.gap is None or run.pool is None or run.real is None or run.decisions is None:
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
        missing.append("The map needs the metric encoder's features, which are no longer in the cache: run `synthforge curate` again.")
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
    return {"points": json.dumps(points), "sprite": whole, "num": {kind: len(chosen) for kind, chosen in rows.items()}}


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
    if run.gap is not None:
        page.versions.append(("digest of the curated set's plan", str(run.gap["digest"])))
    if run.evaluation is not None:
        page.versions.append(("trained on", str(run.evaluation["device"])))
