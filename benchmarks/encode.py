"""Encoding, tar and seal alone, against what one core encodes and what the disk takes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.harness import keep, seconds, spread
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import encode
from synthforge.data.storage import Folder, resolve, sha256_of
from synthforge.data.tars import EncodedSample, index_tar, table_bytes, write_tar
from synthforge.generation.plan import Plan
from synthforge.recipe.load import load_recipe

NUM = 2000


def main() -> None:
    found = {}
    for size, channels in ((8, 1), (32, 3)):
        rng = np.random.default_rng(0)
        smooth = rng.integers(0, 256, (NUM, size // 4, size // 4, channels), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
        images = smooth + rng.integers(0, 8, smooth.shape, dtype=np.uint8)
        rates: dict[str, list[float]] = {}
        for _ in range(5):
            with tempfile.TemporaryDirectory(dir=".") as directory:
                for name, rate in _measure(images, Path(directory)).items():
                    rates.setdefault(name, []).append(rate)
        found[f"{size} px, {channels} channel(s), images per second on one core"] = {name: spread(values) for name, values in rates.items()}
    keep("encode", "encode and tar alone, images per second", found)


def _measure(images: np.ndarray, directory: Path) -> dict[str, float]:
    plan = Plan.of(load_recipe("recipes/digits.yaml", [f"count={{total: {NUM}}}", f"output.samples_per_shard={NUM}"]))
    samples = [plan[index] for index in range(NUM)]
    encoded: list[bytes] = []
    encoding = seconds(lambda: encoded.extend(encode(image, "png", 95, marking=True) for image in images))
    whole = [
        EncodedSample(sample.key, data, "png", sample.class_index, sample.prompt, sample.record([], {"model": "m"}))
        for sample, data in zip(samples, encoded, strict=True)
    ]
    tar = directory / "x.tar"
    writing = seconds(lambda: write_tar(tar, whole))
    indexing = seconds(lambda: (table_bytes(index_tar(tar, "x")), sha256_of(tar)))
    dataset = DatasetFolder.create(Folder(resolve(str(directory / "pool"))), plan.manifest({}))
    shard = next(dataset.shards())
    committing = seconds(lambda: dataset.commit(shard, tar, plan.check))
    data = tar.read_bytes()

    def raw() -> None:
        with (directory / "raw").open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    return {
        "encode only": NUM / encoding,
        "tar only": NUM / writing,
        "table and digests only": NUM / indexing,
        "commit (publish, table, check against the plan, seal)": NUM / committing,
        "encode + tar + commit": NUM / (encoding + writing + committing),
        "the same bytes written raw and fsynced": NUM / seconds(raw),
    }
