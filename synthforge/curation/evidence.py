"""Comparisons of pool and reference, on which gates decide. Each quantity is computed once, when a gate first needs it.

There are two kinds of comparison. To find out whether two images are the same, the features of all views are *joined*,
and all real images count. To find out what an image is like, each view is used alone, with the real images that its
model has not seen.

Shapes: N pool images, M real images, V validation images, D features. Distances are Euclidean in joined features,
divided by sqrt(views).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from synthforge.arrays import Bools, Floats, Ints
from synthforge.data.images import Uint8
from synthforge.errors import RequestError
from synthforge.features.config import IndexConfig
from synthforge.features.embed import Features
from synthforge.features.neighbours import PROBED, Neighbours
from synthforge.features.pictures import THUMBNAIL, thumbnail

_BLOCK = 8192
"""Pool images compared at a time."""
_BALLS = 64
"""Nearest real images whose balls are considered. A farther image with a larger ball is rare."""
FEWEST = 20
"""With fewer real images to compare, only exact copies and exact duplicates are found."""
_ALIKE = 1e-6
"""Features of two images are equal up to rounding within this squared distance, relative to the squared norm."""
_RADIUS_OF = 5
"""A real image's ball reaches to this nearest neighbour."""
NEEDS_TEXTS = "gates: zero-shot labels and content need an encoder with texts; use kind open_clip, or turn them off"
"""The error if the encoder has no texts."""


@dataclass(frozen=True)
class EncodedView:
    """Features of both sides by one model."""

    pool: Features
    real: Features
    unseen_M: Bools
    """Real images that the model was not fitted on."""


@dataclass(frozen=True)
class Nearest:
    """Distances from each pool image to real images, (N,) each."""

    distance_N: Floats
    """Distance to the nearest real image, the image's own source excepted."""
    real_N: Ints
    """Row of that real image."""
    source_distance_N: Floats
    """Distance to the image's source; nan if it has none."""


@dataclass
class Likeness:
    """How some images lie among the real images, float32 (n,) each."""

    own_share: Floats
    """Share of the nearest real images that have the image's own label; 0 for images without a label."""
    radii: Floats
    """Distance to the nearest real image, in units of the radius of its ball."""

    @classmethod
    def zeros(cls, num: int) -> Likeness:
        """All zero, to sum views into."""
        return cls(np.zeros(num, np.float32), np.zeros(num, np.float32))

    def add(self, rows: Ints, in_view: Likeness, num_views: int | Ints) -> None:
        """Add one view's figures of some images to the means over `num_views` views."""
        self.own_share[rows] += in_view.own_share / num_views
        self.radii[rows] += in_view.radii / num_views


class _Unseen:
    """Real images of the fit part that one view's model has not seen, each with a ball that reaches to its k-th
    neighbour."""

    def __init__(self, index: Neighbours, features_RD: Floats, class_R: Ints, neighbours: int) -> None:
        self._index, self._class_R, self._neighbours = index, class_R, neighbours
        among, _ = index.search(features_RD, min(_RADIUS_OF + 1, len(class_R)))  # the first is itself
        self._radius_R = np.maximum(np.sqrt(among[:, -1]), np.finfo(np.float32).tiny)

    def likeness(self, features_QD: Floats, class_Q: Ints, place_Q: Ints | None = None) -> Likeness:
        """How queries lie among the real images.

        Args:
            place_Q: set if the queries are real images: the row of each among them. A query is then not compared with
                itself or its copies.
        """
        squared, rows = self._index.search(features_QD, min(_BALLS, len(self._class_R) - (place_Q is not None)), place_Q)
        if place_Q is not None:
            is_copy = squared <= _ALIKE * (features_QD**2).sum(axis=1, keepdims=True)
            squared = np.where(is_copy, np.float32(np.inf), squared)
            others_first = np.argsort(is_copy, axis=1, kind="stable")
            squared, rows = np.take_along_axis(squared, others_first, axis=1), np.take_along_axis(rows, others_first, axis=1)
        is_own = self._class_R[rows[:, : self._neighbours]] == class_Q[:, None]
        return Likeness(
            np.where(class_Q >= 0, is_own.mean(axis=1), 0).astype(np.float32),
            (np.sqrt(squared) / self._radius_R[rows]).min(axis=1, initial=np.inf),
        )


