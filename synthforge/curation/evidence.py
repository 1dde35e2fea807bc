"""What gates look at: a pool beside the reference in the encoder's views, each quantity computed once, when a gate first asks.

Two kinds of comparison: *joined* features, those of all views side by side, for "are these two the same image?", where every
real image counts; and single views with only the real images that the view's model has not seen, for "what is this like?".
Shapes: N pool images, M real images, V validation images, D features. Distances are Euclidean in joined features, over sqrt(views).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from synthforge.errors import RequestError
from synthforge.features.config import IndexConfig
from synthforge.features.embed import Features
from synthforge.features.neighbours import PROBED, Neighbours

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

_BLOCK = 8192
"""Pool images compared at a time."""
_BALLS = 64
"""Nearest real images whose balls are looked at; a farther one with a larger ball is rare."""
FEWEST = 20
"""With fewer real images to compare, only exact copies and duplicates are told."""
_ALIKE = 1e-6
"""Part of an image's squared length within which another's features are the same but for rounding."""
_RADIUS_OF = 5
"""A real image's ball reaches to this neighbour."""


@dataclass(frozen=True)
class EncodedView:
    """Features of both sides by one model."""

    pool: Features
    real: Features
    unseen_M: Bools
    """Real images that the model was not fitted on."""


@dataclass(frozen=True)
class Likeness:
    """What some images are like."""

    own_share: Floats
    """Share of the nearest real images that have the image's own label; 0 where it has none."""
    radii: Floats
    """Distance to the nearest real image in units of the radius of its ball."""

    @classmethod
    def nothing(cls, num: int) -> Likeness:
        """To be added to."""
        return cls(np.zeros(num, np.float32), np.zeros(num, np.float32))

    def add(self, rows: Ints, in_view: Likeness, num_views: int | Ints) -> None:
        """Count one view's figures of some images into the mean over so many views, for each row."""
        self.own_share[rows] += in_view.own_share / num_views
        self.radii[rows] += in_view.radii / num_views


class _Unseen:
    """The real images of the fit part that one view's model has not seen, with the balls that reach to their neighbours."""

    def __init__(self, index: Neighbours, features_RD: Floats, class_R: Ints, neighbours: int) -> None:
        self._index, self._class_R, self._neighbours = index, class_R, neighbours
        among, _ = index.search(features_RD, min(_RADIUS_OF + 1, len(class_R)))  # the first is itself
        self._radius_R = np.maximum(np.sqrt(among[:, -1]), np.finfo(np.float32).tiny)

    def likeness(self, features_QD: Floats, class_Q: Ints, place_Q: Ints | None = None) -> Likeness:
        """What queries are like; `place_Q` says which of the real images each is, where it is one: it is not compared with itself, nor
        with its copies, which say nothing of other images."""
        squared, found = self._index.search(features_QD, min(_BALLS, len(self._class_R) - (place_Q is not None)), place_Q)
        if place_Q is not None:
            is_copy = squared <= _ALIKE * (features_QD**2).sum(axis=1, keepdims=True)
            squared = np.where(is_copy, np.float32(np.inf), squared)
            others_first = np.argsort(is_copy, axis=1, kind="stable")
            squared, found = np.take_along_axis(squared, others_first, axis=1), np.take_along_axis(found, others_first, axis=1)
        is_own = self._class_R[found[:, : self._neighbours]] == class_Q[:, None]
        return Likeness(
            np.where(class_Q >= 0, is_own.mean(axis=1), 0).astype(np.float32),
            (np.sqrt(squared) / self._radius_R[found]).min(axis=1, initial=np.inf),
        )


@dataclass(frozen=True)
class Texts:
    """Features of texts in one view, and the scale of their products."""

    features_TD: Floats
    scale: float


