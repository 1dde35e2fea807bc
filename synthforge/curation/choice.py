"""A decision for every image of the pools: the images kept, and why each other image was not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synthforge.arrays import Bools, Doubles, Ints
from synthforge.curation.result import ClassReport, GateReport, Score
from synthforge.curation.selection.methods import select
from synthforge.curation.selection.spaces import View
from synthforge.curation.sides import Sides

NOT_SELECTED = "not selected"


@dataclass(frozen=True)
class Gated:
    """The N images of the pools after the gates."""

    sides: Sides
    alive: Bools
    """Images that passed all gates, (N,)."""
    reason_N: NDArray[np.object_]
    """Why an image did not pass; None if it did."""
    scores: dict[str, NDArray[Any]]
    """Columns of decisions.parquet, (N,) each."""
    reports: list[GateReport]
    """What each gate did."""
    warnings: list[str]
    """What the gates warn of."""


@dataclass(frozen=True)
class Choice:
    """A decision for each of the N images of the pools."""

    gated: Gated
    method: str
    """The selection rule, or `weights`."""
    trials: dict[str, Score]
    """How each rule that `auto` tried did; empty if a rule was given."""
    kept: Ints
    """Rows of the kept images in the order of the curated set: first the first pick of each class, then the second
    ones, and so on."""
    reason_N: NDArray[np.object_]
    """Why an image was not kept; None if it was."""
    rank_N: Ints
    """Place in the selection of its class, from 0; -1 if not kept."""
    weight_N: Doubles
    """Importance weight. Without weights: 1 for kept images, 0 for others."""
    per_class: dict[str, ClassReport]
    notes: list[str]

    @classmethod
    def of(
        cls, gated: Gated, ranked: list[Ints], at_floor: Sequence[int], weight_N: Doubles | None, *, method: str, trials: dict[str, Score]
    ) -> Choice:
        """Combine the results of gates and selection.

        Args:
            ranked: for each class the rows that are kept, in the order of picking.
            at_floor: for each class the number of random picks at the floor.
            weight_N: importance weights; None if none were computed.
        """
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
        return cls(
            gated=gated,
            method=method,
            trials=trials,
            kept=kept,
            reason_N=reason_N,
            rank_N=rank_N,
            weight_N=weight_N if weight_N is not None else is_kept.astype(np.float64),
            per_class=per_class,
            notes=_notes(per_class, has_weights=weight_N is not None),
        )


def _notes(per_class: Mapping[str, ClassReport], *, has_weights: bool) -> list[str]:
    notes = []
    for name, report in per_class.items():
        if report.passed and not report.kept and report.asked:
            notes.append(f"class {name}: no image is kept, since the encoder was fitted on all its real images")
        elif report.kept < report.asked and not has_weights:
            notes.append(
                f"class {name}: {report.asked:,} asked, {report.passed:,} of {report.pool:,} passed the gates; all of them are kept"
            )
    if has_weights:
        notes.append("the gap is measured without the importance weights")
    return notes


def class_views(sides: Sides, rows: Ints, number: int) -> list[View]:
    """Candidates of one class and its real images of the fit part, in each view whose model has not seen all of
    these."""
    in_class = sides.fit & (sides.real_class == number)
    real = [np.flatnonzero(in_class & view.unseen_M) for view in sides.views]
    return [View(view.pool[rows], view.real[unseen]) for view, unseen in zip(sides.views, real, strict=True) if len(unseen)]


def pick(sides: Sides, alive: Bools, asked: Mapping[str, int], method: str) -> tuple[list[Ints], list[int]]:
    """Select by a rule, class by class: for each class its picks in order, and how many of them were random at the
    floor.

    Args:
        asked: images to keep of each class.
    """
    config = sides.config.selection
    ranked, at_floor = [], []
    for number, name in enumerate(sides.classes):
        rows = np.flatnonzero(alive & (sides.pool_class == number))
        num_keep, num_random = min(asked[name], len(rows)), 0
        views = class_views(sides, rows, number) if num_keep else []
        if views:
            picked = select(
                method, views, num_keep, seed=config.seed, dim=config.dim, stop_at_floor=config.stop_at_floor, device=sides.device
            )
            rows, num_random = rows[picked.indices], picked.num_at_floor
        ranked.append(rows if views else rows[:0])
        at_floor.append(num_random)
    return ranked, at_floor


def weighed(sides: Sides, alive: Bools) -> tuple[list[Ints], Doubles, list[int]]:
    """Keep all images that passed the gates: for each class its rows by falling importance weight; all weights; no
    random picks."""
    from synthforge.curation.selection.importance import importance_weights

    weight_N = np.zeros(len(alive), np.float64)
    ranked = []
    for number in range(len(sides.classes)):
        rows = np.flatnonzero(alive & (sides.pool_class == number))
        views = class_views(sides, rows, number)
        rows = rows if views else rows[:0]
        if len(rows):
            weight_N[rows] = importance_weights(views, dim=sides.config.selection.dim, device=sides.device)
        ranked.append(rows[np.argsort(-weight_N[rows], kind="stable")])
    return ranked, weight_N, [0] * len(ranked)
