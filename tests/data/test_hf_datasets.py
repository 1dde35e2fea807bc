"""Tables of Hugging Face `datasets`: arrow and parquet files."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthforge.data.collection import Collection
from synthforge.data.units import Members
from synthforge.errors import DatasetError
from tests.data.sets import BIG, IMAGES, check_contract, column, image, images_of, keys_of


def hub_set(num: int = 20) -> Any:
    import datasets

    features = datasets.Features(
        {
            "caption": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "seed": datasets.Value("int64"),
        }
    )
    return datasets.Dataset.from_dict(
        {
            "image": [{"bytes": IMAGES[i] if i % 5 else image(i, "jpg"), "path": f"{i}.png"} for i in range(num)],
            "label": [None if i == 3 else -1 if i == 4 else i % 2 for i in range(num)],
            "caption": [f"caption {i}" for i in range(num)],
            "seed": list(range(num)),
        },
        features=features,
    )


def saved(data: Any, place: Path, how: str) -> Path:
    place.mkdir()
    if how == "disk":
        data.save_to_disk(place, num_shards=3)
    elif how == "parquet":
        for number in range(2):
            data.shard(2, number, contiguous=True).to_parquet(place / f"train-{number:05d}-of-00002.parquet", batch_size=4)
    else:
        (place / "data").mkdir()
        data.to_parquet(place / "data" / "train-00000-of-00001.parquet")
    return place


@pytest.fixture
def quiet() -> Iterator[None]:
    import datasets

    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("how", ["disk", "parquet", "hub"])
def test_sets_of_the_datasets_library(tmp_path: Path, how: str, opened: Callable[..., Collection]) -> None:
    found = opened(saved(hub_set(), tmp_path / "set", how))
    check_contract(found)
    assert (found.kind, found.classes, found.num_samples, found.problems) == ("datasets", ["cat", "dog"], 20, [])
    assert images_of(found) == [IMAGES[i] if i % 5 else image(i, "jpg") for i in range(20)]
    assert column(found, "class")[:7] == ["cat", "dog", "cat", None, None, "dog", "cat"]
    assert column(found, "seed") == list(range(20))
    members = [one for _, one in found.samples(found.blocks[0], [1, 0])]
    assert members == [Members(IMAGES[1], "png", txt=b"caption 1"), Members(image(0, "jpg"), "jpg", txt=b"caption 0")]
    stem = {"disk": "data-00000-of-00003", "parquet": "train-00000-of-00002", "hub": "train-00000-of-00001"}[how]
    assert keys_of(found)[:2] == [f"{stem}~0", f"{stem}~1"]


@pytest.mark.usefixtures("quiet")
def test_splits_are_parts(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    import datasets

    data = hub_set()
    datasets.DatasetDict({"train": data, "validation": data.select([1, 2]), "test": data.select([0])}).save_to_disk(tmp_path / "both")
    found = opened(tmp_path / "both")
    check_contract(found)
    assert np.concatenate(list(found.part().values())).tolist() == ["fit"] * 20 + ["validation"] * 2
    assert images_of(found)[20:] == IMAGES[1:3]
    datasets.DatasetDict({"train": data}).save_to_disk(tmp_path / "one")
    assert np.concatenate(list(opened(tmp_path / "one").part().values())).tolist().count("validation") == 2  # of 9 and 9
    saved(data, tmp_path / "files", "parquet")
    data.select([5, 6]).to_parquet(tmp_path / "files" / "test-00000-of-00001.parquet")
    parts = opened(tmp_path / "files").part()
    assert {name: set(part) for name, part in parts.items()} == {
        "train-00000-of-00002.parquet": {"fit"},
        "train-00001-of-00002.parquet": {"fit", "validation"},
    }


def test_parquet_of_other_makers(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    cells = [{"bytes": IMAGES[i], "path": None} if i != 2 else None for i in range(6)]
    pq.write_table(pa.table({"img": cells, "label": ["a", "b"] * 3, "prompt": ["p"] * 6}), tmp_path / "x.parquet", row_group_size=4)
    found = opened(tmp_path / "x.parquet")
    check_contract(found)
    assert images_of(found) == [IMAGES[i] for i in (0, 1, 3, 4, 5)]
    assert column(found, "class") == ["a", "b", "b", "a", "b"]
    assert found.problems == [f"{tmp_path}/x.parquet: 1 without an image (first: row 2); left out"]
    pq.write_table(pa.table({"img": cells, "number": [1] * 6}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="5 images and no label; a column of ClassLabel"):
        opened(tmp_path)
    pq.write_table(pa.table({"number": [1] * 6}), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match="no dataset folder"):
        opened(tmp_path)


@pytest.mark.usefixtures("quiet")
def test_torn_tables_are_told(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    place = saved(hub_set(), tmp_path / "disk", "disk")
    last = place / "data-00002-of-00003.arrow"
    last.write_bytes(last.read_bytes()[:-700])
    found = opened(place)
    check_contract(found)
    assert found.num_samples == 14
    assert str(last) in found.problems[0]
    place = saved(hub_set(), tmp_path / "files", "parquet")
    last = place / "train-00001-of-00002.parquet"
    last.write_bytes(last.read_bytes()[:-700])
    found = opened(place)
    check_contract(found)
    assert (found.num_samples, "not a whole parquet file" in found.problems[0]) == (10, True)


def test_images_of_a_table_stream(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    """The same for a parquet file, of which a row group is held at a time: pages of large values are as large."""
    cells = [{"bytes": np.random.default_rng(i).bytes(BIG), "path": None} for i in range(60)]
    pq.write_table(pa.table({"image": cells, "label": ["a"] * 60}), tmp_path / "x.parquet", row_group_size=4)
    wanted = [hashlib.sha256(cell["bytes"] or b"").hexdigest() for cell in cells]
    del cells
    before = pa.total_allocated_bytes()
    found = opened(tmp_path)
    (block,) = found.blocks
    hashes, peak = [], 0
    for data in found.images(block):
        hashes.append(hashlib.sha256(data).hexdigest())
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert hashes == wanted
    assert peak < 16 * BIG
