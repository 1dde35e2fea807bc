"""How nearest neighbours are searched. No heavy import."""

from __future__ import annotations

from typing import Literal

from synthforge.config import Config, execution, identity


class IndexConfig(Config):
    """Which index, and how exact."""

    kind: Literal["auto", "flat", "ivf", "hnsw"] = identity("auto")
    """`flat` is exact; `ivf` and `hnsw` look at a part. `auto`: flat up to 200,000 images, then ivf."""
    recall: float = identity(0.99, gt=0, le=1)
    """Share of the true neighbours that ivf and hnsw have to find, measured; they look at more until they do."""
    memory_gb: float = execution(0.5, gt=0, le=1e6)
    """Working memory of one search, beside the features and what is found; queries go in blocks that fit. It changes no result."""
