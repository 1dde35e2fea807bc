"""The map: images as points in two dimensions, where similar images lie close together."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from PIL.Image import Image

from synthforge.reporting.gathered import Gathered
from synthforge.reporting.pictures import Strip, sheet, thumbnails

MAPPED = {"real": 300, "pool": 600, "kept": 300}
"""Points of each kind, at most."""
FEWEST_MAPPED = 10
MAP_SIDE = 32
"""Side of an image shown on the map, in pixels."""


@dataclass(frozen=True)
class Map:
    """Images as points in two dimensions."""

    points: str
    """JSON: x, y, kind, class, key, place in the sprite (-1: not shown)."""
    sprite: Strip
    """All shown images in one file."""
    num: dict[str, int]
    """Number of points, by kind."""


def map_of(run: Gathered, missing: list[str], *, real_images: bool) -> Map | None:
    """The map by t-SNE of the metric encoder's features (van der Maaten and Hinton 2008). None: there are too few
    images.

    Args:
        missing: if the features are lost, this list gets a sentence that says so.
        real_images: show real images. Without them they are points only.
    """
    if run.pool is None or run.real is None or run.decisions is None:
        return None
    chooser, kept = np.random.default_rng(0), run.kept()
    candidates = {
        "real": (run.real, np.arange(len(run.real))),
        "pool": (run.pool, np.setdiff1d(np.arange(len(run.pool)), kept)),
        "kept": (run.pool, kept),
    }
    rows, parts = {}, []
    for kind, (table, of_kind) in candidates.items():
        rows[kind] = chooser.permutation(of_kind)[: MAPPED[kind]]
        features = run.features(table, rows[kind])
        if features is None:
            missing.append("There is no map: the metric encoder's features are no longer in the cache. Run `synthforge curate --reselect`.")
            return None
        is_known = np.isfinite(features).all(axis=1)  # images that can't be read have no features
        rows[kind] = rows[kind][is_known]
        parts.append(features[is_known])
    places = _places(np.concatenate(parts))
    if places is None:
        return None
    points: list[list[object]] = []
    images: list[Image] = []
    for kind, chosen in rows.items():
        table = candidates[kind][0]
        is_shown = kind != "real" or real_images
        first = len(images)
        images += thumbnails(table, chosen, MAP_SIDE) if is_shown else []
        for number, (label, key) in enumerate(zip(table.strings("class")[chosen], table.strings("key")[chosen], strict=True)):
            x, y = places[len(points)].tolist()
            points.append([round(x, 4), round(y, 4), kind, str(label), str(key), first + number if is_shown else -1])
    return Map(json.dumps(points), sheet(images, "", 40, MAP_SIDE), {kind: len(chosen) for kind, chosen in rows.items()})


def _places(features: np.ndarray) -> np.ndarray | None:
    """Places in the unit square, float (n, 2), by PCA and t-SNE; None for too few images."""
    if len(features) < FEWEST_MAPPED:
        return None
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    reduced = PCA(min(30, *features.shape), random_state=0).fit_transform(features)
    perplexity = min(30.0, (len(features) - 1) / 3)
    places: np.ndarray = TSNE(2, perplexity=perplexity, init="pca", random_state=0, max_iter=500).fit_transform(reduced)
    places -= places.min(axis=0)
    places /= np.maximum(np.ptp(places, axis=0), 1e-9)
    return places
