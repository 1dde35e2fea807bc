"""Neighbours against brute force written out."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from synthforge.errors import RequestError
from synthforge.features.config import IndexConfig
from synthforge.features.neighbours import Neighbours


def rows_of(num: int, dim: int = 16, seed: int = 0, clumps: int = 40) -> Any:
    rng = np.random.default_rng(seed)
    rows = 3 * rng.standard_normal((clumps, dim))[rng.integers(clumps, size=num)] + rng.standard_normal((num, dim))
    return (np.round(16 * rows) / 16).astype(np.float32)  # so that distances, and ties, are exact


def brute_force(queries: Any, rows: Any, k: int, exclude: Any = None) -> tuple[Any, Any]:
    squared = ((queries[:, None].astype(np.float64) - rows[None].astype(np.float64)) ** 2).sum(axis=2)
    if exclude is not None:
        squared[np.arange(len(queries)), exclude] = np.inf
    order = np.argsort(squared, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(squared, order, axis=1), order


@pytest.mark.parametrize("k", [1, 7, 500])
def test_flat_equals_brute_force(k: int) -> None:
    rows, queries = rows_of(500), rows_of(300, seed=1)
    squared, found = Neighbours(rows).search(queries, k)
    true_squared, true_found = brute_force(queries, rows, k)
    assert squared.dtype == np.float32 and found.dtype == np.int64
    np.testing.assert_array_equal(found, true_found)
    np.testing.assert_allclose(squared, true_squared, rtol=1e-5)


def test_without_itself_a_row_finds_the_others() -> None:
    rows = rows_of(200)
    neighbours = Neighbours(rows)
    squared, found = neighbours.exclude_self(199)
    true_squared, true_found = brute_force(rows, rows, 199, np.arange(200))
    np.testing.assert_array_equal(found, true_found)
    np.testing.assert_allclose(squared, true_squared, rtol=1e-5)
    exclude = np.where(np.arange(200) % 2 == 0, np.arange(200), -1)
    found = neighbours.search(rows, 1, exclude)[1][:, 0]
    assert (found[1::2] == np.arange(1, 200, 2)).all() and (found[::2] == true_found[::2, 0]).all()


def test_copies_are_at_distance_zero_and_in_order_of_their_index() -> None:
    rows = 1000 + rows_of(400, 64)
    rows[[17, 90, 250]] = rows[3]
    squared, found = Neighbours(rows).search(rows[[3]], 4)
    assert squared.tolist() == [[0, 0, 0, 0]] and found.tolist() == [[3, 17, 90, 250]]


def test_of_two_copies_the_first_is_found() -> None:
    """Products round by where a row stands in them, so alone they find the second in 3 of 100."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((1500, 64), dtype=np.float32)
    queries = rows[rng.integers(1500, size=4000)] + 0.3 * rng.standard_normal((4000, 64), dtype=np.float32)
    for kind in ("flat", "ivf"):
        squared, found = Neighbours(np.concatenate([rows, rows]), IndexConfig(kind=kind)).search(queries, 1)
        assert (found < 1500).all() and np.isfinite(squared).all()


def test_rounding_decides_nothing_however_far_from_the_origin() -> None:
    """So many queries go through products, which are some units off that far out."""
    rng = np.random.default_rng(0)
    rows, queries = (400 + rng.standard_normal((num, 256), dtype=np.float32) for num in (3000, 800))
    queries[:20] = rows[:20]
    assert np.abs(faiss.knn(queries, rows, 5)[0][:20, 0]).max() > 0.1
    squared, found = Neighbours(rows).search(queries, 5)
    true_squared, true_found = brute_force(queries[10:30], rows, 5)
    np.testing.assert_array_equal(found[10:30], true_found)
    np.testing.assert_allclose(squared[10:30], true_squared, rtol=1e-5)
    assert (squared[:20, 0] == 0).all()


