"""Side files, proven by the libraries that they are for: each loads a pool and finds the keys, labels, names and pixels
of the tables."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthforge.data.audit import verify
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import SIDE_FILES, key_of
from synthforge.data.sidefiles import CARD, CROISSANT, OPEN_CLIP, TIMM, feature_of
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, ROOT, files_of, small
from tests.data.loaders import (
    STRANGE,
    Pool,
    behind_the_times,
    built,
    check_croissant,
    fill,
    found_in,
    leaves_files_open,
    pool_of,
    write,
)

TRICKY = {
    "none": None,
    "flag": True,
    "nothing": [],
    "mixed": [1, 2.5],
    "whole": [1, 2],
    "nested": {"deep": {"flags": [True, False], "records": [{"a": 1}, {"a": None, "b": 0.1}]}},
    "precise": 0.7529470324516296,
    "large": 2**62,
    "huge": 2**70,
    "lists": [[1], [2.5, None], []],
    "text": "a: 'b'\n---\nc",
}


# The files themselves


def test_equal_pools_have_equal_files_and_what_is_right_is_left_alone(pool: Pool, tmp_path: Path) -> None:
    generate(load_recipe(DIGITS, small(tmp_path, total=50, per_shard=10)))
    twin = DatasetFolder.open(str(tmp_path / "pool"))
    write(twin)
    assert {file: twin.folder.read(file) for file in SIDE_FILES} == {file: pool.dataset.folder.read(file) for file in SIDE_FILES}
    assert not any(str(pool.path.parent).encode() in pool.dataset.folder.read(file) for file in SIDE_FILES)
    before = {file: (twin.folder.path / file).stat() for file in SIDE_FILES}  # type: ignore[operator]
    assert write(twin) == []
    assert {file: (twin.folder.path / file).stat() for file in SIDE_FILES} == before  # type: ignore[operator]
    assert verify(twin).problems == []


def test_only_what_changes_is_written(tmp_path: Path) -> None:
    dataset = built(str(tmp_path / "d"), tmp_path)
    assert write(dataset) == list(SIDE_FILES)
    assert write(dataset, licence=None) == [CARD, CROISSANT]
    assert write(dataset, licence=None) == []
    (tmp_path / "d" / TIMM).write_bytes(b"\xff not ours")
    (tmp_path / "d" / OPEN_CLIP).unlink()
    assert write(dataset, licence=None) == [TIMM, OPEN_CLIP]
    assert b"license" not in dataset.folder.read(CARD)
    assert "license" not in json.loads(dataset.folder.read(CROISSANT))


def test_what_the_card_says(pool: Pool, tmp_path: Path) -> None:
    front = pool.front_matter()
    assert (front["license"], front["pretty_name"], front["size_categories"]) == ("cc-by-4.0", "digits", ["n<1K"])
    assert front["tags"] == ["digits", "synthetic", "synthforge", "webdataset"]
    assert front["task_categories"] == ["image-classification"]
    card = pool.dataset.folder.read(CARD).decode()
    for part in ("These images are synthetic", "trainedAlgorithmicMedia", "| 7 | 7 | 5 |", "builtin:digits/generator", "| steps | 4 |"):
        assert part in card
    assert "FOLDER/train-{000000..000004}.tar" in card
    other = pool_of(built(str(tmp_path / "many"), tmp_path, classes=[f"class {number}" for number in range(60)]))
    card = other.dataset.folder.read(CARD).decode()
    assert "60 classes, with 0 to 1 samples each" in card
    assert "some\\|model" in card
    assert "trainedAlgorithmicMedia" not in card  # its recipe says that nothing is marked
    real = pool_of(built(str(tmp_path / "real"), tmp_path, kind="real"))
    card = real.dataset.folder.read(CARD).decode()
    assert "synthetic" not in card
    assert "| 1 | b |\n" in card  # nobody counted its classes


@pytest.mark.parametrize(
    ("samples", "category"),
    [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (10**6, "1M<n<10M"), (10**9, "100M<n<1B")],
)
def test_size_categories(samples: int, category: str) -> None:
    from synthforge.data.sidefiles import _size_category

    assert _size_category(samples) == category


def test_nothing_sealed_nothing_written(tmp_path: Path) -> None:
    dataset = built(str(tmp_path / "d"), tmp_path, quarantined=(0, 1, 2))
    assert write(dataset) == []
    assert not any(dataset.folder.exists(file) for file in SIDE_FILES)


def test_extension_renews_them(tmp_path: Path) -> None:
    pool = pool_of(built(str(tmp_path / "d"), tmp_path))
    assert pool.read(CROISSANT)["version"].startswith("1.0.0+")
    pool.dataset.extend(6, 4)
    fill(pool.dataset, tmp_path)
    assert write(pool.dataset) == list(SIDE_FILES)
    assert pool.read(OPEN_CLIP) == {f"train-{number:06d}.tar": size for number, size in enumerate([4, 4, 4, 4, 2])}
    assert pool.read(TIMM)["splits"]["train"]["num_samples"] == 18
    assert "| 1 | b | 9 |" in pool.dataset.folder.read(CARD).decode()
    assert pool.read(CROISSANT)["version"].startswith("1.1.0+")


def test_on_s3_they_are_the_same(s3: str, tmp_path: Path) -> None:
    local, remote = built(str(tmp_path / "d"), tmp_path), built(f"{s3}/pool", tmp_path)
    assert write(local) == write(remote) == list(SIDE_FILES)
    assert write(remote) == []
    assert {file: remote.folder.read(file) for file in SIDE_FILES} == {file: local.folder.read(file) for file in SIDE_FILES}


# webdataset


@leaves_files_open
def test_webdataset_reads_every_key(curated: Pool, collected: None) -> None:
    import webdataset as wds

    dataset = wds.WebDataset(curated.tars, shardshuffle=False).decode("pil")
    found_in(curated, {s["__key__"]: (s["cls"], s["json"]["class"], s["txt"], s["png"]) for s in dataset})


@leaves_files_open
def test_webdataset_reads_what_the_card_shows(tmp_path: Path, collected: None) -> None:
    """Also where shards are missing: the numbers that are there are joined."""
    import webdataset as wds

    pool = pool_of(built(str(tmp_path / "d"), tmp_path, num_samples=20, quarantined=(1,)))
    shards = re.search(r'shards = "(.*)"', pool.dataset.folder.read(CARD).decode())
    assert shards is not None
    assert shards[1] == "FOLDER/train-000000.tar::FOLDER/train-{000002..000004}.tar"
    dataset = wds.WebDataset(shards[1].replace("FOLDER", str(pool.path)), shardshuffle=False).decode("pil")
    found_in(pool, {s["__key__"]: (s["cls"], s["json"]["class"], s["txt"], s["png"]) for s in dataset})
    assert len(pool.rows) == 16


# timm


@leaves_files_open
@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
def test_timm_reads_the_folder(any_pool: Pool, tmp_path: Path, image_format: str, collected: None) -> None:
    from timm.data import create_dataset

    pool = any_pool
    if image_format != "png":
        pool = pool_of(built(str(tmp_path / "d"), tmp_path, image_format=image_format, quarantined=(1,), left_out=(9, 10)))
    channels = next(iter(pool.rows.values()))[3].shape[2]
    dataset = create_dataset("wds/x", root=str(pool.path), split="train", input_img_mode="L" if channels == 1 else "RGB")
    assert len(dataset) == len(pool.rows)
    for (image, label), (index, _, _, pixels) in zip(dataset, pool.rows.values(), strict=True):
        assert label == index
        assert np.array_equal(np.asarray(image).reshape(pixels.shape), pixels)


# Hugging Face


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """`load_dataset` of a pool's folder, with a cache of this test's own."""
    from datasets import load_dataset

    def loaded(pool: Pool, streaming: bool) -> Any:
        return load_dataset(str(pool.path), split="train", streaming=streaming, cache_dir=str(tmp_path / "cache"))

    return loaded


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_loads_the_folder(any_pool: Pool, load: Callable[..., Any], streaming: bool) -> None:
    pool, dataset = any_pool, load(any_pool, streaming)
    label = dataset.features["cls"]
    assert label.names == pool.dataset.manifest.classes
    found_in(pool, {s["__key__"]: (s["cls"], label.int2str(s["cls"]), s["txt"], s["png"]) for s in dataset})
    for sample in dataset:
        _, members = pool.dataset.sample(sample["__key__"])
        told = {key: value for key, value in sample["json"].items() if value is not None}
        record = {key: value for key, value in json.loads(members["json"]).items() if value is not None}
        assert told == record
        assert isinstance(sample["png"], Image.Image)


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("streaming", [False, True])
def test_strange_names_and_records_survive_datasets(tmp_path: Path, load: Callable[..., Any], streaming: bool, image_format: str) -> None:
    unfit = {"odd": [1, "a"], "empty": {}, "empties": [{}]}
    pool = pool_of(
        built(
            str(tmp_path / "d"),
            tmp_path,
            classes=STRANGE,
            num_samples=20,
            image_format=image_format,
            generator=TRICKY | unfit,
            left_out=(5,),
            quarantined=(2,),
        ),
        name=STRANGE[3],
        licence="no",
        tags=STRANGE,
    )
    (pool.path / "train-000002.failures.parquet").write_bytes((pool.path / "train-000000.parquet").read_bytes())
    dataset = load(pool, streaming)
    assert dataset.features["cls"].names == STRANGE
    found_in(pool, {s["__key__"]: (s["cls"], s["json"]["class"], s["txt"], s[image_format]) for s in dataset})
    told = {sample["__key__"]: sample["json"] for sample in dataset}
    assert told[key_of(0)]["seed"] == 2**63 - 1
    assert told[key_of(2)]["attempts"] == [{"seed": 1, "reason": "blank"}]
    # One list of records holds one set of keys; what Arrow can't hold is left out, whole numbers beyond 64 bits are
    # rounded.
    records = [{"a": 1, "b": None}, {"a": None, "b": 0.1}]
    whole = TRICKY | {"nested": {"deep": {"flags": [True, False], "records": records}}, "huge": float(2**70)}
    assert all(record["generator"] == whole for record in told.values())
    front = pool.front_matter()
    assert (front["pretty_name"], front["license"]) == (STRANGE[3], "no")
    assert front["tags"] == sorted({*STRANGE, "synthetic", "synthforge", "webdataset"})


def test_features_are_those_that_datasets_writes() -> None:
    from datasets import Features, List, Value

    features = Features(
        {
            "flag": Value("bool"),
            "lists": List(List(Value("float64"))),
            "nested": {"records": List({"a": Value("int64"), "b": Value("string")}), "words": List(Value("string"))},
        }
    )
    value = {"flag": True, "lists": [[1], [0.5]], "nested": {"records": [{"a": 1, "b": None}], "words": []}}
    assert feature_of([value]) == {"struct": features._to_yaml_list()}
    assert feature_of([[1, "a"]]) is feature_of([{}]) is feature_of([True, 1]) is None


# open_clip


@leaves_files_open
@pytest.mark.parametrize("is_whole", [True, False])
def test_open_clip_counts_and_reads(
    any_pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_whole: bool, collected: None
) -> None:
    import open_clip_train.data as training_data
    import torch
    from open_clip_train.distributed import init_distributed_device
    from open_clip_train.params import parse_args

    # open_clip 3.3 was written for webdataset up to 0.2.86: https://github.com/mlfoundations/open_clip/issues/935
    monkeypatch.setattr(training_data, "tar_file_expander", functools.partial(training_data.tar_file_expander, eof_value=None))
    pool = any_pool if is_whole else pool_of(built(str(tmp_path / "d"), tmp_path, num_samples=15, left_out=(5, 6, 7)))
    shards = f"{pool.path}/train-{{000000..{len(pool.tars) - 1:06d}}}.tar"
    options = "--dataset-type webdataset --batch-size 2 --workers 0 --device cpu --precision fp32"
    args = parse_args([*options.split(), "--train-data", shards])
    init_distributed_device(args)
    preprocess = lambda image: torch.from_numpy(np.array(image))  # noqa: E731
    data = training_data.get_data(args, (preprocess, preprocess), tokenizer=lambda text: [text])["train"]
    assert data.dataloader.num_samples == len(pool.rows)
    found = [(text, image.numpy().tobytes()) for images, texts in data.dataloader for image, text in zip(images, texts, strict=True)]
    assert sorted(found) == sorted(
        (text, np.broadcast_to(pixels, (*pixels.shape[:2], 3)).tobytes()) for _, _, text, pixels in pool.rows.values()
    )


# Ray


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.use_.* is deprecated:DeprecationWarning")  # Ray speaks of its own defaults
def test_ray_reads_the_shards(any_pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    import ray

    ray.init(num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        dataset = ray.data.read_webdataset(any_pool.tars)
        found_in(any_pool, {s["__key__"]: (s["cls"], s["json"]["class"], s["txt"], s["png"]) for s in dataset.take_all()})
    finally:
        ray.shutdown()


# The guide


GUIDE = re.findall(r"^## (.+?)$(.*?)(?=^## |\Z)", (ROOT / "docs" / "loaders.md").read_text(), re.MULTILINE | re.DOTALL)


EXAMPLES = [(title, code) for title, text in GUIDE for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL)]


SLOW_TO_IMPORT = {"timm", "open_clip", "Ray Data"}


PRINTED = {
    "webdataset": r"torch.Size\(\[10, 3, 8, 8\]\)",
    "timm": r"(?m)^3 \d\.\d+$",
    "Hugging Face datasets": "000000002 2 a handwritten digit 2 \\d+ \\(8, 8\\)",
    "open_clip": r"Train Epoch: 0 \[50/50 \(100%\)\]",
    "Croissant": r"(?m)^0000000\d\d \d \(8, 8\)$",
    "Ray Data": r"000000002 2 a handwritten digit 2 \(8, 8\)",
}


@pytest.mark.parametrize(
    ("title", "code"),
    [pytest.param(*example, id=example[0], marks=[pytest.mark.slow] * (example[0] in SLOW_TO_IMPORT)) for example in EXAMPLES],
)
def test_the_guides_examples_run(pool: Pool, tmp_path: Path, title: str, code: str) -> None:
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / "pool").symlink_to(pool.path)
    own = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    (tmp_path / "example.py").write_text(code)
    ran = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, env=os.environ | own, capture_output=True, text=True, timeout=240, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert re.search(PRINTED[title], ran.stdout + ran.stderr), ran.stdout + ran.stderr


def test_the_guide_has_an_example_for_each_library() -> None:
    assert [title for title, _ in EXAMPLES] == list(PRINTED)


# All of them


@pytest.mark.slow
@behind_the_times
@leaves_files_open
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_every_loader_reads_what_three_workers_made_of_which_one_was_killed(
    tmp_path: Path, load: Callable[..., Any], croissant: Callable[[Pool], Any], monkeypatch: pytest.MonkeyPatch, collected: None
) -> None:
    """A tiny Stable Diffusion: the folder that an undisturbed process leaves, and everybody's reader on it."""
    import webdataset as wds

    from tests import tiny_models
    from tests.test_workers import kill_one_worker_after_a_shard, write_recipe

    recipe = write_recipe(tmp_path, tiny_models.save("sd", tmp_path))
    killed = list[int]()
    killer = threading.Thread(target=kill_one_worker_after_a_shard, args=(tmp_path / "run" / "pool", killed))
    killer.start()
    generate(load_recipe(recipe, [f"output.path={tmp_path / 'run'}", "execution.workers=3"]))
    killer.join()
    generate(load_recipe(recipe, [f"output.path={tmp_path / 'alone'}"]))
    assert killed
    assert files_of(tmp_path / "run" / "pool") == files_of(tmp_path / "alone" / "pool")
    pool = pool_of(DatasetFolder.open(str(tmp_path / "run" / "pool")))
    assert len(pool.rows) == 48
    dataset = wds.WebDataset(pool.tars, shardshuffle=False).decode("pil")
    found_in(pool, {s["__key__"]: (s["cls"], s["json"]["class"], s["txt"], s["png"]) for s in dataset})
    test_timm_reads_the_folder(pool, tmp_path, "png", collected)
    test_datasets_loads_the_folder(pool, load, streaming=False)
    test_datasets_loads_the_folder(pool, load, streaming=True)
    test_open_clip_counts_and_reads(pool, tmp_path, monkeypatch, is_whole=True, collected=collected)
    check_croissant(pool, croissant)
