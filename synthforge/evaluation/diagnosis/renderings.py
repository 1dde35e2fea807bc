"""The real images of a draw as a generator renders them: found in a set that was given, or rendered now."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthforge.data.collection import open_collection
from synthforge.data.pools import Table
from synthforge.errors import RequestError
from synthforge.evaluation.conditions import RealDraw
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.sets import Ints

FEWEST_PAIRED = 0.5
"""Share of the real images that must have a rendering for these to stand for all."""


@dataclass(frozen=True)
class Renderings:
    """A set of renderings, and which real image each is of. Shapes: N real images of a draw."""

    address: str
    row_N: Ints
    """Row of each real image's rendering in the set; -1 if it has none."""

    @classmethod
    def given(cls, address: str, reference: Reference, draw: RealDraw, cache: Path) -> Renderings:
        """A set made elsewhere, whose images have the real ones' names; raises RequestError if too few have."""
        keys = Table.of([open_collection(address, cache)]).strings("key")
        names = reference.table.strings("key")[draw.fit.row_N]
        found = cls(address, _rows(keys, names))
        if (paired := float((found.row_N >= 0).mean())) < FEWEST_PAIRED:
            raise RequestError(
                f"{address}: {paired:.0%} of the real images have one of the same name in it ({names[0]!r} is one of theirs); "
                "render all of them"
            )
        return found

    @classmethod
    def made(cls, address: str, draw: RealDraw, real: str, cache: Path) -> Renderings:
        """A set that `render` made of the set `real`, which holds the draw's images."""
        # A draw's images may have been encoded anew when they were written.
        sha256_N = draw.fit.sha256_N if draw.is_whole else Table.of([open_collection(real, cache)]).strings("image_sha256")
        return cls(address, _rows(Table.of([open_collection(address, cache)]).strings("source_sha256"), sha256_N))


def _rows(names: Iterable[str], wanted: Iterable[str]) -> Ints:
    row_of = {name: row for row, name in enumerate(names)}
    return np.array([row_of.get(name, -1) for name in wanted], np.int64)
