"""Small dataset folders for the tests beside this file."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import Manifest, Segment, Shard, key_of
from synthforge.data.tars import EncodedSample, write_tar


def manifest(num: int = 25, per_shard: int = 10, plan: str = "p") -> Manifest:
    return Manifest(
        kind="pool",
        classes=["a", "b"],
        image_format="png",
        plan_digest=plan,
        recipe={"plan": plan},
        generator=None,
        segment=Segment(first_sample=0, num_samples=num, first_shard=0, samples_per_shard=per_shard),
    )


def samples(shard: Shard, fill: bytes = b"x", skip: int = 0) -> list[EncodedSample]:
    return [
        EncodedSample(
            key_of(i), fill * (i + 1), "png", i % 2, f"text {i}", {"class": "ab"[i % 2], "seed": 2**63 + i, "guidance": 1.5, "attempts": []}
        )
        for i in shard.samples[skip:]
    ]


def accept(shard: Shard, table: pa.Table) -> None:
    pass


def fill(dataset: DatasetFolder, tmp_path: Path, only: int | None = None) -> None:
    for shard in dataset.state().missing[:only]:
        write_tar(tmp_path / "made.tar", samples(shard))
        dataset.commit(shard, tmp_path / "made.tar", accept)
