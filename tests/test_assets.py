"""The embedded default is good: digits that a judge agrees with, no more copies than nature has, files in order."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from synthforge.data.audit import verify
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode
from synthforge.data.reading import read_labelled
from synthforge.data.storage import resolve
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from synthforge.training.copies import coverage, memorising
from tests.conftest import DIGITS

ASSETS = Path(resolve("builtin:digits"))
NESTED = {5: 50, 10: 100, 20: 200, 50: 500}


@cache
def reference(part: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_labelled("builtin:digits/reference")[part].arrays(8, 1)  # type: ignore[index]
    return images.reshape(-1, 64), labels


@cache
def judge() -> Any:
    """A support-vector classifier fitted on the whole reference."""
    images, labels = (np.concatenate([reference("fit")[i], reference("validation")[i]]) for i in (0, 1))
    return SVC(C=10, gamma=0.001 * (16 / 255) ** 2).fit(images, labels)


def generated(out: Path, *sets: str) -> tuple[np.ndarray, np.ndarray]:
    """3,000 images by the shipped recipe: pixels (3000, 64) and labels."""
    generate(load_recipe(DIGITS, [f"output.path={out}", "count={total: 3000}", *sets]))
    dataset = DatasetFolder.open(f"{out}/pool")
    rows = [(shard, row) for shard in dataset.shards() for row in dataset.table(shard).to_pylist()]
    tars = {shard.index: dataset.folder.read(shard.tar) for shard in dataset.shards()}
    images = [decode(tars[shard.index][row["image_offset"] : row["image_offset"] + row["image_size"]]) for shard, row in rows]
    return np.stack(images).reshape(-1, 64), np.array([row["class_index"] for _, row in rows])


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray]:
    return generated(tmp_path_factory.mktemp("pool"))


def test_the_judge_is_worth_listening_to() -> None:
    parts = read_labelled("builtin:digits/holdout").values()
    images, labels = (np.concatenate(arrays) for arrays in zip(*(part.arrays(8, 1) for part in parts), strict=True))
    assert judge().score(images.reshape(-1, 64), labels) > 0.95


def test_a_classifier_of_real_digits_agrees_with_the_labels(pool: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = pool
    assert judge().score(images, labels) >= 0.93
    per_class = [judge().score(images[labels == digit], labels[labels == digit]) for digit in range(10)]
    assert min(per_class) >= 0.85


def test_near_copies_are_no_more_frequent_than_among_real_images(pool: tuple[np.ndarray, np.ndarray]) -> None:
    seen = memorising(torch.from_numpy(pool[0]), torch.from_numpy(reference("fit")[0]))
    assert seen.near_copies <= seen.near_copies_real
    assert seen.near_copies_real == pytest.approx(0.05, abs=0.005)


def test_the_validation_part_is_covered(pool: tuple[np.ndarray, np.ndarray], record_property: Any) -> None:
    found = coverage(torch.from_numpy(pool[0]), torch.from_numpy(reference("validation")[0]))
    record_property("coverage", found)
    print(f"coverage of the validation part by 3,000 images: {found:.3f}")
    assert found > 0.9


@pytest.mark.parametrize("per_class", NESTED)
def test_nested_generators_saw_only_their_own_images(per_class: int) -> None:
    report = json.loads((ASSETS / f"generator-{per_class}-per-class" / "fit.json").read_text())
    assert (report["images_fitted"], report["images_validation"], report["real_budget"]) == (NESTED[per_class], 0, NESTED[per_class])
    assert report["config"]["per_class"] == per_class
    kept = next(check for check in report["checks"] if check["step"] == report["kept_step"])
    assert kept["is_candidate"]
    assert report["warning"] is None


def test_the_main_generator_says_what_it_saw() -> None:
    report = json.loads((ASSETS / "generator" / "fit.json").read_text())
    assert (report["images_fitted"], report["images_validation"], report["real_budget"]) == (800, 200, 1000)


@pytest.mark.slow
@pytest.mark.parametrize("per_class", NESTED)
def test_nested_generators_make_digits(tmp_path: Path, per_class: int) -> None:
    images, labels = generated(tmp_path, f"generator.model=builtin:digits/generator-{per_class}-per-class")
    assert judge().score(images, labels) > {5: 0.75, 10: 0.75, 20: 0.85, 50: 0.93}[per_class]


@pytest.mark.parametrize("name", ["reference", "holdout"])
def test_the_embedded_sets_are_what_was_sealed(name: str) -> None:
    audit = verify(DatasetFolder.open(f"builtin:digits/{name}"))
    assert (audit.problems, audit.notes) == ([], [])
    assert audit.samples == {"reference": 1000, "holdout": 797}[name]


def test_reference_and_holdout_share_no_image() -> None:
    seen = {}
    for name in ("reference", "holdout"):
        dataset = DatasetFolder.open(f"builtin:digits/{name}")
        seen[name] = {row for shard in dataset.shards() for row in dataset.table(shard).column("image_sha256").to_pylist()}
    assert not seen["reference"] & seen["holdout"]


def test_assets_are_small_and_safetensors_only() -> None:
    files = [path for path in ASSETS.parent.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20_000_000
    assert not [path for path in files if path.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
