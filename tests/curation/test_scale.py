"""A pool of 100,000 images with features of 512 dimensions is gated, selected and measured in bounded memory.

The images are not there, only what `curate` reads once they are embedded: the rows of both collections, and the cache.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from synthforge.curation.sides import Sides
from synthforge.data.collection import ROWS_SCHEMA, Block, Collection
from synthforge.data.image_table import Table
from synthforge.data.layout import digest_of
from synthforge.data.read_config import Reading
from synthforge.data.units import Location, Members
from synthforge.features.embed import FACTS_SCHEMA, facts_file, features_file
from synthforge.features.encoders.config import PixelsConfig
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from tests.conftest import ROOT

NUM_POOL, NUM_REAL, DIM, CLASSES, PER_BLOCK = 100_000, 5_000, 512, 10, 1000
LATENT = 32
COPIES, TWINS, NOISE = 300, 500, 400
"""Faults among the pool's first images, in order: copies of real images, copies of later pool images, and noise."""
MOST_GB = 2.0
CODE = "import sys; from tests.curation.test_scale import child; child(sys.argv[1])"


def labels(num: int) -> NDArray[np.int64]:
    return np.arange(num) % CLASSES


class Rows(Collection):
    """So many rows, whose images nobody asks for."""

    kind = "webdataset"

    def __init__(self, name: str, num: int) -> None:
        self.address, self.digest, self._num = name, digest_of([name, num]), num
        self.classes, self.problems = [str(number) for number in range(CLASSES)], []
        self.blocks = [
            Block(f"{name} {start}", digest_of([name, start]), PER_BLOCK, Reading().decoder) for start in range(0, num, PER_BLOCK)
        ]

    def rows(self, block: Block) -> pa.Table:
        start = int(block.name.split()[1])
        keys = [f"{self.address}{number:09d}" for number in range(start, start + PER_BLOCK)]
        own = {
            "key": keys,
            "class": [str(number % CLASSES) for number in range(start, start + PER_BLOCK)],
            "image_sha256": [digest_of(key) for key in keys],
            "extension": ["png"] * PER_BLOCK,
        }
        return pa.table([own.get(name, [None] * PER_BLOCK) for name in ROWS_SCHEMA.names], schema=ROWS_SCHEMA)

    def _read(self, block: Block, rows: Sequence[int] | None, whole: bool) -> Iterator[Members]:
        raise NotImplementedError

    def locations(self, block: Block) -> Iterator[Location]:
        raise NotImplementedError

    def _named_parts(self) -> None:
        return None


@dataclass
class Named:
    """As much of an encoder as is asked for once all is embedded."""

    name: str
    seen: frozenset[str] = frozenset()
    logit_scale: float | None = None

    def identity(self) -> dict[str, Any]:
        return {"kind": "named", "name": self.name}

    def embed_texts(self, texts: list[str]) -> None:
        return None


def collections() -> tuple[Rows, Rows]:
    return Rows("pool", NUM_POOL), Rows("real", NUM_REAL)


def latents() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Each class a normal cloud; in odd rounds of classes the pool's lies aside."""
    rng = np.random.default_rng(0)
    centres = 4 * rng.standard_normal((CLASSES, LATENT), np.float32)
    aside = rng.standard_normal(LATENT, np.float32)
    real = centres[labels(NUM_REAL)] + rng.standard_normal((NUM_REAL, LATENT), np.float32)
    pool = centres[labels(NUM_POOL)] + rng.standard_normal((NUM_POOL, LATENT), np.float32)
    pool[np.arange(NUM_POOL) // CLASSES % 2 == 1] += aside
    pool[:COPIES] = real[:COPIES]
    pool[COPIES : COPIES + TWINS] = pool[-TWINS:]
    pool[COPIES + TWINS :][:NOISE] = 30 * rng.standard_normal((NOISE, LATENT), np.float32)
    return pool, real


def write_cache(folder: Path) -> None:
    """Features by two models, each another linear map of what the images are; no pixels are equal."""
    for number, name in enumerate(("encoder", "metric_encoder")):
        model = np.random.default_rng([1, number]).standard_normal((LATENT, DIM), np.float32) / np.float32(LATENT**0.5)
        digest = digest_of(Named(name).identity())
        for collection, latent in zip(collections(), latents(), strict=True):
            for place, block in enumerate(collection.blocks):
                file = features_file(folder, block, digest)
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, latent[place * PER_BLOCK : (place + 1) * PER_BLOCK] @ model)
                pixels = np.arange(place * PER_BLOCK, (place + 1) * PER_BLOCK, dtype=np.uint64)
                size = np.full(PER_BLOCK, 224, np.int32)
                table = pa.table([pa.nulls(PER_BLOCK, pa.string()), pixels, size, size, pa.array([False] * PER_BLOCK)], schema=FACTS_SCHEMA)
                pq.write_table(table, facts_file(folder, block))


