"""`curate`: choose the subset of the pools whose distribution matches the real images, and measure the gap that is
left.

The steps: embed both sides, apply the gates, select, measure the gap, find underrepresented regions, write the curated
folder. All steps before the last depend only on pools, reference and settings. Features are cached, so a repeated or
interrupted run is fast.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthforge.curation.choice import Choice, Gated, pick, weighed
from synthforge.curation.gap.gap import MetricView, measure_gap, sentence
from synthforge.curation.gap.regions import underrepresented
from synthforge.curation.gates import in_order
from synthforge.curation.request import CurationRequest
from synthforge.curation.result import Better, CurateResult, Gap, GateReport, Nearer, Region, Trial
from synthforge.curation.selection.trials import choose_method, compare_training, random_rows
from synthforge.curation.sides import Sides, identities
from synthforge.curation.write import require_free, require_same, write
from synthforge.data.layout import digest_of
from synthforge.data.storage import Folder, resolve
from synthforge.errors import NothingLeftError, RequestError
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig

RANDOM_DRAWS = 10
"""Random sets with which the selection is compared."""


def curate(request: CurationRequest, reporter: Reporter | None = None, *, reselect: bool = False) -> CurateResult:
    """Choose the subset of the pools that best matches the real images, and write it as a dataset folder.

    Args:
        reporter: shows progress; None shows nothing.
        reselect: replace a curated set that was chosen with other settings.
    Raises: RequestError and its subclasses before anything is changed; WorkError and its subclasses once work has
    begun.
    """
    config, reporter, started = request.config, reporter or Reporter(), time.perf_counter()
    inputs = [*request.pools, request.reference]
    folder = Folder(resolve(request.out))
    if config.cache is not None:
        _require_apart(config.cache, inputs, "the cached features")
    _require_apart(folder.address, inputs, "the curated set")
    require_free(folder)
    sides = Sides.read(request.pools, request.reference, config, reporter)
    sides.load(reporter)
    sides.embed_reference(reporter)
    digest = digest_of(sides.settings)
    if not reselect:
        require_same(folder, digest)
    folder.require_writable()
    sides.embed_pool(reporter)

    choice = _choice(_gated(sides, reporter), reporter)
    reporter.note("measuring the gap")
    draws = random_rows(sides, choice.gated.alive, {name: report.kept for name, report in choice.per_class.items()}, RANDOM_DRAWS)

    def gap_to(views: Sequence[MetricView]) -> Gap:
        before = np.flatnonzero(sides.usable)
        return measure_gap(views, classes=sides.classes, before=before, after=choice.kept, random=draws, seed=config.selection.seed)

    gap, held_out = gap_to(sides.metric_views), None if sides.fit.all() else gap_to(sides.held_out_views)
    can_train = config.trials.check and not sides.fit.all() and not config.selection.weights and not gap.nothing_chosen
    training = compare_training(sides, choice.kept, draws, reporter) if can_train else None
    result = CurateResult(
        folder=folder.address,
        digest=digest,
        regime=config.regime,
        method=choice.method,
        inputs=[collection.report for side in (sides.pool, sides.real) for collection in side.collections],
        pool=len(sides.pool),
        unusable=_counts(sides.problem[~sides.usable]),
        gates=choice.gated.reports,
        kept=len(choice.kept),
        per_class=choice.per_class,
        gap=gap,
        gap_held_out=held_out,
        training=training,
        trials=choice.trials,
        sentence=_summary(gap, held_out, training, bool(choice.trials)),
        regions=_regions(sides, choice),
        notes=[*sides.notes, *choice.gated.warnings, *choice.notes, *_unusable(sides), *_transparent(choice)],
        encoder=identities(sides.encoders),
        metric_encoder=identities(sides.metric_encoders),
    )
    reporter.note("writing the curated set")
    sheet = write(folder, choice, result, request, reporter, reselect=reselect)
    return result.model_copy(update={"seconds": round(time.perf_counter() - started, 1), "contact_sheet": sheet})


def gate(pools: Sequence[str], reference: str, config: CurationConfig, reporter: Reporter) -> Gated:
    """Embed both sides and apply the gates, as `curate` does. Raises the same errors."""
    sides = Sides.read(pools, reference, config, reporter)
    sides.load(reporter, with_metric_encoder=False)
    sides.embed_reference(reporter)
    sides.embed_pool(reporter)
    return _gated(sides, reporter)


def choose(gated: Gated, config: CurationConfig, reporter: Reporter) -> Choice:
    """The images that `curate` would keep, without measuring a gap or writing anything.

    Args:
        config: equal to that of `gated`, except for `selection` and `regime`.
    """
    return _choice(replace(gated, sides=gated.sides.choosing_by(config)), reporter)


def _gated(sides: Sides, reporter: Reporter) -> Gated:
    reason, alive = sides.problem.copy(), sides.usable.copy()
    if not alive.any():
        raise NothingLeftError(f"{sides.pool.collections[0].address}: no image can be used: {_in_words(_counts(reason))}")
    scores: dict[str, NDArray[Any]] = {}
    reports, warnings = [], []
    for one in in_order(sides.config):
        reporter.note(f"gate: {one.title}")
        outcome = one.test(sides.evidence, alive)
        dropped = {}
        for text, marks in outcome.reasons.items():
            hit = marks & alive
            reason[hit], dropped[text] = text, int(hit.sum())
        alive &= ~outcome.fails_N
        scores |= outcome.scores
        warnings += [outcome.warning] if outcome.warning else []
        reports.append(GateReport(gate=one.title, rule=outcome.rule, dropped=dropped))
    if not alive.any():
        raise NothingLeftError(
            f"{sides.pool.collections[0].address}: no image passes the gates: {_in_words(_counts(reason))}; turn one off, such as "
            "--set gates.copies.on=false (with a recipe: curation.gates.copies.on), or make its `loss` smaller"
        )
    return Gated(sides, alive, reason, scores, reports, warnings)


def _choice(gated: Gated, reporter: Reporter) -> Choice:
    """Select among the images that passed the gates, class by class."""
    sides, alive = gated.sides, gated.alive
    method, trials = choose_method(sides, alive, sides.asked, reporter)
    if sides.config.selection.weights:
        ranked, weight_N, at_floor = weighed(sides, alive)
        return Choice.of(gated, ranked, at_floor, weight_N, method="weights", trials=trials)
    reporter.note(f"selecting by {method}")
    ranked, at_floor = pick(sides, alive, sides.asked, method)
    return Choice.of(gated, ranked, at_floor, None, method=method, trials=trials)


def _require_apart(place: str, inputs: Sequence[str], what: str) -> None:
    """Raise RequestError if a place is inside an input or contains one: pools and reference are never written to."""
    own = _parts(place)
    for address in inputs:
        other = _parts(address)
        if all(one == two for one, two in zip(own, other, strict=False)):
            raise RequestError(f"{place}: is, contains or lies inside {address}, which is only read; choose another folder for {what}")


def _parts(address: str) -> tuple[str, ...]:
    place = resolve(address)
    return tuple(place.split("/")) if "://" in place else Path(place).resolve().parts


def _unusable(sides: Sides) -> list[str]:
    """The first image of each reason why pool images can't be used."""
    reasons, first = np.unique(sides.problem[~sides.usable].astype(str), return_index=True)
    rows = np.flatnonzero(~sides.usable)[first]
    return [f"not usable, {reason}: the first is {sides.pool.location(int(row))}" for reason, row in zip(reasons, rows, strict=True)]