def test_cells_that_hold_too_few_are_not_all_there_is() -> None:
    neighbours = Neighbours(rows_of(4000), IndexConfig(kind="ivf", recall=0.01))
    queries = rows_of(100, seed=1)
    assert (neighbours._approximate(queries, 204, neighbours._effort(204)) < 0).any()
    squared, found = neighbours.search(queries, 200)
    assert np.isfinite(squared).all() and (found >= 0).all() and all(len(set(row)) == 200 for row in found.tolist())


@pytest.mark.parametrize("kind", ["flat", "ivf", "hnsw"])
def test_blocks_and_runs_do_not_change_results(kind: Any) -> None:
    rows, queries = rows_of(3000), rows_of(700, seed=1)
    whole = Neighbours(rows, IndexConfig(kind=kind)).search(queries, 5)
    blocks = Neighbours(rows, IndexConfig(kind=kind, memory_gb=1e-5)).search(queries, 5)
    assert Neighbours(rows, IndexConfig(kind=kind, memory_gb=1e-5))._block_rows(9) < 10
    for one, other in zip(whole, blocks, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", ["ivf", "hnsw"])
@pytest.mark.parametrize("asked", [0.8, 0.99, 1.0])
def test_approximate_search_has_the_recall_it_says(kind: Any, asked: float) -> None:
    rows, queries = rows_of(6000, clumps=300), rows_of(1000, seed=2, clumps=300)
    neighbours = Neighbours(rows, IndexConfig(kind=kind, recall=asked), like_ND=queries)
    assert neighbours.kind == kind and neighbours.recall >= asked
    found = neighbours.search(queries, 10)[1]
    true = Neighbours(rows).search(queries, 10)[1]
    recall = np.mean([len(set(one) & set(other)) / 10 for one, other in zip(found.tolist(), true.tolist(), strict=True)])
    assert recall >= asked - 0.02


def test_a_lower_recall_costs_less() -> None:
    rows = rows_of(6000, clumps=1, dim=32)
    low, high = (Neighbours(rows, IndexConfig(kind="ivf", recall=recall)) for recall in (0.5, 0.99))
    assert low._efforts[16] < high._efforts[16] and low.recall < high.recall


def test_recall_is_measured_anew_for_many_neighbours() -> None:
    neighbours = Neighbours(rows_of(4000, clumps=1), IndexConfig(kind="ivf", recall=0.95))
    squared, found = neighbours.search(rows_of(50, seed=1, clumps=1), 1000)
    assert max(neighbours._efforts) == 1024 and 0.95 <= neighbours.recall <= 1
    assert np.isfinite(squared).all() and all(len(set(row)) == 1000 for row in found.tolist())


def test_recall_among_copies_is_that_of_distances() -> None:
    rows = np.repeat(rows_of(50), 40, axis=0)
    neighbours = Neighbours(rows, IndexConfig(kind="ivf", recall=1.0))
    assert neighbours.recall == 1.0
    assert (neighbours.search(rows[:80], 3)[0] == 0).all()


def test_auto_is_flat_until_it_costs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(2000)
    assert Neighbours(rows).kind == "flat" and Neighbours(rows).recall == 1.0
    monkeypatch.setattr("synthforge.features.neighbours.FLAT_ROWS", 1500)
    assert Neighbours(rows).kind == "ivf"
    assert Neighbours(rows[:500], IndexConfig(kind="hnsw")).kind == "flat"


def test_a_graph_that_can_not_find_enough_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Neighbours, "_approximate", lambda self, queries, k, effort: np.zeros((len(queries), k), np.int64))
    with pytest.raises(RequestError, match=r"hnsw finds only .* where recall asks for 0\.99; choose kind: ivf or flat"):
        Neighbours(rows_of(1200), IndexConfig(kind="hnsw"))


def test_a_gpu_searches_flat_where_faiss_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def on_gpu(resources: object, queries: Any, rows: Any, k: int) -> Any:
        asked.append((resources, len(queries)))
        return faiss.knn(queries, rows, k)

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "gpu", raising=False)
    monkeypatch.setattr(faiss, "knn_gpu", on_gpu)
    rows = rows_of(300)
    np.testing.assert_array_equal(Neighbours(rows).search(rows[:9], 5)[1], brute_force(rows[:9], rows, 5)[1])
    assert asked == [("gpu", 9)]