class Steps(Reporter):
    """Prints how long each step kept a core busy and the peak of memory up to then."""

    def __init__(self) -> None:
        self._began = time.process_time()
        self._step = "starting"

    def note(self, text: str) -> None:
        now = time.process_time()
        # Not ru_maxrss, which a child takes over from the process that started it.
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        print(f"{self._step}: {now - self._began:.1f} s, peak {int(peak.split()[1]) / 1024:.0f} MiB", flush=True)
        self._began, self._step = now, text


def child(folder: str) -> None:
    """What `curate` does between embedding and writing."""
    from synthforge.curation.gap.gap import measure_gap
    from synthforge.curation.run import RANDOM_DRAWS, _choice, _gated, _regions
    from synthforge.curation.selection.trials import random_rows

    reporter = Steps()
    config = config_from_sets(CurationConfig, [f"cache={folder}", "device=cpu", "selection.method=mmd", "trials.check=false"])
    pool, real = collections()
    model = PixelsConfig()
    reporter.note("reading rows")
    encoders: list[Any] = [Named("encoder")]
    metric_encoders: list[Any] = [Named("metric_encoder")]
    sides = Sides(
        config=config,
        cache=Path(folder),
        reference_address="real",
        pool=Table.of([pool]),
        real=Table.of([real]),
        encoder=model,
        metric_encoder=model,
        notes=[],
        encoders=encoders,
        metric_encoders=metric_encoders,
    )
    sides._align()
    choice = _choice(_gated(sides, reporter), reporter)
    reporter.note("reading the metric_encoder's features")
    draws = random_rows(sides, choice.gated.alive, {name: report.kept for name, report in choice.per_class.items()}, RANDOM_DRAWS)
    before = np.flatnonzero(sides.usable)
    gaps = []
    for name in ("metric_views", "held_out_views"):
        reporter.note(f"gap, {name}")
        views = getattr(sides, name)
        gaps.append(measure_gap(views, classes=sides.classes, before=before, after=choice.kept, random=draws, seed=0))
    reporter.note("regions")
    _regions(sides, choice)
    reporter.note("end")
    for report in choice.gated.reports:
        print(report)

    reasons = choice.reason_N.astype(str)
    assert (reasons[:COPIES] == "copy of a real image").all()
    pairs = np.stack([reasons[COPIES : COPIES + TWINS], reasons[-TWINS:]])
    is_gone = np.isin(pairs, ["label disagrees", "off-manifold"]).all(axis=0)  # by an earlier gate
    assert ((pairs == "near duplicate").sum(axis=0) == ~is_gone).all() and is_gone.mean() < 0.5
    assert np.isin(reasons[COPIES + TWINS :][:NOISE], ["label disagrees", "off-manifold"]).mean() > 0.95
    assert choice.gated.alive.mean() > 0.5
    assert len(choice.kept) == int(sides.fit.sum())
    for gap in gaps:
        found = gap.metrics["mmd"]
        assert found.after_minus_random is not None and found.after_minus_random.verdict == "smaller"
        assert found.after_minus_before is not None and found.after_minus_before.verdict == "smaller"


@pytest.mark.slow
@pytest.mark.timeout(900)  # two minutes on a core of its own
def test_a_pool_of_a_hundred_thousand_fits_in_two_gigabytes(tmp_path: Path) -> None:
    write_cache(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    peaks = [float(line.split()[-2]) for line in done.stdout.splitlines() if line.endswith("MiB")]
    assert max(peaks) * 2**20 < MOST_GB * 1e9, done.stdout
