"""Fixtures for sets of images and their folders."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from synthforge.data.collection import Collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.opening import open_collection
from synthforge.data.sidefiles import CROISSANT
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small
from tests.data.loaders import Pool, pool_of


@pytest.fixture(params=["disk", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"{request.getfixturevalue('s3')}/pool" if request.param == "s3" else str(tmp_path / "pool")


@pytest.fixture
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Collection]:
    """Open with one cache for the whole test."""
    cache = tmp_path_factory.mktemp("cache")

    def open_it(place: object, **options: Any) -> Collection:
        return open_collection(str(place), cache, **options)

    return open_it


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """50 digits in 5 shards, at `runs/digits/pool` below a folder of their own, as in the README."""
    out = tmp_path_factory.mktemp("loaders") / "runs" / "digits"
    generate(load_recipe(DIGITS, small(out, total=50, per_shard=10)))
    return pool_of(DatasetFolder.open(str(out / "pool")))


@pytest.fixture
def collected() -> Iterator[None]:
    """Files left open are closed while this test still says that it does not mind."""
    yield
    gc.collect()


@pytest.fixture
def croissant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, collected: None) -> Callable[[Pool], Any]:
    """A pool as mlcroissant sees it. It unpacks equally named tars into one place, so each test has its own."""
    import mlcroissant
    from mlcroissant._src.operation_graph.operations import extract

    monkeypatch.setattr(extract, "EXTRACT_PATH", extract.epath.Path(tmp_path / "unpacked"))
    return lambda pool: mlcroissant.Dataset(jsonld=str(pool.path / CROISSANT))
