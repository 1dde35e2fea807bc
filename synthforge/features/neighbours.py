"""Nearest neighbours of feature rows: exact where affordable, else approximate with measured recall.

Flat search is FAISS's brute force over matrix products. Above 200,000 rows, `auto` uses an inverted file (Douze et
al. 2024, arXiv 2401.08281) and searches more cells until it finds the requested share of true neighbours.
Returned distances are recomputed from the difference of the two rows. So copies are at distance exactly 0, not at the
rounding error of |x|² + |y|² - 2xy. Neighbours are ordered by distance, then by index.
If more than k rows are at one distance, the search decides which are found.
Not covered: compressed vectors, indices on disk, a GPU for anything but flat search.
Shapes: M indexed rows, N queries, D features, k neighbours.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import faiss
import numpy as np

from synthforge.arrays import Floats, Ints
from synthforge.errors import RequestError
from synthforge.features.config import IndexConfig

FLAT_ROWS = 200_000
"""Above it `auto` is approximate: at 512 features, as many exact queries take minutes on some cores."""
FEWEST = 1000
"""Fewer rows than this are always searched flat."""
PROBED = 256
"""Number of rows on which recall is measured."""
MEASURED_K = 16
"""Recall is measured among so many neighbours, or the next power of two if more are requested."""
SPARE = 4
"""Candidates beyond k, so that among rows at equal distance the first is found."""
_LINKS = 32
"""Links of each row in an HNSW graph."""


class Neighbours:
    """The rows of a set, searchable by squared Euclidean distance.

    Args:
        features_MD: float32. Flat search keeps a reference to them, unless they lie far from the origin.
        like_ND: rows like the later queries, on which recall is measured. None: rows of the set, each without itself.
            If queries are unlike the rows, fewer neighbours are found than this measures.
    Attributes:
        kind: "flat", "ivf" or "hnsw".
        recall: 1 for flat; else the smallest share of true neighbours found in a measurement.
    Raises: RequestError if an HNSW graph can't reach the requested recall.
    """

    def __init__(self, features_MD: Floats, config: IndexConfig | None = None, like_ND: Floats | None = None) -> None:
        self._config = config or IndexConfig()
        assert features_MD.ndim == 2 and len(features_MD) > 0, f"features of shape {features_MD.shape}"
        self._centre_D = _centre(features_MD)
        self._rows_MD = self._centred(features_MD)
        self.kind = self._config.kind
        if len(self) < FEWEST or (self.kind == "auto" and len(self) <= FLAT_ROWS):
            self.kind = "flat"
        elif self.kind == "auto":
            self.kind = "ivf"
        self.recall = 1.0
        self._gpu = faiss.StandardGpuResources() if self.kind == "flat" and faiss.get_num_gpus() else None
        self._efforts: dict[int, int] = {}
        if self.kind != "flat":
            self._like_ND = None if like_ND is None else self._centred(like_ND)
            self._index: Any = _build_ivf(self._rows_MD) if self.kind == "ivf" else _build_hnsw(self._rows_MD)
            self._effort(MEASURED_K)

    def __len__(self) -> int:
        return len(self._rows_MD)

    def search(self, queries_ND: Floats, k: int, exclude_N: Ints | None = None) -> tuple[Floats, Ints]:
        """The k nearest rows of each query, nearest first.

        Args:
            k: at most M, or M - 1 with `exclude_N`.
            exclude_N: for each query a row that does not count, such as itself; -1: none.
        Returns: squared distances, float32 (N, k), and rows, int64 (N, k).
        """
        return self._search(self._centred(queries_ND), k, exclude_N)

    def exclude_self(self, k: int) -> tuple[Floats, Ints]:
        """The k nearest other rows of each row of the set (leave-one-out)."""
        return self._search(self._rows_MD, k, exclude_N=np.arange(len(self)))

    def _centred(self, features_ND: Floats) -> Floats:
        features_ND = np.ascontiguousarray(features_ND, np.float32)
        return features_ND - self._centre_D if self._centre_D.any() else features_ND

    def _search(self, queries_ND: Floats, k: int, exclude_N: Ints | None) -> tuple[Floats, Ints]:
        excluded = int(exclude_N is not None)
        assert 1 <= k <= len(self) - excluded, f"{k} neighbours among {len(self)} rows"
        wanted = min(k + excluded + SPARE, len(self))
        squared_NK, rows_NK = np.empty((len(queries_ND), k), np.float32), np.empty((len(queries_ND), k), np.int64)
        for start in range(0, len(queries_ND), self._block_rows(wanted)):
            block = slice(start, start + self._block_rows(wanted))
            rows = self._candidates(queries_ND[block], wanted)
            squared = self._squared(queries_ND[block], rows)
            if exclude_N is not None:
                squared[rows == exclude_N[block, None]] = np.inf
            order = np.lexsort((rows, squared), axis=1)[:, :k]
            squared_NK[block] = np.take_along_axis(squared, order, axis=1)
            rows_NK[block] = np.take_along_axis(rows, order, axis=1)
        return squared_NK, rows_NK

    def _block_rows(self, wanted: int) -> int:
        """Queries per block: gathering and subtracting their candidates fills the working memory."""
        return max(1, int(self._config.memory_gb * 1e9 / (8 * wanted * self._rows_MD.shape[1] + 24 * wanted)))

    def _candidates(self, queries_ND: Floats, k: int) -> Ints:
        if self.kind == "flat":
            return self._exact(queries_ND, k)
        rows = self._approximate(queries_ND, k, self._effort(k))
        short = np.flatnonzero((rows < 0).any(axis=1))
        if len(short):  # the searched cells hold fewer than k
            rows[short] = self._exact(queries_ND[short], k)
        return rows

    def _exact(self, queries_ND: Floats, k: int) -> Ints:
        knn = faiss.knn if self._gpu is None else functools.partial(faiss.knn_gpu, self._gpu)
        rows_NK: Any = knn(queries_ND, self._rows_MD, k)[1]
        return np.asarray(rows_NK, np.int64)

    def _squared(self, queries_ND: Floats, rows_NK: Ints) -> Floats:
        difference_NKD = self._rows_MD[rows_NK]
        difference_NKD -= queries_ND[:, None]
        squared: Floats = np.einsum("nkd,nkd->nk", difference_NKD, difference_NKD)
        return squared

    def _approximate(self, queries_ND: Floats, k: int, effort: int) -> Ints:
        if self.kind == "ivf":
            self._index.nprobe = effort
        else:
            self._index.hnsw.efSearch = effort
        rows: Ints = self._index.search(queries_ND, k)[1]
        return rows

    def _effort(self, k: int) -> int:
        """Cells to search (ivf), or candidates to keep (hnsw), for k neighbours.

        The smallest power of two that reaches the requested recall.
        """
        k = min(max(MEASURED_K, 1 << (k - 1).bit_length()), len(self) - 1)
        if k not in self._efforts:
            self._efforts[k] = self._measure(k)
        return self._efforts[k]

    def _measure(self, k: int) -> int:
        rows = np.linspace(0, len(self) - 1, PROBED).astype(np.int64)
        like_ND, own_N = self._rows_MD[rows], rows
        if self._like_ND is not None:
            like_ND = self._like_ND[np.linspace(0, len(self._like_ND) - 1, PROBED).astype(np.int64)]
            own_N = np.full(PROBED, -1)
        limit_N = self._others(like_ND, self._exact(like_ND, k + 1), own_N, k)[:, -1] * (1 + 1e-5)
        most = self._index.nlist if self.kind == "ivf" else len(self)
        effort = 1 if self.kind == "ivf" else k
        while True:
            nearest_NK = self._others(like_ND, self._approximate(like_ND, k + 1, effort), own_N, k)
            share = float((nearest_NK <= limit_N[:, None]).mean())
            if share >= self._config.recall:
                self.recall = min(self.recall, share)
                return effort
            if effort == most:
                raise RequestError(
                    f"index: {self.kind} finds only {share:.3f} of the true neighbours where recall asks for {self._config.recall}; "
                    "choose kind: ivf or flat"
                )
            effort = min(2 * effort, most)

    def _others(self, queries_ND: Floats, rows_NK: Ints, own_N: Ints, k: int) -> Floats:
        """Squared distances of the k nearest found, without the query itself, sorted; inf where none was found."""
        squared = self._squared(queries_ND, rows_NK)
        squared[(rows_NK < 0) | (rows_NK == own_N[:, None])] = np.inf
        return np.sort(squared, axis=1)[:, :k]


def _centre(features_MD: Floats) -> Floats:
    """The vector to subtract before distances are computed by products, which lose precision far from the origin.

    It is the mean, rounded to a power of two near the spread. Near the origin it is 0, and subtracting it rounds
    little.
    """
    some_MD = features_MD[:: max(1, len(features_MD) // 10_000)]
    mean_D = some_MD.mean(axis=0, dtype=np.float64)
    spread = float(np.sqrt(some_MD.var(axis=0, dtype=np.float64).mean()))
    unit = 2.0 ** math.floor(math.log2(spread)) if spread > 0 else 1.0
    centre_D: Floats = (np.round(mean_D / unit) * unit).astype(np.float32)
    return centre_D


def _build_ivf(rows_MD: Floats) -> faiss.IndexIVFFlat:
    num_cells = max(1, min(round(4 * math.sqrt(len(rows_MD))), len(rows_MD) // 40))
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(rows_MD.shape[1]), rows_MD.shape[1], num_cells, faiss.METRIC_L2)
    index.cp.seed, index.cp.niter = 1, 10
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, 64
    index.train(rows_MD)
    index.add(rows_MD)
    return index


def _build_hnsw(rows_MD: Floats) -> faiss.IndexHNSWFlat:
    index = faiss.IndexHNSWFlat(rows_MD.shape[1], _LINKS)
    index.hnsw.efConstruction = 200
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # with several threads the graph depends on timing
    try:
        index.add(rows_MD)
    finally:
        faiss.omp_set_num_threads(threads)
    return index
