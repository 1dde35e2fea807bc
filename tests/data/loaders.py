"""Dataset folders with side files, and what their tables say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ruamel.yaml import YAML

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode, encode
from synthforge.data.layout import Manifest, Segment, key_of
from synthforge.data.sidefiles import CARD, write_side_files
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar

leaves_files_open = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
"""webdataset, what is built on it, and mlcroissant leave closing files to the garbage collector."""


behind_the_times = pytest.mark.filterwarnings(
    "ignore:ConjunctiveGraph is deprecated:DeprecationWarning", "ignore:The inplace keyword:pandas.errors.Pandas4Warning"
)
"""mlcroissant 1.1 is, with rdflib and pandas."""


STRANGE = [
    "no",
    "3",
    "été",
    'a "quoted": name',
    "a: b",
    "yes",
    "1e3",
    "~",
    " lead",
    "| pipe",
    "日本",
    "- #dash",
    "null",
    "12:30",
    "{x}",
    "a\nb",
]


NAMES = ["кошка", "猫", "🐈", "_x", "__y", "~z", "-v", "a b", "é", "no", "001", "ordinary", "x.y", "__"]
"""Names of class folders. None begins with a dot, which hides a folder."""


@dataclass
class Pool:
    """A dataset with side files, and what its tables say: (class index, class, prompt, pixels) by key."""

    dataset: DatasetFolder
    rows: dict[str, tuple[int, str, str, np.ndarray]]

    @property
    def path(self) -> Path:
        assert self.dataset.folder.path is not None
        return self.dataset.folder.path

    @property
    def tars(self) -> list[str]:
        return sorted(str(path) for path in self.path.glob("train-*.tar"))

    def read(self, file: str) -> Any:
        return json.loads(self.dataset.folder.read(file))

    def front_matter(self) -> dict[str, Any]:
        card = self.dataset.folder.read(CARD).decode()
        found = YAML(typ="safe").load(card.split("\n---\n")[0].removeprefix("---\n"))
        assert isinstance(found, dict)
        return found


def write(dataset: DatasetFolder, **changes: Any) -> list[str]:
    completion = dataset.completion()
    assert completion is not None
    return write_side_files(dataset, completion, **{"name": "digits", "licence": "cc-by-4.0", "tags": ["digits"]} | changes)


def pool_of(dataset: DatasetFolder, **changes: Any) -> Pool:
    write(dataset, **changes)
    rows = {
        row["key"]: (
            row["class_index"],
            row["class"],
            row["prompt"],
            decode(dataset.folder.read_range(shard.tar, row["image_offset"], row["image_size"])),
        )
        for shard in dataset.state().sealed
        for row in dataset.table(shard).to_pylist()
    }
    return Pool(dataset, rows)


def built(
    place: str,
    tmp_path: Path,
    classes: list[str] | None = None,
    image_format: Any = "png",
    num_samples: int = 12,
    generator: Any = None,
    kind: Any = "pool",
    quarantined: tuple[int, ...] = (),
    left_out: tuple[int, ...] = (),
) -> DatasetFolder:
    """A dataset folder made directly: 4 samples a shard, images of 8 x 8 that differ."""
    classes = classes or ["a", "b"]
    dataset = DatasetFolder.create(
        Folder(place),
        Manifest(
            kind=kind,
            classes=classes,
            image_format=image_format,
            plan_digest="p",
            recipe={"output": {"marking": False}},
            generator=None if kind == "real" else {"class": "Any", "model": "some|model", "revision": None, "sha256": "0", "steps": 3},
            segment=Segment(first_sample=0, num_samples=num_samples, first_shard=0, samples_per_shard=4),
        ),
    )
    fill(dataset, tmp_path, generator, quarantined, left_out)
    return dataset


def fill(
    dataset: DatasetFolder, tmp_path: Path, generator: Any = None, quarantined: tuple[int, ...] = (), left_out: tuple[int, ...] = ()
) -> None:
    """Seal what is missing."""
    classes, image_format = dataset.manifest.classes, dataset.manifest.image_format

    def sample(index: int) -> EncodedSample:
        number, name = index % len(classes), classes[index % len(classes)]
        pixels = np.random.default_rng(index).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        record = {"class": name, "prompt": f"{name} {index}", "negative": None, "seed": 2**63 - 1 - index, "guidance": 1.5}
        record |= {
            "strength": None,
            "source": None,
            "attempts": [{"seed": 1, "reason": "blank"}] if index == 2 else [],
            "generator": generator,
        }
        return EncodedSample(key_of(index), encode(pixels, image_format, 100, False), image_format, number, f"{name} {index}", record)

    for shard in dataset.state().missing:
        if shard.index in quarantined:
            dataset.quarantine(shard, "chosen", 3)
        else:
            write_tar(tmp_path / "made.tar", (sample(index) for index in shard.samples if index not in left_out))
            dataset.commit(shard, tmp_path / "made.tar", lambda shard, table: None)

    def count(total: int, gone: Iterator[int]) -> dict[str, int]:
        numbers = Counter(classes[index % len(classes)] for index in set(range(total)) - set(gone))
        return {name: numbers[name] for name in classes}

    dataset.complete(None if dataset.manifest.kind == "real" else count)


def found_in(pool: Pool, found: dict[str, tuple[Any, ...]], columns: tuple[int, ...] = (0, 1, 2)) -> None:
    """`found` holds exactly the pool's samples; its last column is pixels, the others those named."""
    assert sorted(found) == sorted(pool.rows)
    for key, (*values, pixels) in found.items():
        row = pool.rows[key]
        assert values == [row[column] for column in columns]
        assert np.array_equal(np.asarray(pixels).reshape(row[3].shape), row[3])


def check_croissant(pool: Pool, croissant: Callable[[Pool], Any]) -> None:
    """mlcroissant finds no fault, and gives each sample as the tables have it."""
    dataset = croissant(pool)
    issues = dataset.metadata.ctx.issues
    assert not issues.errors
    assert [warning for warning in issues.warnings if "datePublished" not in warning] == []
    records = list(dataset.records("samples"))
    found = {
        record["samples/key"].decode(): (
            record["samples/class_index"],
            record["samples/class"].decode(),
            record["samples/prompt"].decode(),
            record["samples/image"],
        )
        for record in records
    }
    found_in(pool, found)
    for record in records:
        row, _ = pool.dataset.sample(record["samples/key"].decode())
        assert (record["samples/seed"], record["samples/guidance"]) == (row["seed"], row["guidance"])
        assert record["samples/image_sha256"].decode() == row["image_sha256"]
    assert [(r["classes/index"], r["classes/name"]) for r in dataset.records("classes")] == list(enumerate(pool.dataset.manifest.classes))