@dataclass(frozen=True)
class Texts:
    """Features of texts in one view."""

    features_TD: Floats
    scale: float
    """Factor of the products of image and text features before the softmax."""


@dataclass(frozen=True)
class Evidence:
    """Comparisons of a pool with the reference."""

    views: Sequence[EncodedView]
    classes: list[str]
    class_N: Ints
    """Class index of each pool image; -1 for none."""
    usable_N: Bools
    """Pool images that can be read and have a class."""
    pixels_N: NDArray[np.uint64]
    """Digest of each image's decoded pixels."""
    strength_N: Floats
    """Image-to-image strength of each pool image; nan for none."""
    source_N: Ints
    """Row of the real image from which each pool image started; -1 for none."""
    real_class_M: Ints
    """Class index of each real image."""
    real_key_M: Sequence[str]
    fit_M: Bools
    """Real images of the fit part. The others are the validation part."""
    neighbours: int
    """Nearest real images that vote on a label. Given here, so that one search serves `labels` and `manifold`."""
    index: IndexConfig
    embed_texts: Callable[[list[str]], list[Texts]] | None = None
    """Gives features of texts in each view. None, or a function that returns an empty list, if the encoder has no
    texts."""
    images: Callable[[], Iterator[tuple[int, Uint8]]] = lambda: iter(())
    """Reads the usable pool images from their files: row and pixels of each, RGB uint8 (H, W, 3). For gates that look
    at more than features. Call it once: it decodes the whole pool."""

    real_images: Callable[[], Iterator[tuple[int, Uint8]]] = lambda: iter(())
    """The same for the real images."""

    @functools.cached_property
    def thumbnails(self) -> tuple[Uint8, Uint8]:
        """Grey thumbnails of the pool images and of the real ones; see `features.pictures`. Unusable ones are black."""
        sides = []
        for num, images in ((len(self.class_N), self.images), (len(self.fit_M), self.real_images)):
            thumbnails = np.zeros((num, THUMBNAIL, THUMBNAIL), np.uint8)
            for row, image in images():
                thumbnails[row] = thumbnail(image)
            sides.append(thumbnails)
        return sides[0], sides[1]

    @functools.cached_property
    def validation(self) -> Ints:
        """Rows of the validation part."""
        return np.flatnonzero(~self.fit_M)

    def real_keys(self, rows_N: Ints) -> NDArray[np.object_]:
        """Keys of real images, (n,); None for row -1."""
        keys: NDArray[np.object_] = np.asarray(self.real_key_M, object)[rows_N]
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
        return Neighbours(self._real_joined_MD, self.index, self.joined(self._some_usable))

    def _apart(self, rows: Ints) -> Floats:
        """Distances from real images to the nearest other real image, without those that have an equal one."""
        squared, neighbours = self._real_index.search(self._real_joined_MD[rows], min(8, len(self.fit_M)))
        distances = _first_other(squared, neighbours, rows)[0]
        return distances[(distances > self.equal_distance) & np.isfinite(distances)]

    def natural_distance(self, share: float) -> float | None:
        """The distance within which this share of validation images has another real image. Of all real images if fewer
        than `FEWEST` validation images can be compared. None: nor can as many of these.

        Equal images do not count. With two of them, the distance would be 0, and no copy would be found.
        """
        compared = (self._apart(rows) for rows in (self.validation, np.arange(len(self.fit_M))) if len(rows) >= FEWEST)
        return next((float(np.quantile(apart, share)) for apart in compared if len(apart) >= FEWEST), None)

    @functools.cached_property
    def equal_distance(self) -> float:
        """Largest distance of equal images, whose features differ by rounding only."""
        return float(np.sqrt(_ALIKE) * np.linalg.norm(self._real_joined_MD, axis=1).mean())

    @functools.cached_property
    def nearest(self) -> Nearest:
        """The nearest real image of each pool image, and its source image."""
        nearest = np.full(len(self.class_N), np.inf, np.float32)
        real = np.full(len(self.class_N), -1, np.int64)
        source_distance = np.full(len(self.class_N), np.nan, np.float32)
        for rows in self._usable_blocks():
            features = self.joined(rows)
            squared, neighbours = self._real_index.search(features, min(8, len(self.fit_M)))
            nearest[rows], real[rows] = _first_other(squared, neighbours, self.source_N[rows])
            with_source = self.source_N[rows] >= 0
            own = self._real_joined_MD[self.source_N[rows[with_source]]]
            source_distance[rows[with_source]] = np.linalg.norm(features[with_source] - own, axis=1)
        return Nearest(nearest, real, source_distance)

    @functools.cached_property
    def _some_usable(self) -> Ints:
        """Pool images on which a search index measures its recall."""
        rows = np.flatnonzero(self.usable_N)
        return rows[np.linspace(0, len(rows) - 1, PROBED).astype(np.int64)]

    def _usable_blocks(self) -> list[Ints]:
        rows = np.flatnonzero(self.usable_N)
        return [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]

    # Single views: what is it like?

    @functools.cached_property
    def calibration(self) -> tuple[Ints, Bools]:
        """Rows of the real images on which thresholds are set, and the views that may judge each of them, bool (rows,
        views).

        These are the validation images. Without a validation part they are the fit images, each left out in turn, in
        the views whose model has not seen it. Fewer views are averaged than for a pool image, so scores vary more and
        thresholds are mild.
        """
        if len(self.validation):
            return self.validation, np.ones((len(self.validation), len(self.views)), bool)
        by_view = np.zeros((len(self.fit_M), len(self.views)), bool)
        for number, view in enumerate(self.views):
            unseen = view.unseen_M & self.fit_M
            counts = np.bincount(self.real_class_M[unseen], minlength=len(self.classes))
            by_view[:, number] = unseen & (counts[self.real_class_M] > 1)  # else its class has no other image to find
        rows = np.flatnonzero(by_view.any(axis=1))
        return rows, by_view[rows]

    @functools.cached_property
    def likeness(self) -> tuple[Likeness, Likeness]:
        """How pool and calibration images lie among real images that a view's model has not seen; mean over views."""
        calibration, by_view = self.calibration
        pool_likeness, real_likeness = Likeness.zeros(len(self.class_N)), Likeness.zeros(len(calibration))
        for number, view in enumerate(self.views):
            rows = np.flatnonzero(view.unseen_M & self.fit_M)
            if len(rows) < 2:
                raise RequestError("encoder: was fitted on nearly every real image, so it can't compare them; use another encoder")
            index = Neighbours(view.real[rows], self.index, view.pool[self._some_usable])
            unseen = _Unseen(index, view.real[rows], self.real_class_M[rows], self.neighbours)
            for block in self._usable_blocks():
                pool_likeness.add(block, unseen.likeness(view.pool[block], self.class_N[block]), len(self.views))
            judged = np.flatnonzero(by_view[:, number])
            place = None if len(self.validation) else np.searchsorted(rows, calibration[judged])
            in_view = unseen.likeness(view.real[calibration[judged]], self.real_class_M[calibration[judged]], place)
            real_likeness.add(judged, in_view, by_view[judged].sum(axis=1))
        return pool_likeness, real_likeness

    @functools.cached_property
    def reachable_share(self) -> Floats:
        """Largest share of the votes that each class can have, given its number of real images, (classes,)."""
        k = self.neighbours
        counts = [np.bincount(self.real_class_M[view.unseen_M & self.fit_M], minlength=len(self.classes)) for view in self.views]
        return np.asarray(np.mean([np.minimum(count, k) / k for count in counts], axis=0), np.float32)

    # Texts

    def text_probability(self, template: str) -> Floats:
        """Probability of each pool image's own class among the texts of all classes, (N,); 0 for no class."""
        probability_NC = self._text_probabilities(template)[0]
        return np.where(self.class_N >= 0, probability_NC[np.arange(len(self.class_N)), self.class_N], 0).astype(np.float32)

    def flagged(self, template: str, words: list[str]) -> tuple[Floats, Floats]:
        """Probability of any of the words, among the words and the texts of all classes, for pool and validation
        images."""
        pool, validation = self._text_probabilities(template, words)
        return pool[:, len(self.classes) :].sum(axis=1), validation[:, len(self.classes) :].sum(axis=1)

    def _text_probabilities(self, template: str, words: Sequence[str] = ()) -> tuple[Floats, Floats]:
        """Probability of the text of each class and of each word, for pool and validation images; mean over views."""
        texts = [*(template.replace("{class}", name) for name in self.classes), *words]
        by_view = self.embed_texts(texts) if self.embed_texts is not None else []
        if not by_view:
            raise RequestError(NEEDS_TEXTS)
        pool = np.zeros((len(self.class_N), len(texts)), np.float32)
        validation = np.zeros((len(self.validation), len(texts)), np.float32)
        for view, text in zip(self.views, by_view, strict=True):
            for rows in self._usable_blocks():
                pool[rows] += softmax(view.pool[rows] @ text.features_TD.T * text.scale, axis=1) / len(by_view)
            validation += softmax(view.real[self.validation] @ text.features_TD.T * text.scale, axis=1) / len(by_view)
        return pool, validation

    # Within the pool

    def duplicates(self, limit: float, alive_N: Bools) -> tuple[Bools, Bools, Ints]:
        """Find duplicates among the images that passed the gates before.

        Exact duplicates have equal pixels, whatever their classes. Near duplicates are images of a class within
        `limit`. Of these, the one nearest to the real images stays; of equally near ones, the earlier one.

        Returns: exact duplicates, near duplicates, and for each the row of the image that stays (else -1); (N,) each.
        """
        rows = np.flatnonzero(alive_N)
        rows = rows[np.lexsort((rows, self.nearest.distance_N[rows]))]  # best first
        kept = np.full(len(self.class_N), -1, np.int64)
        _, first, which = np.unique(self.pixels_N[rows], return_index=True, return_inverse=True)
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
        while (chained := (kept >= 0) & (kept[kept] >= 0)).any():  # the image that stayed was dropped in a later round
            kept[chained] = kept[kept[chained]]
        return exact, near, kept

    def _near_duplicates(self, rows: Ints, limit: float) -> list[tuple[int, int]]:
        """Pairs (dropped, keeper) among images of one class, given with the best first.

        The search is repeated among the images left until it drops none: an image can have more duplicates than one
        search returns.
        """
        dropped: list[tuple[int, int]] = []
        while len(rows) > 1:
            features = self.joined(rows)
            squared, neighbours = Neighbours(features, self.index).search(features, min(16, len(rows)))
            keeper = np.full(len(rows), -1)
            for row, others in enumerate(neighbours):
                near = others[(squared[row] <= limit * limit) & (others < row) & (others >= 0)]
                near = near[keeper[near] < 0]
                if len(near):
                    keeper[row] = near.min()
            gone = np.flatnonzero(keeper >= 0)
            if not len(gone):
                break
            dropped += [(int(rows[row]), int(rows[keeper[row]])) for row in gone]
            rows = rows[keeper < 0]
        return dropped


def _first_other(squared_Qk: Floats, neighbours_Qk: Ints, own_Q: Ints) -> tuple[Floats, Ints]:
    """Distance to, and row of, the nearest neighbour that is not the query's own image."""
    others = np.where((neighbours_Qk == own_Q[:, None]) | (neighbours_Qk < 0), np.inf, squared_Qk)
    nearest = np.arange(len(own_Q)), np.argmin(others, axis=1)
    return np.sqrt(np.maximum(others[nearest], 0)).astype(np.float32), neighbours_Qk[nearest].astype(np.int64)
