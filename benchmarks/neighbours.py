"""Exact nearest neighbours cost little more than the matrix products that they can't do without."""

from __future__ import annotations

import os

import numpy as np
import torch

from benchmarks.harness import keep, paired, seconds
from synthforge.features.neighbours import Neighbours

ROWS, DIM, K, RUNS = int(os.environ.get("ROWS", "50_000")), 512, 10, 3
BLOCK = 2048


def main() -> None:
    rows_MD, queries_ND = (np.random.default_rng(seed).standard_normal((ROWS, DIM), dtype=np.float32) for seed in (0, 1))

    def products() -> None:
        for start in range(0, ROWS, BLOCK):
            torch.from_numpy(queries_ND[start : start + BLOCK]) @ torch.from_numpy(rows_MD).T

    rate = paired(
        lambda: ROWS / seconds(lambda: Neighbours(rows_MD).search(queries_ND, K)),
        lambda: ROWS / seconds(products),
        RUNS,
    )
    time_over_bare = {name: round(1 / rate["ratio"][other], 3) for name, other in (("median", "median"), ("min", "max"), ("max", "min"))}
    keep(
        "neighbours",
        "exact search takes at most 1.5 times the bare matrix products",
        {
            "rows, queries, features, k": [ROWS, ROWS, DIM, K],
            "threads": torch.get_num_threads(),
            "queries per second": rate["rate"],
            "the same by bare products": rate["bare"],
            "time over bare products": {**time_over_bare, "n": RUNS},
        },
    )
