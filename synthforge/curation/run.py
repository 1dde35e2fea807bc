"""`curate`: choose from pools the subset whose distribution is that of the real images, and say what is left of the gap.

The steps, top to bottom: read and embed both sides, gates, selection, gap, under-covered regions, then the curated folder with a decision
for every image. Everything before the folder is a pure function of pools, reference and settings, and features are kept, so a run that
was killed, or one with other settings, costs little more than what is new.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthforge.curation.choice import Choice, Gated, pick, weighed
from synthforge.curation.gap.gap import MetricView, measure_gap, sentence
from synthforge.curation.gap.regions import under_covered
from synthforge.curation.gates import in_order
from synthforge.curation.request import CurationRequest
from synthforge.curation.result import Better, CurateResult, Gap, GateReport, Nearer, Region, Trial
from synthforge.curation.selection.auto import choose_method, compare_training, random_rows
from synthforge.curation.sides import Sides
from synthforge.curation.write import require_free, require_same, write
from synthforge.data.layout import digest_of
from synthforge.data.storage import Folder, resolve
from synthforge.errors import RequestError
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

RANDOM_DRAWS = 10
"""Random selections that a selection is compared with."""


def curate(request: CurationRequest, reporter: Reporter | None = None, *, reselect: bool = False) -> CurateResult:
    """Choose from pools the subset whose distribution is that of the real images, and write it as a dataset folder.

    Args:
        reselect: replace what is there, chosen with other settings.
    Raises: RequestError and its children before anything is changed; WorkError and its children once work has begun.
    """
    config, reporter, started = request.config, reporter or Reporter(), time.perf_counter()
    inputs = [*request.pools, request.reference]
    folder = Folder(resolve(request.out))
    if config.cache is not None:
        _require_apart(config.cache, inputs, "features are kept")
    _require_apart(folder.address, inputs, "the curated set is written")
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
    draws = random_rows(sides, choice.alive, {name: report.kept for name, report in choice.per_class.items()}, RANDOM_DRAWS)

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
        pool=len(sides.pool),
        unusable=_counts(sides.problem[~sides.usable]),
        gates=choice.gates,
        kept=len(choice.kept),
        per_class=choice.per_class,
        gap=gap,
        gap_held_out=held_out,
        training=training,
        trials=choice.trials,
        sentence=_in_sentences(gap, held_out, training, bool(choice.trials)),
        regions=_regions(sides, choice),
        notes=[*sides.notes, *choice.notes],
        encoder=sides.encoder_identities,
        metric_encoder=sides.metric_identities,
    )
    reporter.note("writing the curated set")
    sheet = write(folder, sides, choice, result, request, reporter, reselect=reselect)
    return result.model_copy(update={"seconds": round(time.perf_counter() - started, 1), "contact_sheet": sheet})


class NothingLeftError(RequestError):
    """No image of the pool can be used, or none passes the gates."""


def gate(pools: Sequence[str], reference: str, config: CurationConfig, reporter: Reporter) -> Gated:
    """Read and embed both sides, and test the pools by the gates, as `curate` does; the same arguments and errors."""
    sides = Sides.read(pools, reference, config, reporter)
    sides.load(reporter, with_metric_encoder=False)
    sides.embed_reference(reporter)
    sides.embed_pool(reporter)
    return _gated(sides, reporter)


def choose(gated: Gated, config: CurationConfig, reporter: Reporter) -> Choice:
    """What `curate` would keep, without measuring a gap or writing anything.

    Args:
        config: that of the gates but for `selection` and `regime`.
    """
    return _choice(replace(gated, sides=gated.sides.choosing_by(config)), reporter)


def _gated(sides: Sides, reporter: Reporter) -> Gated:
    config = sides.config
    reason = sides.problem.copy()
    alive = sides.usable.copy()
    if not alive.any():
        raise NothingLeftError(f"{sides.pool.collections[0].address}: no image can be used: {_in_words(_counts(reason))}")
    scores: dict[str, NDArray[Any]] = {}
    reports = []
    for one in in_order(config):
        reporter.note(f"gate: {one.title}")
        verdict = one.test(sides.evidence, alive)
        dropped = {}
        for text, marks in verdict.reasons.items():
            hit = marks & alive
            reason[hit], dropped[text] = text, int(hit.sum())
        alive &= ~verdict.fails_N
        scores |= verdict.scores
        reports.append(GateReport(gate=one.title, rule=verdict.rule, dropped=dropped))
    if not alive.any():
        raise NothingLeftError(
            f"{sides.pool.collections[0].address}: no image passes the gates: {_in_words(_counts(reason))}; turn one off, such as "
            "--set gates.copies.on=false (with a recipe: curation.gates.copies.on), or make its `loss` smaller"
        )
    return Gated(sides, alive, reason, scores, reports)


def _choice(gated: Gated, reporter: Reporter) -> Choice:
    """A subset of what passed, class by class."""
    sides, alive = gated.sides, gated.alive
    config = sides.config
    method, trials = choose_method(sides, alive, sides.asked, reporter)
    if config.selection.weights:
        ranked, weight, at_floor = weighed(sides, alive)
        method = "weights"
    else:
        reporter.note(f"selecting by {method}")
        ranked, at_floor = pick(sides, alive, sides.asked, method)
        weight = None
    return Choice.of(gated, ranked, at_floor, weight, method=method, trials=trials)


def _require_apart(place: str, inputs: Sequence[str], what: str) -> None:
    """Pools and reference are never written to."""
    own = _parts(place)
    for address in inputs:
        other = _parts(address)
        shared = min(len(own), len(other))
        if own[:shared] == other[:shared]:
            raise RequestError(f"{place}: is, holds or lies inside {address}, which is only read; {what} somewhere else")


def _parts(address: str) -> tuple[str, ...]:
    place = resolve(address)
    return tuple(place.split("/")) if "://" in place else Path(place).resolve().parts


def _regions(sides: Sides, choice: Choice) -> list[Region]:
    return under_covered(
        sides.metric_views, classes=sides.classes, rows=choice.kept, pool_key_N=sides.pool.keys(), seed=sides.config.selection.seed
    )


def _in_sentences(gap: Gap, held_out: Gap | None, training: Trial | None, is_auto: bool) -> str:
    """Whether curation helped: by the gap, by the gap to images that nothing was matched to, and by training."""
    parts = [sentence(gap)]
    measured = gap.against_random
    if held_out is not None and not gap.nothing_chosen and (found := held_out.against_random) is not None and measured is not None:
        if found.verdict == measured.verdict:
            words = "so it is the same there"
        elif found.verdict == "no different":
            words = "which may be chance"
        else:
            words = "which is another answer"
        parts.append(
            f"Against the validation images alone{', on which auto chose the rule,' if is_auto else ''} the difference from random sets is "
            f"{found.value:+.4f} [{found.low:+.4f}, {found.high:+.4f}], {words}."
        )
    if training is not None:
        probability = training.difference.probability
        expected = _EXPECTED[measured.verdict] if measured is not None and measured.verdict is not None else None
        if expected is None:
            story = "By training"
        elif training.direction == expected:
            story = "Training tells the same story"
        elif training.direction == "no different":
            story = "Training does not confirm it"
        else:
            story = "Training tells another story"
        parts.append(
            f"{story}: a small classifier gets {training.kept.accuracy:.1%} of {training.validation_images} validation images right, "
            f"{training.random.accuracy:.1%} after as many random ones (probability of the true class {probability.value:+.3f} "
            f"[{probability.low:+.3f}, {probability.high:+.3f}], {training.kept.seeds} seeds)"
            f"{', flattered, since auto chose the rule on the same images' if is_auto else ''}."
        )
    return " ".join(parts)


_EXPECTED: dict[Nearer, Better] = {"smaller": "better", "larger": "worse", "no different": "no different"}
"""What training should say, by whether the kept images are nearer to the real ones than random ones are."""


def _counts(reasons: NDArray[np.object_]) -> dict[str, int]:
    names, numbers = np.unique(reasons.astype(str), return_counts=True)
    return dict(zip(names.tolist(), numbers.tolist(), strict=True))


def _in_words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in sorted(counts.items(), key=lambda item: -item[1])[:6])
