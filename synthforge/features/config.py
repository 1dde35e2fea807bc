"""The Config of nearest-neighbour search; imports nothing heavy."""

from __future__ import annotations

from typing import Literal

from synthforge.config import Config, execution, identity


class IndexConfig(Config):
    """Which index searches nearest neighbours, and how exactly."""

    kind: Literal["auto", "flat", "ivf", "hnsw"] = identity("auto")
    """`flat` is exact; `ivf` and `hnsw` are approximate. `auto`: flat up to 200,000 images, ivf above."""
    recall: float = identity(0.99, gt=0, le=1)
    """Share of the true neighbours that ivf and hnsw must find. It is measured; the search widens until it is met."""
    memory_gb: float = execution(0.5, gt=0, le=1e6)
    """Working memory of one search in GB, besides the features. Queries are split to fit; results don't change."""
