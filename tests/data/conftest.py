"""Fixtures for sets of images and their folders."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.data.collection import Collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import encode
from synthforge.data.opening import open_collection
from synthforge.data.sidefiles import CROISSANT
from synthforge.generation.run import generate
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from tests.conftest import DIGITS, small
from tests.data.loaders import NAMES, Pool, pool_of


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


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    """A curated set in shards of 10, whose classes and keys have the names that people give to folders."""
    place = tmp_path_factory.mktemp("strange")
    rng = np.random.default_rng(0)
    for side, num in (("pool", 3), ("real", 10)):
        for name in NAMES:
            (place / side / name).mkdir(parents=True)
            for number in range(num):
                image = encode(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), "png", 100, marking=False)
                (place / side / name / f"{number} {name}.png").write_bytes(image)
    sets = ["encoder={kind: pixels}", "metric_encoder={kind: pixels, resolution: 12}", "trials.check=false", "samples_per_shard=10"]
    sets += ["gates.labels.on=false", "gates.manifold.on=false", "selection.size.per_class=3"]
    config = config_from_sets(CurationConfig, sets)
    result = curate(CurationRequest([str(place / "pool")], str(place / "real"), str(place / "out"), config))
    assert result.kept == 3 * len(NAMES)
    return pool_of(DatasetFolder.open(str(place / "out")))


@pytest.fixture(params=["pool", "curated"])
def any_pool(request: pytest.FixtureRequest) -> Pool:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Pool)
    return found


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
