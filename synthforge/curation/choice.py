"""What was chosen, and why each image was or was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthforge.curation.result import ClassReport, GateReport, Score
from synthforge.curation.selection.methods import select
from synthforge.curation.selection.spaces import View
from synthforge.curation.sides import Sides

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NOT_SELECTED = "not selected"


@dataclass(frozen=True)
class Gated:
    """Pools of which the gates have tested every image; N of them."""

    sides: Sides
    alive: Bools
    """Images that passed, (N,)."""
    reason_N: NDArray[np.object_]
    """Why an image did not pass; None if it did."""
    scores: dict[str, NDArray[Any]]
    reports: list[GateReport]


@dataclass(frozen=True)
class Choice:
    """A decision for each of the N images of the pools."""

    method: str
    trials: dict[str, Score]
    """What `auto` tried, and how each did; empty if the method was given."""
    ranked: list[Ints]
    """For each class its kept rows, in the order of picking."""
    kept: Ints
    """All kept rows in the order of the curated set: the first picks of all classes, then the second ones, and so on."""
    alive: Bools
    """Images that passed the gates."""
    reason_N: NDArray[np.object_]
    """Why an image was not kept; None if it was."""
    rank_N: Ints
    """Place in its class's selection; -1 if not kept."""
    weight_N: NDArray[np.float64]
    """Importance weight; 1 for kept images and 0 for others where no weights were asked for."""
    scores: dict[str, NDArray[Any]]
    gates: list[GateReport]
    per_class: dict[str, ClassReport]
    notes: list[str]

    @classmethod
    def of(
        cls,
        gated: Gated,
        ranked: list[Ints],
        at_floor: Sequence[int],
        weight_N: NDArray[np.float64] | None,
        *,
        method: str,
        trials: dict[str, Score],
    ) -> Choice:
        """Put together what gates and selection said."""
        sides, alive = gated.sides, gated.alive
        rank_N = np.full(len(alive), -1, np.int64)
        for rows in ranked:
            rank_N[rows] = np.arange(len(rows))
        is_kept = rank_N >= 0
        reason_N = gated.reason_N.copy()
        reason_N[alive & ~is_kept] = NOT_SELECTED
        kept = np.flatnonzero(is_kept)
        kept = kept[np.lexsort((sides.pool_class[kept], rank_N[kept]))]
        per_class = {
            name: ClassReport(
                pool=int((sides.pool_class == number).sum()),
                passed=int((alive & (sides.pool_class == number)).sum()),
                asked=sides.asked[name],
                kept=len(ranked[number]),
                at_floor=at_floor[number],
            )
            for number, name in enumerate(sides.classes)
        }
        notes = _notes(per_class, has_weights=weight_N is not None)
        return cls(
            method=method,
            trials=trials,
            ranked=ranked,
            kept=kept,
            alive=alive,
            reason_N=reason_N,
            rank_N=rank_N,
            weight_N=weight_N if weight_N is not None else is_kept.astype(np.float64),
            scores=gated.scores,
            gates=gated.reports,
            per_class=per_class,
            notes=notes,
        )


def _notes(per_class: Mapping[str, ClassReport], *, has_weights: bool) -> list[str]:
    notes = []
    for name, report in per_class.items():
        if report.passed and not report.kept and report.asked:
            notes.append(f"class {name}: the encoder has seen all its real images, so there is nothing to match; none is kept")
        elif report.kept < report.asked and not has_weights:
            notes.append(
                f"class {name}: {report.asked:,} asked, {report.passed:,} of {report.pool:,} passed the gates; all of them are kept"
            )
    if has_weights:
        notes.append("the gap is that of all images that passed the gates, without their weights")
    return notes


def class_views(sides: Sides, rows: Ints, number: int) -> list[View]:
    """Candidates of one class beside its real images of the fit part, in each view."""
    wanted = sides.fit & (sides.real_class == number)
    real = [np.flatnonzero(wanted & view.unseen_M) for view in sides.views]
    return [View(view.pool[rows], view.real[found]) for view, found in zip(sides.views, real, strict=True) if len(found)]


def pick(sides: Sides, alive: Bools, asked: Mapping[str, int], method: str) -> tuple[list[Ints], list[int]]:
    """For each class its picks in order, and how many of them were random at the floor."""
    selection = sides.config.selection
    ranked, at_floor = [], []
    for number, name in enumerate(sides.classes):
        rows = np.flatnonzero(alive & (sides.pool_class == number))
        wanted = min(asked[name], len(rows))
        views = class_views(sides, rows, number)
        if not wanted or not views:
            ranked.append(rows[:0])
            at_floor.append(0)
            continue
        picked = select(
            method, views, wanted, seed=selection.seed, dim=selection.dim, stop_at_floor=selection.stop_at_floor, device=sides.device
        )
        ranked.append(rows[picked.indices])
        at_floor.append(picked.num_at_floor)
    return ranked, at_floor


def weighed(sides: Sides, alive: Bools) -> tuple[list[Ints], NDArray[np.float64], list[int]]:
    """All images that passed the gates, those of each class by falling importance weight, and the weights."""
    from synthforge.curation.selection.importance import importance_weights

    weight_N = np.zeros(len(alive), np.float64)
    ranked = []
    for number in range(len(sides.classes)):
        rows = np.flatnonzero(alive & (sides.pool_class == number))
        views = class_views(sides, rows, number)
        if not views:
            rows = rows[:0]
        if len(rows):
            weight_N[rows] = importance_weights(views, dim=sides.config.selection.dim, device=sides.device)
        ranked.append(rows[np.argsort(-weight_N[rows], kind="stable")])
    return ranked, weight_N, [0] * len(ranked)