def _transparent(choice: Choice) -> list[str]:
    sides = choice.gated.sides
    if not (num := int(sides.transparent[choice.kept].sum())):
        return []
    compared = f"compared on {sides.config.background} (setting `background`)"
    return [f"{num:,} kept images are transparent. They were {compared}, and are copied as they are: other loaders may show other colours"]


def _regions(sides: Sides, choice: Choice) -> list[Region]:
    return underrepresented(
        sides.metric_views, classes=sides.classes, rows=choice.kept, pool_key_N=sides.pool.keys(), seed=sides.config.selection.seed
    )


def _summary(gap: Gap, held_out: Gap | None, training: Trial | None, is_auto: bool) -> str:
    """Whether curation helped: by the gap, by the gap to the validation part alone, and by training."""
    parts = [sentence(gap)]
    measured = gap.against_random
    apart = held_out.against_random if held_out is not None and not gap.nothing_chosen else None
    if apart is not None and measured is not None:
        if apart.verdict == measured.verdict:
            words = "so the result is the same"
        else:
            words = "which may be chance" if apart.verdict == "no different" else "which disagrees"
        parts.append(
            f"Against the validation images alone{', on which auto chose the rule,' if is_auto else ''} the difference from random sets is "
            f"{apart.value:+.4f} [{apart.low:+.4f}, {apart.high:+.4f}], {words}."
        )
    if training is not None:
        probability = training.difference.probability
        expected = _EXPECTED[measured.verdict] if measured is not None and measured.verdict is not None else None
        if expected is None:
            finding = "By training"
        elif training.direction == expected:
            finding = "Training agrees"
        else:
            finding = "Training does not confirm it" if training.direction == "no different" else "Training disagrees"
        parts.append(
            f"{finding}: a small classifier gets {training.kept.accuracy:.1%} of {training.validation_images} validation images right, "
            f"{training.random.accuracy:.1%} after as many random ones (probability of the true class {probability.value:+.3f} "
            f"[{probability.low:+.3f}, {probability.high:+.3f}], {training.kept.seeds} seeds)"
            f"{', biased upwards, since auto chose the rule on the same images' if is_auto else ''}."
        )
    return " ".join(parts)


_EXPECTED: dict[Nearer, Better] = {"smaller": "better", "larger": "worse", "no different": "no different"}
"""The result of training that agrees with each verdict on the gap between kept and random images."""


def _counts(reasons: NDArray[np.object_]) -> dict[str, int]:
    return dict(sorted(Counter(map(str, reasons)).items()))


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.items(), key=lambda item: -item[1])[:6])
