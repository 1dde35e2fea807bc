"""Pools with known faults, planted into images of the built-in generator; written as plain WebDataset tars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.curation.request import CurationRequest
from synthforge.curation.result import CurateResult
from synthforge.curation.run import curate
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode, encode
from synthforge.data.reading import read_labelled
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets

REFERENCE = "builtin:digits/reference"
Images = NDArray[np.uint8]


@dataclass
class Made:
    """Images with labels, (N, 8, 8, 1) uint8."""

    images: Images
    labels: NDArray[np.int64]

    def copy(self) -> Made:
        return Made(self.images.copy(), self.labels.copy())

    def with_more(self, images: Images, labels: NDArray[np.int64]) -> Made:
        return Made(np.concatenate([self.images, images]), np.concatenate([self.labels, labels]))


def images_of(pool: Path) -> Made:
    """Everything in a dataset folder."""
    dataset = DatasetFolder.open(str(pool))
    images, labels = [], []
    for shard in dataset.state().sealed:
        for row in dataset.table(shard).to_pylist():
            images.append(decode(dataset.folder.read_range(shard.tar, row["image_offset"], row["image_size"]), 1))
            labels.append(row["class_index"])
    return Made(np.stack(images), np.array(labels))


def real(part: str = "fit") -> Made:
    """The built-in reference."""
    images_NCHW, labels = read_labelled(REFERENCE)[part].arrays(8, 1)  # type: ignore[index]
    return Made(images_NCHW.transpose(0, 2, 3, 1), labels)


def write_tar(path: Path, made: Made, labels: Sequence[str] | None = None) -> Path:
    """A WebDataset tar with keys 0, 1, 2, ...: the row of each image."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for row, (image, label) in enumerate(zip(made.images, labels or made.labels.tolist(), strict=True)):
            for extension, data in (("png", encode(image, "png", 100, marking=False)), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{row:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def noisy(images: Images, levels: int, seed: int = 0) -> Images:
    """Each pixel changed by up to so many levels."""
    noise = np.random.default_rng(seed).integers(-levels, levels + 1, images.shape)
    return np.clip(images.astype(np.int64) + noise, 0, 255).astype(np.uint8)


def curated(tmp_path: Path, *pools: Path, sets: Sequence[str] = (), reference: str = REFERENCE, out: str = "curated") -> CurateResult:
    """Curate with the trained comparisons off, which tests of gates don't need."""
    given = ["selection.method=mmd", "trials.check=false", "classes=['0','1','2','3','4','5','6','7','8','9']", *sets]
    return curate(CurationRequest([str(pool) for pool in pools], reference, str(tmp_path / out), config_from_sets(CurationConfig, given)))


def decisions(result: CurateResult) -> list[dict[str, object]]:
    """The decisions as rows."""
    rows: list[dict[str, object]] = pq.read_table(f"{result.folder}/decisions.parquet").to_pylist()
    return rows


def found(result: CurateResult, *reasons: str) -> set[int]:
    """Rows of a single planted pool that were dropped for one of these reasons."""
    return {int(str(row["key"]).split("~")[-1]) for row in decisions(result) if row["reason"] in reasons}


def precision_and_recall(found: set[int], planted: set[int]) -> tuple[float, float]:
    both = len(found & planted)
    return both / max(len(found), 1), both / len(planted)