class Evidence:
    """A pool beside the reference.

    Args:
        class_N: index of each pool image's class; -1 if it has none of the reference's.
        usable_N: can be read and has a class.
        real_class_M, fit_M: classes of the real images, and which of them are of the fit part; the others are the validation part.
        source_N: row of the real image that each started from, -1 if none.
        pixels_N: digest of the decoded pixels.
        neighbours: nearest real images that vote on a label.
        embed_texts: texts to their features in each view; None if the encoder has none.
    """

    def __init__(
        self,
        views: Sequence[EncodedView],
        classes: list[str],
        *,
        class_N: Ints,
        usable_N: Bools,
        pixels_N: NDArray[np.uint64],
        strength_N: Floats,
        source_N: Ints,
        real_class_M: Ints,
        real_key_M: Sequence[str],
        fit_M: Bools,
        neighbours: int,
        index: IndexConfig,
        embed_texts: Callable[[list[str]], list[Texts]] | None = None,
    ) -> None:
        self.views, self.classes = list(views), classes
        self.class_N, self.usable_N, self.strength_N, self.source_N = class_N, usable_N, strength_N, source_N
        self.real_class_M, self.fit_M = real_class_M, fit_M
        self._pixels_N, self._real_key_M, self._embed_texts = pixels_N, np.asarray(real_key_M, object), embed_texts
        self._neighbours, self._index = neighbours, index
        self.validation = np.flatnonzero(~fit_M)

    def real_keys(self, rows_N: Ints) -> NDArray[np.object_]:
        """Keys of real images; None for row -1."""
        keys: NDArray[np.object_] = self._real_key_M[np.maximum(rows_N, 0)]
        keys[rows_N < 0] = None
        return keys

    # Joined features: is it the same image?

    def joined(self, rows_N: Ints) -> Floats:
        """Joined features of pool images, (n, D of all views)."""
        return self._join([view.pool[rows_N] for view in self.views])

    def _join(self, parts: list[Floats]) -> Floats:
        return np.concatenate(parts, axis=1) / np.float32(np.sqrt(len(parts)))

    @functools.cached_property
    def _real_joined_MD(self) -> Floats:
        return self._join([view.real[np.arange(len(self.fit_M))] for view in self.views])

    @functools.cached_property
    def _real_index(self) -> Neighbours:
        return Neighbours(self._real_joined_MD, self._index, self.joined(self._some_usable))

    @functools.cached_property
    def validation_nearest_V(self) -> Floats:
        """Distance from each validation image to the nearest other real image (of all images, where there is no validation part)."""
        rows = self.validation if len(self.validation) else np.arange(len(self.fit_M))
        squared, found = self._real_index.search(self._real_joined_MD[rows], min(8, len(self.fit_M)))
        return _first_other(squared, found, rows)[0]

    def natural_distance(self, share: float) -> float:
        """The distance within which a share of the validation images has another real one; 0 where there are too few to tell."""
        distances_V = self.validation_nearest_V
        return float(np.quantile(distances_V, share)) if len(distances_V) >= FEWEST else 0.0

    @functools.cached_property
    def _nearest(self) -> tuple[Floats, Ints, Floats]:
        nearest = np.full(len(self.class_N), np.inf, np.float32)
        real = np.full(len(self.class_N), -1, np.int64)
        source_distance = np.full(len(self.class_N), np.nan, np.float32)
        for rows in self._usable_blocks():
            features = self.joined(rows)
            squared, found = self._real_index.search(features, min(8, len(self.fit_M)))
            nearest[rows], real[rows] = _first_other(squared, found, self.source_N[rows])
            with_source = self.source_N[rows] >= 0
            own = self._real_joined_MD[self.source_N[rows[with_source]]]
            source_distance[rows[with_source]] = np.linalg.norm(features[with_source] - own, axis=1)
        return nearest, real, source_distance

    @property
    def nearest_N(self) -> Floats:
        """Distance to the nearest real image other than the one that it started from."""
        return self._nearest[0]

    @property
    def nearest_real_N(self) -> Ints:
        """Row of that image."""
        return self._nearest[1]

    @property
    def source_distance_N(self) -> Floats:
        """Distance to the real image that it started from; nan if none."""
        return self._nearest[2]

    @functools.cached_property
    def _some_usable(self) -> Ints:
        """Pool images on which an index measures its recall: they are what it will be asked about."""
        rows = np.flatnonzero(self.usable_N)
        return rows[np.linspace(0, len(rows) - 1, PROBED).astype(np.int64)]

    def _usable_blocks(self) -> list[Ints]:
        rows = np.flatnonzero(self.usable_N)
        return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]

    # Single views: what is it like?

    @functools.cached_property
    def calibration(self) -> tuple[Ints, NDArray[np.bool_]]:
        """Rows of the real images that say what real ones are like, and which views may look at them, (rows, views).

        The validation part; without one the fit part, each image left out in turn, by the views whose models have not seen it. These are
        fewer views than look at a pool image, so that such figures scatter more, and thresholds set by them are rather too mild.
        """
        if len(self.validation):
            return self.validation, np.ones((len(self.validation), len(self.views)), bool)
        by_view = np.zeros((len(self.fit_M), len(self.views)), bool)
        for number, view in enumerate(self.views):
            unseen = view.unseen_M & self.fit_M
            counts = np.bincount(self.real_class_M[unseen], minlength=len(self.classes))
            by_view[:, number] = unseen & (counts[self.real_class_M] > 1)  # else there is no other image of its class to find
        rows = np.flatnonzero(by_view.any(axis=1))
        return rows, by_view[rows]

    @functools.cached_property
    def _likeness(self) -> tuple[Likeness, Likeness]:
        """What pool and calibration images are like, mean over views: each beside real images that the view's model has not seen."""
        calibration, by_view = self.calibration
        of_pool, of_real = Likeness.nothing(len(self.class_N)), Likeness.nothing(len(calibration))
        for number, view in enumerate(self.views):
            rows = np.flatnonzero(view.unseen_M & self.fit_M)
            if len(rows) < 2:
                raise RequestError(
                    "encoder: it was fitted on all but one of these real images, so none can be compared; use another encoder"
                )
            index = Neighbours(view.real[rows], self._index, view.pool[self._some_usable])
            unseen = _Unseen(index, view.real[rows], self.real_class_M[rows], self._neighbours)
            for block in self._usable_blocks():
                of_pool.add(block, unseen.likeness(view.pool[block], self.class_N[block]), len(self.views))
            mine = np.flatnonzero(by_view[:, number])
            place = None if len(self.validation) else np.searchsorted(rows, calibration[mine])
            found = unseen.likeness(view.real[calibration[mine]], self.real_class_M[calibration[mine]], place)
            of_real.add(mine, found, by_view[mine].sum(axis=1))
        return of_pool, of_real

    @functools.cached_property
    def reachable_share(self) -> Floats:
        """For each class the largest share of the votes that it can have, by its number of real images."""
        k = self._neighbours
        counts = [np.bincount(self.real_class_M[view.unseen_M & self.fit_M], minlength=len(self.classes)) for view in self.views]
        return np.asarray(np.mean([np.minimum(count, k) / k for count in counts], axis=0), np.float32)

    def own_share(self) -> tuple[Floats, Floats]:
        """Share of the nearest real images that have an image's own label, for pool (0 where it has no class) and calibration images."""
        of_pool, of_real = self._likeness
        return of_pool.own_share, of_real.own_share

    def manifold(self) -> tuple[Floats, Floats]:
        """Distance to the nearest real image in units of the radius of its ball, for pool and calibration images."""
        of_pool, of_real = self._likeness
        return of_pool.radii, of_real.radii

    # Texts

    def text_probability(self, template: str) -> Floats:
        """Probability of each image's own class among the texts of all classes."""
        probability_NC = self._against_texts([_in_template(template, name) for name in self.classes])[0]
        return np.where(self.class_N >= 0, probability_NC[np.arange(len(self.class_N)), np.maximum(self.class_N, 0)], 0).astype(np.float32)

    def flagged(self, template: str, words: list[str]) -> tuple[Floats, Floats]:
        """Probability of any of the words among them and the classes, for pool and validation images."""
        of_pool, of_validation = self._against_texts([*(_in_template(template, name) for name in self.classes), *words])
        return of_pool[:, len(self.classes) :].sum(axis=1), of_validation[:, len(self.classes) :].sum(axis=1)

    def _against_texts(self, texts: list[str]) -> tuple[Floats, Floats]:
        found = self._embed_texts(texts) if self._embed_texts is not None else []
        if not found:
            raise RequestError("gates: zero-shot labels and content need an encoder with texts; use kind open_clip, or turn them off")
        of_pool = np.zeros((len(self.class_N), len(texts)), np.float32)
        of_validation = np.zeros((len(self.validation), len(texts)), np.float32)
        for view, text in zip(self.views, found, strict=True):
            for rows in self._usable_blocks():
                of_pool[rows] += softmax(view.pool[rows] @ text.features_TD.T * text.scale, axis=1) / len(found)
            of_validation += softmax(view.real[self.validation] @ text.features_TD.T * text.scale, axis=1) / len(found)
        return of_pool, of_validation

    # Within the pool

    def duplicates(self, limit: float, alive_N: Bools) -> tuple[Bools, Bools, Ints]:
        """Duplicates among the images that are alive: exact ones, near ones, and for each the row of the one that stays (else -1).

        Of equal pixels (whatever the class says) and of images of a class within `limit` the one nearest to the real data stays, then
        the earlier one.
        """
        rows = np.flatnonzero(alive_N)
        rows = rows[np.lexsort((rows, self.nearest_N[rows]))]  # best first
        kept = np.full(len(self.class_N), -1, np.int64)
        _, first, which = np.unique(self._pixels_N[rows], return_index=True, return_inverse=True)
        order = np.arange(len(rows))
        is_exact = first[which] != order
        exact = np.zeros(len(self.class_N), bool)
        exact[rows[is_exact]] = True
        kept[rows[is_exact]] = rows[first[which[is_exact]]]
        near = np.zeros(len(self.class_N), bool)
        rest = rows[~is_exact]
        for number in range(len(self.classes)):
            for dropped, keeper in self._near_duplicates(rest[self.class_N[rest] == number], limit):
                near[dropped], kept[dropped] = True, keeper
        while (chained := (kept >= 0) & (kept[kept] >= 0)).any():  # its keeper went in a later round: name the one that stays
            kept[chained] = kept[kept[chained]]
        return exact, near, kept

    def _near_duplicates(self, rows: Ints, limit: float) -> list[tuple[int, int]]:
        """Pairs (dropped, keeper) among images of one class, which come best first.

        Repeated among those that are left until nothing is dropped, since an image can have more duplicates than neighbours are looked at.
        """
        dropped: list[tuple[int, int]] = []
        while len(rows) > 1:
            features = self.joined(rows)
            squared, found = Neighbours(features, self._index).search(features, min(16, len(rows)))
            keeper = np.full(len(rows), -1)
            for row in range(len(rows)):
                near = found[row][(squared[row] <= limit * limit) & (found[row] < row) & (found[row] >= 0)]
                near = near[keeper[near] < 0]
                if len(near):
                    keeper[row] = near.min()
            gone = np.flatnonzero(keeper >= 0)
            if not len(gone):
                break
            dropped += [(int(rows[row]), int(rows[keeper[row]])) for row in gone]
            rows = rows[keeper < 0]
        return dropped


def _first_other(squared_Qk: Floats, found_Qk: Ints, own_Q: Ints) -> tuple[Floats, Ints]:
    """Distance to, and row of, the nearest one found that is not the query's own."""
    others = np.where((found_Qk == own_Q[:, None]) | (found_Qk < 0), np.inf, squared_Qk)
    place = np.argmin(others, axis=1)
    chosen = np.arange(len(own_Q)), place
    return np.sqrt(np.maximum(others[chosen], 0)).astype(np.float32), found_Qk[chosen].astype(np.int64)


def _in_template(template: str, name: str) -> str:
    return template.replace("{class}", name)
