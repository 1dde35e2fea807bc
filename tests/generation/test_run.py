"""`generate`: resuming, extending, adopting, quarantine, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode
from synthforge.errors import DatasetError, RequestError, StorageFailed
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests import children
from tests.conftest import DIGITS, child as in_background, files_of, small
from tests.data.sets import is_marked
from tests.generation.pools import make


def rows_of(dataset: DatasetFolder) -> list[dict[str, Any]]:
    wanted = ["key", "class", "class_index", "prompt", "seed", "guidance", "attempts"]
    return [row for shard in dataset.shards() for row in dataset.table(shard).select(wanted).to_pylist()]


def pixels_of(dataset: DatasetFolder) -> np.ndarray:
    rows = [(shard.tar, row) for shard in dataset.shards() for row in dataset.table(shard).to_pylist()]
    return np.stack([decode(dataset.folder.read_range(tar, row["image_offset"], row["image_size"])) for tar, row in rows])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], np.ndarray, dict[str, str]]:
    """200 samples made in one go."""
    out = tmp_path_factory.mktemp("whole")
    dataset = make(out, total=200, per_shard=100, execution__batch=64, sampling__steps=18)
    return rows_of(dataset), pixels_of(dataset), files_of(out / "pool")


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("per_shard", [10, 100])
def test_batch_and_shard_size_change_nothing_but_rounding(tmp_path: Path, whole: Any, batch: int, per_shard: int) -> None:
    dataset = make(tmp_path, total=200, per_shard=per_shard, execution__batch=batch, sampling__steps=18)
    assert rows_of(dataset) == whole[0]
    difference = np.abs(pixels_of(dataset).astype(int) - whole[1].astype(int))
    assert np.mean(difference <= 2) >= 0.999
    if (batch, per_shard) == (64, 100):
        assert files_of(tmp_path / "pool") == whole[2]


@pytest.mark.parametrize("batch", [7, 64])
def test_extended_is_made_in_one_go(tmp_path: Path, whole: Any, batch: int) -> None:
    make(tmp_path, total=130, per_shard=100, execution__batch=batch, sampling__steps=18)
    dataset = make(tmp_path, {"extend": 70}, total=130, per_shard=100, execution__batch=batch, sampling__steps=18)
    assert rows_of(dataset) == whole[0]
    assert np.mean(np.abs(pixels_of(dataset).astype(int) - whole[1].astype(int)) <= 2) >= 0.999
    completion = dataset.completion()
    assert completion is not None
    assert (completion.samples, completion.segments, completion.shard_samples) == (200, 2, [100, 30, 70])


def test_equal_batch_shape_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, total=50, per_shard=20)
    assert files_of(tmp_path / "one" / "pool") == files_of(tmp_path / "two" / "pool")


def test_running_again_does_nothing_and_a_lost_shard_is_remade_to_the_byte(tmp_path: Path) -> None:
    make(tmp_path)
    before = files_of(tmp_path / "pool")
    again = generate(load_recipe(DIGITS, small(tmp_path)))
    assert (again.made, again.is_complete, again.samples) == (0, True, 40)
    for name in ("train-000002.tar", "train-000002.parquet", "train-000002.json", "complete.json"):
        (tmp_path / "pool" / name).unlink()
    repaired = generate(load_recipe(DIGITS, small(tmp_path)))
    assert repaired.made == 10
    assert files_of(tmp_path / "pool") == before


@pytest.mark.parametrize("lost", [["json"], ["json", "parquet"]])
def test_an_unsealed_tar_is_adopted_without_making_it_again(tmp_path: Path, lost: list[str]) -> None:
    make(tmp_path)
    before = files_of(tmp_path / "pool")
    for kind in lost:
        (tmp_path / "pool" / f"train-000001.{kind}").unlink()
    (tmp_path / "pool" / "complete.json").unlink()
    result = generate(load_recipe(DIGITS, small(tmp_path)))
    assert (result.made, result.adopted) == (0, 1)
    assert files_of(tmp_path / "pool") == before


def test_an_unsealed_torn_tar_is_named_and_its_removal_mends_it(tmp_path: Path) -> None:
    make(tmp_path)
    before = files_of(tmp_path / "pool")
    tar = tmp_path / "pool" / "train-000001.tar"
    tar.write_bytes(tar.read_bytes()[:3000])
    (tmp_path / "pool" / "train-000001.json").unlink()
    with pytest.raises(DatasetError, match=r"train-000001.tar: torn.*remove this file and run again"):
        generate(load_recipe(DIGITS, small(tmp_path)))
    tar.unlink()
    generate(load_recipe(DIGITS, small(tmp_path)))
    assert files_of(tmp_path / "pool") == before


def test_a_changed_recipe_is_refused_unless_told(tmp_path: Path) -> None:
    make(tmp_path)
    changed = load_recipe(DIGITS, small(tmp_path, sampling__steps=5))
    with pytest.raises(RequestError, match=r"changed since: sampling.steps: 4 -> 5;"):
        generate(changed)
    result = generate(changed, overwrite=True)
    assert result.made == 40
    make(tmp_path / "elsewhere", sampling__steps=5)
    assert files_of(tmp_path / "pool") == files_of(tmp_path / "elsewhere" / "pool")


def test_counts_that_differ_from_the_folder(tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(RequestError, match="add the rest with --extend 20"):
        generate(load_recipe(DIGITS, small(tmp_path, total=60)))
    with pytest.raises(RequestError, match="does not shrink"):
        generate(load_recipe(DIGITS, small(tmp_path, total=20)))
    assert generate(load_recipe(DIGITS, small(tmp_path)), extend=20).samples == 60
    assert generate(load_recipe(DIGITS, small(tmp_path))).samples == 60  # the first recipe still continues it
    assert generate(load_recipe(DIGITS, small(tmp_path, total=60))).made == 0  # and so does one that asks for all of it
    with pytest.raises(RequestError, match="nothing there to extend"):
        generate(load_recipe(DIGITS, small(tmp_path / "new")), extend=20)
    assert not (tmp_path / "new").exists()  # what is refused leaves nothing


def test_extending_what_is_not_finished_is_refused(tmp_path: Path) -> None:
    make(tmp_path)
    for kind in ("tar", "parquet", "json"):
        (tmp_path / "pool" / f"train-000003.{kind}").unlink()
    (tmp_path / "pool" / "complete.json").unlink()
    with pytest.raises(RequestError, match="run without --extend first"):
        generate(load_recipe(DIGITS, small(tmp_path)), extend=20)


def test_overwrite_is_refused_while_somebody_writes(tmp_path: Path) -> None:
    make(tmp_path)
    before = files_of(tmp_path / "pool")
    other = in_background(children.hold_a_heartbeat, str(tmp_path / "pool"), str(tmp_path / "stop"))
    try:
        deadline = time.monotonic() + 60
        while not list((tmp_path / "pool" / "_log").glob("writer-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        with pytest.raises(RequestError, match="is writing there; stop it before --overwrite"):
            generate(load_recipe(DIGITS, small(tmp_path)), overwrite=True)
    finally:
        (tmp_path / "stop").touch()
        other.join()
    assert files_of(tmp_path / "pool") == before
    assert generate(load_recipe(DIGITS, small(tmp_path)), overwrite=True).made == 40


def test_quarantine_and_its_retry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthforge.errors import ShardFailed
    from synthforge.generation import engine

    original, calls = engine.Engine._make, list[int]()

    def failing(self: Any, shard: Any, *rest: Any) -> Any:
        calls.append(shard.index)
        if shard.index == 1:
            raise ShardFailed("train-000001: chosen")
        return original(self, shard, *rest)

    monkeypatch.setattr(engine.Engine, "_make", failing)
    result = generate(load_recipe(DIGITS, small(tmp_path)))
    assert calls.count(1) == 3
    assert result.quarantined == {"train-000001": "train-000001: chosen"}
    assert (result.is_complete, result.samples) == (True, 30)
    assert generate(load_recipe(DIGITS, small(tmp_path))).quarantined
    assert calls.count(1) == 3
    monkeypatch.setattr(engine.Engine, "_make", original)
    mended = generate(load_recipe(DIGITS, small(tmp_path)), retry_quarantined=True)
    assert (mended.quarantined, mended.samples) == ({}, 40)
    make(tmp_path / "undisturbed")
    assert files_of(tmp_path / "pool") == files_of(tmp_path / "undisturbed" / "pool")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_stops_the_run_and_space_continues_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this machine does not let tests mount a small file system")
    try:
        with pytest.raises(StorageFailed, match=r"disk full .*free space and run again"):
            generate(load_recipe(DIGITS, small(disk)))
        sealed = DatasetFolder.open(str(disk / "pool")).state().sealed
        assert 0 < len(sealed) < 4
        assert not list((disk / "pool").glob(".part-*"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert generate(load_recipe(DIGITS, small(disk))).is_complete
        make(tmp_path / "undisturbed")
        assert files_of(disk / "pool") == files_of(tmp_path / "undisturbed" / "pool")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("image_format", ["png", "jpg", "webp"])
@pytest.mark.parametrize("marking", ["true", "false"])
def test_formats_and_marking(tmp_path: Path, image_format: str, marking: str) -> None:
    dataset = make(tmp_path, total=10, output__format=image_format, output__marking=marking)
    _, members = dataset.sample("3")
    assert is_marked(members["image"]) is (marking == "true")
    assert decode(members["image"], 1).shape == (8, 8, 1)
    assert dataset.manifest.image_format == image_format


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")  # webdataset's open files
def test_the_shards_read_with_webdataset_as_they_are(tmp_path: Path) -> None:
    import webdataset as wds

    dataset = make(tmp_path)
    urls = [str(tmp_path / "pool" / shard.tar) for shard in dataset.shards()]
    items = list(wds.WebDataset(urls, shardshuffle=False).decode("pil").to_tuple("png", "cls", "txt", "json", "__key__"))
    assert [item[4] for item in items] == [f"{index:09d}" for index in range(40)]
    assert [item[1] for item in items] == [row["class_index"] for row in rows_of(dataset)]
    assert items[0][2].startswith("a handwritten digit")
    assert items[5][3]["seed"] == rows_of(dataset)[5]["seed"]


def test_the_log_stays_out_of_the_dataset(tmp_path: Path) -> None:
    dataset = make(tmp_path)
    logs = {path.name.split("-")[0] for path in (tmp_path / "pool" / "_log").iterdir()}
    assert logs == {"run", "recipe.json"}
    manifest = json.loads((tmp_path / "pool" / "dataset.json").read_text())
    assert str(tmp_path) not in json.dumps(manifest)  # no path of a machine travels with the data
    assert dataset.manifest.generator == manifest["generator"]
    assert manifest["generator"]["sha256"] == manifest["recipe"]["generator"]["model"]


def test_a_strange_folder_is_not_taken_over(tmp_path: Path) -> None:
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool" / "train-000000.tar").write_bytes(b"somebody's")
    with pytest.raises(RequestError, match="no dataset; use another"):
        generate(load_recipe(DIGITS, small(tmp_path)))


@pytest.mark.parametrize("options", [{"overwrite": True}, {"extend": 10}, {"retry_quarantined": True}])
def test_a_request_that_fails_changes_nothing(tmp_path: Path, options: dict[str, Any]) -> None:
    """What is wrong with the device or the model is found before anything is removed, extended or released."""
    dataset = make(tmp_path)
    if "retry_quarantined" in options:
        for kind in ("tar", "parquet", "json"):
            (tmp_path / "pool" / f"train-000002.{kind}").unlink()
        dataset.quarantine(dataset.state().missing[0], "for the test", 3)
        dataset.complete()
    before = files_of(tmp_path / "pool")
    with pytest.raises(RequestError, match="is not on this machine"):
        generate(load_recipe(DIGITS, small(tmp_path, execution__device="cuda:99")), **options)
    assert files_of(tmp_path / "pool") == before


def test_when_no_shard_can_be_made_nothing_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthforge.errors import WorkError
    from synthforge.generators.pixel.generator import PixelGenerator

    def broken(self: Any, batch: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(PixelGenerator, "sample", broken)
    with pytest.raises(WorkError, match=r"no shard could be made, 3 tries failed.*mat1 and mat2"):
        generate(load_recipe(DIGITS, small(tmp_path)))
    monkeypatch.undo()
    assert generate(load_recipe(DIGITS, small(tmp_path))).made == 40


def test_a_run_that_only_has_tars_to_seal_loads_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthforge.generation import work as shardwork

    make(tmp_path)
    (tmp_path / "pool" / "train-000001.json").unlink()
    monkeypatch.setattr(shardwork, "load_generator", None)
    assert generate(load_recipe(DIGITS, small(tmp_path))).adopted == 1


def test_an_interrupted_extension_goes_on_with_the_same_request(tmp_path: Path) -> None:
    """Also when only the last file of it was missing: asking again does not add another one."""
    make(tmp_path)
    make(tmp_path, {"extend": 15})
    before = files_of(tmp_path / "pool")
    (tmp_path / "pool" / "complete.json").unlink()
    assert generate(load_recipe(DIGITS, small(tmp_path)), extend=15).samples == 55
    assert files_of(tmp_path / "pool") == before


def test_a_bucket_that_is_not_there_is_a_wrong_request(s3: str) -> None:
    from synthforge.errors import PlaceError

    with pytest.raises(PlaceError, match="no such bucket"):
        generate(load_recipe(DIGITS, small(f"{s3}-not-there/x")))
