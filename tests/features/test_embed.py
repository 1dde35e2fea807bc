"""Features of a collection: cached by content, read in any order, and the same however they were batched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.data.images import encode
from synthforge.data.opening import open_collection
from synthforge.features.embed import Features, embedded, facts_of, features_of
from synthforge.features.encoders.config import PixelsConfig
from synthforge.features.encoders.protocol import Loading


def folder_of_images(folder: Path, images: np.ndarray) -> Path:
    (folder / "cat").mkdir(parents=True)
    for number, image in enumerate(images):
        (folder / "cat" / f"{number}.png").write_bytes(encode(image, "png", 100, marking=False))
    return folder


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)


def embed(folder: Path, cache: Path, batch: int = 2) -> tuple[Features, np.ndarray]:
    options: dict[str, Any] = {"classes": None, "cache": cache, "device": "cpu", "batch": batch, "decoders": 1}
    return embedded(open_collection(str(folder), cache), PixelsConfig(resolution=8), **options)


def test_features_are_those_of_the_encoder_and_come_in_any_order(pictures: np.ndarray, tmp_path: Path) -> None:
    features, usable = embed(folder_of_images(tmp_path / "images", pictures), tmp_path / "cache")
    (encoder,) = PixelsConfig(resolution=8).build(Loading(tmp_path))
    assert (len(features), features.dim, usable.tolist()) == (5, 192, [True] * 5)
    rows = np.array([3, 0, 3])
    assert np.array_equal(features[rows], encoder.embed(pictures[rows]).numpy())


def test_the_same_images_are_embedded_once_wherever_they_lie(pictures: np.ndarray, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, _ = embed(folder_of_images(tmp_path / "here", pictures), cache)
    written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")}
    again, _ = embed(folder_of_images(tmp_path / "there", pictures), cache, batch=4)
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.npy")} == written
    assert np.array_equal(first[np.arange(5)], again[np.arange(5)])


def test_blank_images_are_not_usable_and_facts_say_why(pictures: np.ndarray, tmp_path: Path) -> None:
    pictures[2] = 7
    folder, cache = folder_of_images(tmp_path / "images", pictures), tmp_path / "cache"
    features, usable = embed(folder, cache)
    assert usable.tolist() == [True, True, False, True, True]
    facts = facts_of(open_collection(str(folder), cache), cache)
    assert facts.column("problem").to_pylist() == [None, None, "blank", None, None]
    assert len(set(facts.column("pixels").to_pylist())) == 5
    assert np.isnan(features[np.array([2])]).all()


def test_features_of_several_files_are_one_array(tmp_path: Path) -> None:
    parts = [np.arange(6, dtype=np.float32).reshape(3, 2), 10 + np.arange(4, dtype=np.float32).reshape(2, 2)]
    for number, part in enumerate(parts):
        np.save(tmp_path / f"{number}.npy", part)
    features = Features([tmp_path / "0.npy", tmp_path / "1.npy"], [3, 2])
    assert np.array_equal(features[np.array([4, 1, 2])], np.concatenate(parts)[[4, 1, 2]])


def test_a_torn_file_is_not_usable_and_the_others_are(pictures: np.ndarray, tmp_path: Path) -> None:
    folder, cache = folder_of_images(tmp_path / "images", pictures), tmp_path / "cache"
    torn = folder / "cat" / "3.png"
    torn.write_bytes(torn.read_bytes()[:40])
    _, usable = embed(folder, cache)
    assert usable.tolist() == [True, True, True, False, True]
    assert "not a readable image" in facts_of(open_collection(str(folder), cache), cache).column("problem").to_pylist()[3]


def test_no_collections_have_no_features(tmp_path: Path) -> None:
    assert len(features_of([], "0" * 64, tmp_path)) == 0
