"""One suite over awkward inputs, in every form in which they may come: the same images, labels and number, or one clear
error. Nothing is lost in silence."""

from __future__ import annotations

import io
import json
import os
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset
from PIL import Image

from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.data.collection import Collection
from synthforge.data.images import decode, encode
from synthforge.data.opening import open_collection
from synthforge.data.read_config import ColumnsConfig, Reading
from synthforge.errors import DatasetError, RequestError
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from tests.data.loaders import NAMES, leaves_files_open

Open = Callable[..., Collection]


@pytest.fixture
def opened(tmp_path_factory: pytest.TempPathFactory) -> Open:
    """Open with one cache for the whole test."""
    cache = tmp_path_factory.mktemp("cache")
    return lambda place, **options: open_collection(str(place), cache, **options)


def picture(seed: int, size: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def png(seed: int) -> bytes:
    return encode(picture(seed), "png", 95, marking=False)


def jpg(seed: int) -> bytes:
    return encode(picture(seed), "jpg", 95, marking=False)


def in_format(seed: int, image_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, image_format, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def folder(place: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(data)
    return place


def tar(path: Path, members: Sequence[tuple[str, bytes]], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def labels(collection: Collection) -> Counter[str | None]:
    return Counter(name for block in collection.blocks for name in collection.rows(block)["class"].to_pylist())


def images(collection: Collection) -> list[bytes]:
    return [data for block in collection.blocks for data in collection.images(block)]


# Names


@leaves_files_open
def test_every_loader_reads_every_sample_of_a_folder_with_strange_names(tmp_path: Path) -> None:
    """Hugging Face `datasets` skips members whose names begin with a dot or with two underscores."""
    pool = folder(tmp_path / "pool", {f"{name}/{number}.png": png(seed) for seed, (name, number) in enumerate(_each(NAMES, 4))})
    real = folder(tmp_path / "real", {f"{name}/{number}.png": png(900 + seed) for seed, (name, number) in enumerate(_each(NAMES, 10))})
    sets = ["encoder={kind: pixels}", "metric_encoder={kind: pixels, resolution: 12}", "trials.check=false", "selection.size.per_class=4"]
    sets += ["gates.labels.on=false", "gates.manifold.on=false"]
    out = tmp_path / "out"
    result = curate(CurationRequest([str(pool)], str(real), str(out), config_from_sets(CurationConfig, sets)))
    assert result.kept == len(NAMES) * 4
    keys = _keys_by_loader(out)
    wanted = keys.pop("tar")
    assert len(wanted) == result.kept
    for loader, found in keys.items():
        assert found == wanted, loader


def _each(names: Sequence[str], num: int) -> list[tuple[str, int]]:
    return [(name, number) for name in names for number in range(num)]


def _keys_by_loader(out: Path) -> dict[str, Counter[str]]:
    tars = sorted(str(path) for path in out.glob("train-*.tar"))
    with tarfile.open(tars[0]) as file:
        names = Counter(name.partition(".")[0] for name in file.getnames() if name.endswith(".png"))
    loaded = datasets.load_dataset(str(out), split="train", streaming=True)
    return {
        "tar": names,
        "datasets": Counter(sample["__key__"] for sample in loaded),
        "webdataset": Counter(sample["__key__"] for sample in webdataset.WebDataset(tars, shardshuffle=False)),
    }


def test_two_spellings_of_one_name(tmp_path: Path, opened: Open) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    alone = folder(tmp_path / "alone", {f"{decomposed}/{number}.png": png(number) for number in range(3)})
    assert opened(alone).classes == [composed]
    both = folder(tmp_path / "both", {f"{name}/{seed}.png": png(seed) for seed, name in enumerate((composed, decomposed))})
    with pytest.raises(DatasetError, match="two spellings"):
        opened(both)


@pytest.mark.parametrize("text", ["\ufeffcat\r\ndog\r\n", "cat\ndog", "\ufeffcat\n\ndog\n"])
def test_class_names_beside_tars_in_any_utf8(tmp_path: Path, opened: Open, text: str) -> None:
    tar(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1)), ("1.cls", b"1")])
    (tmp_path / "classes.txt").write_bytes(text.encode())
    assert labels(opened(tmp_path)) == {"cat": 1, "dog": 1}


def test_class_names_in_latin_1_are_told(tmp_path: Path, opened: Open) -> None:
    tar(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"0")])
    (tmp_path / "classes.txt").write_bytes("né".encode("latin-1"))
    with pytest.raises(DatasetError, match=r"classes.txt: not UTF-8.*save it as UTF-8"):
        opened(tmp_path)


# Files


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "img", "", "data.bin"])
def test_a_format_is_told_by_content(tmp_path: Path, opened: Open, suffix: str) -> None:
    ending = f".{suffix}" if suffix else ""
    files = {f"cat/{number}{ending}": jpg(number) for number in range(3)} | {"dog/0.png": png(9)}
    assert labels(opened(folder(tmp_path / "folder", files))) == {"cat": 3, "dog": 1}
    if suffix:
        members = [member for number in range(3) for member in ((f"{number}.{suffix}", jpg(number)), (f"{number}.cls", b"cat"))]
        assert labels(opened(tar(tmp_path / "set.tar", members))) == {"cat": 3}


@pytest.mark.parametrize("image_format", ["AVIF", "JPEG2000", "PPM", "TIFF", "GIF", "BMP", "WEBP"])
def test_formats_in_folders_and_tars(tmp_path: Path, opened: Open, image_format: str) -> None:
    data = in_format(0, image_format)
    for collection in (
        opened(folder(tmp_path / "folder", {"cat/0.png": data})),
        opened(tar(tmp_path / "set.tar", [("0.png", data), ("0.cls", b"cat")])),
    ):
        assert images(collection) == [data]
        assert collection.rows(collection.blocks[0])["extension"].to_pylist() != ["png"]


def test_what_is_no_image_is_counted_and_named_and_the_numbers_add_up(tmp_path: Path, opened: Open) -> None:
    files = {f"cat/{number}.png": png(number) for number in range(4)} | {f"dog/{number}.png": png(9 + number) for number in range(2)}
    others = {"cat/notes.txt": b"a", "cat/Thumbs.db": b"b", "dog/film.mp4": b"\0\0\0\x18ftypmp42"}
    hidden = {".cache/0.png": png(0), "cat/.0.png": png(1)}
    outside = {"stray.png": png(2)}
    collection = opened(folder(tmp_path, files | others | hidden | outside))
    counts = {unused.reason: unused.num for unused in collection.unused}
    assert counts == {"not an image": 3, "hidden, with a name that begins with a dot": 2, "in no class folder": 1}
    assert collection.num_samples + sum(counts.values()) == sum(1 for path in tmp_path.rglob("*") if path.is_file())
    assert any("3 not an image (first: cat/Thumbs.db)" in problem for problem in collection.problems)


def test_the_numbers_of_a_tar_add_up(tmp_path: Path, opened: Open) -> None:
    """Each member with the name of an image is an image that is read, or is counted."""
    members = [member for number in range(4) for member in ((f"{number}.png", png(number)), (f"{number}.cls", b"cat"))]
    members += [(".hidden.png", png(9)), ("alone.cls", b"cat"), ("note.txt", b"a"), ("._0.png", b"of macOS")]
    tar(tmp_path / "set.tar", members)
    with tarfile.open(tmp_path / "set.tar", "a") as file:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "0.png"
        file.addfile(link)
    collection = opened(tmp_path)
    counts = {one.reason: one.num for one in collection.unused}
    assert counts == {
        "without an image": 2,
        "hidden, with a name that begins with a dot": 1,
        "no regular files (links, devices)": 1,
    }
    assert collection.num_samples == 4
    assert collection.report.unused == counts and collection.report.images == 4


def test_a_class_that_would_disappear_is_an_error(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path, {"cat/0.png": png(0), "dog/0.psd": b"8BPS", "dog/1.psd": b"8BPS"})
    with pytest.raises(DatasetError, match=r"class dog has files, but none that is used \(2 not an image \(first: dog/0.psd\)"):
        opened(place)


# Splits


def test_class_folders_with_the_names_of_tars_and_tables(tmp_path: Path, opened: Open) -> None:
    names = ["a.tar", "b.parquet", "c.tar.gz", "cat"]
    files = {f"{name}/{number}.png": png(seed) for seed, (name, number) in enumerate(_each(names, 2))}
    assert labels(opened(folder(tmp_path, files))) == dict.fromkeys(names, 2)


def test_a_class_called_train_is_a_class(tmp_path: Path, opened: Open) -> None:
    files = {f"{name}/{number}.png": png(seed) for seed, (name, number) in enumerate(_each(["bus", "train", "val"], 3))}
    assert labels(opened(folder(tmp_path, files))) == {"bus": 3, "train": 3, "val": 3}


def test_the_test_split_is_never_read_unless_named(tmp_path: Path, opened: Open) -> None:
    splits = {"train": 10, "test": 4}
    files = {f"{split}/{name}/{number}.png": png(hash((split, name, number)) % 10**6)
             for split, num in splits.items() for name, number in _each(["cat", "dog"], num)}  # fmt: skip
    place = folder(tmp_path / "folder", files)
    collection = opened(place)
    assert labels(collection) == {"cat": 10, "dog": 10}
    assert Counter(part for parts in collection.part().values() for part in parts.tolist()) == {"fit": 16, "validation": 4}
    assert any("test: not read, since it is kept for the final test" in problem for problem in collection.problems)
    assert labels(opened(place / "test")) == {"cat": 4, "dog": 4}


def test_tables_of_a_test_split_are_not_read_either(tmp_path: Path, opened: Open) -> None:
    for split, num in (("train", 6), ("test", 3)):
        rows = [{"image": {"bytes": png(number), "path": None}, "label": "cat"} for number in range(num)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / f"{split}-00000-of-00001.parquet")
    collection = opened(tmp_path)
    assert collection.num_samples == 6
    assert any("split 'test' is not read" in problem for problem in collection.problems)


def test_a_rare_class_may_be_missing_in_the_validation_split(tmp_path: Path, opened: Open) -> None:
    files = {"train/cat/0.png": png(0), "train/rare/0.png": png(1), "val/cat/0.png": png(2)}
    assert labels(opened(folder(tmp_path, files))) == {"cat": 2, "rare": 1}


def test_doubt_about_splits_is_an_error_that_names_the_setting(tmp_path: Path, opened: Open) -> None:
    files = {"train/cat/0.png": png(0), "val/cat/0.png": png(1), "extra/cat/0.png": png(2)}
    place = folder(tmp_path, files)
    with pytest.raises(DatasetError, match=r"--set columns.splits=true or false"):
        opened(place)
    assert labels(opened(place, reading=Reading(ColumnsConfig(splits=False)))) == {"train": 1, "val": 1, "extra": 1}
    assert labels(opened(place, reading=Reading(ColumnsConfig(splits=True)))) == {"cat": 2}


# Columns


def _several(place: Path, form: str, names: Sequence[str]) -> Path:
    """Two samples with several pictures each; the first name has the true image."""
    if form == "tar":
        return tar(
            place / "set.tar",
            [
                member
                for number in range(2)
                for member in [
                    *((f"{number}.{name}", png(10 * number + index)) for index, name in enumerate(names)),
                    (f"{number}.cls", b"cat"),
                ]
            ],
        )
    place.mkdir(parents=True, exist_ok=True)
    rows = [{name: {"bytes": png(10 * number + index), "path": None} for index, name in enumerate(names)} for number in range(2)]
    pq.write_table(pa.Table.from_pylist([{**row, "label": "cat"} for row in rows]), place / "set.parquet")
    return place / "set.parquet"


@pytest.mark.parametrize("form", ["tar", "table"])
def test_two_pictures_of_a_sample(tmp_path: Path, opened: Open, form: str) -> None:
    names = ["jpg", "png"] if form == "tar" else ["photo", "image"]
    place = _several(tmp_path / "doubt", form, names)
    with pytest.raises(DatasetError, match=rf"{names[0]} and {names[1]} could all be the image; say which with --set columns.image="):
        opened(place)
    for index, name in enumerate(names):
        assert images(opened(place, reading=Reading(ColumnsConfig(image=name)))) == [png(index), png(10 + index)]


@pytest.mark.parametrize("form", ["tar", "table"])
@pytest.mark.parametrize("other", ["seg.png", "mask.png", "depth.png"])
def test_a_mask_is_not_the_image(tmp_path: Path, opened: Open, form: str, other: str) -> None:
    name = "png" if form == "tar" else "image"
    beside = other if form == "tar" else other.replace(".png", "_map")
    assert images(opened(_several(tmp_path, form, [name, beside]))) == [png(0), png(10)]


def test_a_link_in_place_of_an_image_or_of_a_mask(tmp_path: Path, opened: Open) -> None:
    members = [("0.png", png(0)), ("0.cls", b"cat"), ("1.mask.png", png(1)), ("1.cls", b"cat")]
    tar(tmp_path / "set.tar", members)
    with tarfile.open(tmp_path / "set.tar", "a") as file:
        for name in ("0.mask.png", "1.png"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "0.png"
            file.addfile(link)
    collection = opened(tmp_path)
    assert images(collection) == [png(0)]
    assert [(one.num, one.first) for one in collection.unused] == [(2, "0.mask.png")]


def test_coarse_and_fine_labels(tmp_path: Path, opened: Open) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "coarse": datasets.ClassLabel(names=["pet"]), "fine": datasets.ClassLabel(names=["cat", "dog"])}
    )
    columns = {"image": [{"bytes": png(number), "path": None} for number in range(4)], "coarse": [0] * 4, "fine": [0, 1, 0, 1]}
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(tmp_path / "set")
    with pytest.raises(DatasetError, match=r"coarse and fine could all be the label; say which with --set columns.label="):
        opened(tmp_path / "set")
    assert labels(opened(tmp_path / "set", reading=Reading(ColumnsConfig(label="fine")))) == {"cat": 2, "dog": 2}
    assert labels(opened(tmp_path / "set", reading=Reading(ColumnsConfig(label="coarse")))) == {"pet": 4}


# Tars and tables of other makers


@pytest.mark.parametrize(("suffix", "mode"), [("tar.gz", "w:gz"), ("tgz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")])
def test_compressed_tars(tmp_path: Path, opened: Open, suffix: str, mode: str) -> None:
    members = [member for number in range(5) for member in ((f"{number}.png", png(number)), (f"{number}.cls", b"cat"))]
    collection = opened(tar(tmp_path / f"set.{suffix}", members, mode).parent)
    assert images(collection) == [png(number) for number in range(5)]
    assert sorted(name for block in collection.blocks for name in collection.rows(block)["key"].to_pylist())[0] == "set~0"


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_members_of_a_sample_that_lie_apart(tmp_path: Path, opened: Open, mode: str) -> None:
    pictures = [(f"{number}.png", png(number)) for number in range(5)]
    texts = [(f"{number}.cls", b"cat" if number % 2 else b"dog") for number in range(5)]
    collection = opened(tar(tmp_path / "set.tar", [*pictures, *texts], mode))
    assert labels(collection) == {"dog": 3, "cat": 2}
    assert images(collection) == [png(number) for number in range(5)]


def test_too_much_that_lies_apart_is_refused(tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synthforge.data.foreign.MAX_HELD_BYTES", 1000)
    members = [*((f"{number}.png", png(number)) for number in range(5)), *((f"{number}.cls", b"0") for number in range(5))]
    with pytest.raises(DatasetError, match=r"too far apart.*as neighbours"):
        opened(tar(tmp_path / "set.tar", members))


def test_keys_with_dots_are_told(tmp_path: Path, opened: Open) -> None:
    members = [member for number in range(3) for member in ((f"a.{number}.png", png(number)), (f"a.{number}.cls", b"cat"))]
    with pytest.raises(DatasetError, match=r"set.tar.*'a'.*first dot"):
        opened(tar(tmp_path / "set.tar", members))


@pytest.mark.parametrize("how", ["bytes", "paths", "struct with paths"])
def test_tables_with_bare_bytes_or_paths(tmp_path: Path, opened: Open, how: str) -> None:
    folder(tmp_path, {f"pictures/{number}.png": png(number) for number in range(3)})
    cells = {
        "bytes": [png(number) for number in range(3)],
        "paths": [f"pictures/{number}.png" for number in range(3)],
        "struct with paths": [{"bytes": None, "path": f"pictures/{number}.png"} for number in range(3)],
    }
    table = pa.table({"picture": cells[how], "label": pa.array([0.0, 1.0, 1.0])})
    pq.write_table(table, tmp_path / "set.parquet")
    collection = opened(tmp_path / "set.parquet")
    assert images(collection) == [png(number) for number in range(3)]
    assert labels(collection) == {"0": 1, "1": 2}


def test_a_file_that_a_table_names_is_read_again_when_it_changes(tmp_path: Path, opened: Open) -> None:
    folder(tmp_path, {"0.png": png(0)})
    pq.write_table(pa.table({"picture": ["0.png", "no\0name.png", f"{'x' * 300}.png"], "label": ["a"] * 3}), tmp_path / "set.parquet")
    before = opened(tmp_path / "set.parquet")
    assert images(before) == [png(0)]
    (tmp_path / "0.png").write_bytes(png(1) + b"longer")
    with pytest.raises(DatasetError, match="has changed meanwhile"):
        images(before)
    assert images(opened(tmp_path / "set.parquet")) == [png(1) + b"longer"]


def test_a_path_in_a_table_does_not_leave_its_folder(tmp_path: Path, opened: Open) -> None:
    folder(tmp_path, {"secret.png": png(0), "set/inside.png": png(1)})
    rows = {"picture": ["inside.png", "../secret.png", str(tmp_path / "secret.png")], "label": ["a", "a", "a"]}
    pq.write_table(pa.table(rows), tmp_path / "set" / "set.parquet")
    collection = opened(tmp_path / "set" / "set.parquet")
    assert images(collection) == [png(1)]
    assert [(unused.reason, unused.num) for unused in collection.unused] == [("without an image", 2)]


def test_whole_numbers_as_floats_are_labels(tmp_path: Path, opened: Open) -> None:
    record = json.dumps({"label": 1.0}).encode()
    assert labels(opened(tar(tmp_path / "set.tar", [("0.png", png(0)), ("0.json", record)]))) == {"1": 1}


# Layouts that can be misread


@pytest.mark.parametrize("names", [("Train", "Validation", "Test"), ("TRAIN", "VAL", "TEST"), ("train-set", "val_data", "test images")])
def test_names_of_splits_in_any_case_and_with_a_word_behind(tmp_path: Path, opened: Open, names: Sequence[str]) -> None:
    place = folder(tmp_path, {f"{split}/cat/{number}.png": png(seed) for seed, (split, number) in enumerate(_each(names, 2))})
    collection = opened(place)
    assert labels(collection) == {"cat": 4}
    assert any(f"{names[2]}: not read, since it is kept for the final test" in problem for problem in collection.problems)


def test_splits_are_said_to_be_there_and_are_not(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path, {"cat/0.png": png(0)})
    with pytest.raises(DatasetError, match="no folder has the name of a split"):
        opened(place, reading=Reading(ColumnsConfig(splits=True)))


@pytest.mark.parametrize("stem", ["{}-0", "imagenet-{}-000", "{}_00"])
def test_tars_that_are_splits_by_their_names(tmp_path: Path, opened: Open, stem: str) -> None:
    for seed, split in enumerate(("train", "val", "test")):
        tar(tmp_path / f"{stem.format(split)}.tar", [("0.png", png(seed)), ("0.cls", b"cat")])
    collection = opened(tmp_path)
    assert sorted(part for parts in collection.part().values() for part in parts.tolist()) == ["fit", "validation"]
    assert any("split 'test' is not read, since it is kept for the final test" in problem for problem in collection.problems)
    assert opened(tmp_path, reading=Reading(ColumnsConfig(splits=False))).num_samples == 3
    assert opened(tmp_path / f"{stem.format('test')}.tar").num_samples == 1


def test_a_tar_that_may_be_the_final_test(tmp_path: Path, opened: Open) -> None:
    for seed, name in enumerate(("shard-0", "shard-1", "test-0")):
        tar(tmp_path / f"{name}.tar", [("0.png", png(seed)), ("0.cls", b"cat")])
    with pytest.raises(DatasetError, match=r"test-0\.tar would be the final test.*columns\.splits=false"):
        opened(tmp_path)


def test_splits_inside_of_classes(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path, {f"{name}/{split}/0.png": png(0) for name in ("cat", "dog") for split in ("train", "test")})
    with pytest.raises(DatasetError, match=r"cat: holds test, train.*as in test/cat"):
        opened(place)


def test_broken_links_and_pipes_are_counted(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path / "set", {"cat/0.png": png(0), "fox/0.png": png(1)})
    (place / "cat" / "1.png").symlink_to(tmp_path / "gone.png")
    os.mkfifo(place / "cat" / "2.png")
    (place / "eel").symlink_to(tmp_path / "gone")
    (place / "loop").symlink_to(place / "loop")
    collection = opened(place)
    assert {one.reason: one.num for one in collection.unused} == {"no regular files, such as broken links": 2, "broken links": 2}
    (place / "fox" / "0.png").unlink()
    (place / "fox" / "0.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DatasetError, match=r"class fox has files, but none that is used"):
        opened(place)


def test_an_empty_class_folder_is_told(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path, {"cat/0.png": png(0)})
    (place / "empty").mkdir()
    assert any("folder empty has no files" in problem for problem in opened(place).problems)


@pytest.mark.parametrize("form", ["tar", "table"])
def test_class_folders_beside_a_tar_or_a_table_are_told(tmp_path: Path, opened: Open, form: str) -> None:
    folder(tmp_path, {"cat/0.png": png(0), "dog/0.png": png(1)})
    if form == "tar":
        tar(tmp_path / "extra.tar", [("0.png", png(2)), ("0.cls", b"cat")])
    else:
        pq.write_table(pa.table({"image": [{"bytes": png(2), "path": None}], "label": ["cat"]}), tmp_path / "extra.parquet")
    assert any("not the images in its folders cat, dog" in loss for loss in opened(tmp_path).losses)


def test_files_of_img2dataset_are_refused(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path, {"00000/000000000.jpg": jpg(0), "00000/000000000.json": b'{"label": "cat"}', "00000_stats.json": b"{}"})
    with pytest.raises(DatasetError, match=r"00000_stats\.json says that img2dataset wrote this.*--output_format webdataset"):
        opened(place)


def test_one_class_folder_around_all_others_is_told(tmp_path: Path, opened: Open) -> None:
    place = folder(tmp_path, {f"photos/{name}/0.png": png(seed) for seed, name in enumerate(("cat", "dog"))})
    assert any("has the one class 'photos', whose folders are cat, dog" in problem for problem in opened(place).problems)


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_joined_tars(tmp_path: Path, opened: Open, mode: str) -> None:
    parts = [tar(tmp_path / f"{seed}.part", [("0.png", png(seed)), ("0.cls", b"cat")], mode).read_bytes() for seed in range(2)]
    path = tmp_path / ("set.tar" if mode == "w" else "set.tar.gz")
    path.write_bytes(b"".join(parts))
    collection = opened(path)
    assert images(collection) == [png(0)]
    assert any("as if tars had been joined by cat" in loss for loss in collection.losses)


@pytest.mark.parametrize(
    ("text", "label"),
    [("\ufeffcat", "cat"), (" cat\n", "cat"), ("0\n1\n", None), ("caf\u00e9", "caf\u00e9"), ("-1", None)],
)
def test_labels_in_cls(tmp_path: Path, opened: Open, text: str, label: str | None) -> None:
    members = [("0.png", png(0)), ("0.cls", text.encode()), ("1.png", png(1)), ("1.cls", b"dog")]
    assert labels(opened(tar(tmp_path / "set.tar", members))) == Counter([label, "dog"])


def test_a_label_in_latin_1_is_none(tmp_path: Path, opened: Open) -> None:
    members = [("0.png", png(0)), ("0.cls", "café".encode("latin-1")), ("1.png", png(1)), ("1.cls", b"dog")]
    assert labels(opened(tar(tmp_path / "set.tar", members))) == {None: 1, "dog": 1}


def test_minus_one_in_a_table_is_no_label(tmp_path: Path, opened: Open) -> None:
    cells = [{"bytes": png(number), "path": None} for number in range(2)]
    pq.write_table(pa.table({"image": cells, "label": [-1, 3]}), tmp_path / "set.parquet")
    assert labels(opened(tmp_path)) == {None: 1, "3": 1}


def test_a_class_that_is_named_twice(tmp_path: Path, opened: Open) -> None:
    tar(tmp_path / "a.tar", [("0.png", png(0)), ("0.cls", b"0"), ("1.png", png(1)), ("1.cls", b"1")])
    (tmp_path / "classes.txt").write_text("cat\ncat\n")
    with pytest.raises(DatasetError, match="class 'cat' is named twice"):
        opened(tmp_path)


@pytest.mark.parametrize("pixels", [np.full((8, 8), 0.5, np.float32), np.full((8, 8), 200, np.int32)])
def test_pixels_of_32_bits_are_refused(pixels: np.ndarray) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    with pytest.raises(DatasetError, match="32 bits, whose range is not known"):
        decode(buffer.getvalue())


def test_unusable_images_are_named(tmp_path: Path) -> None:
    files = {f"{name}/{number}.png": png(seed) for seed, (name, number) in enumerate(_each(["cat", "dog"], 10))}
    real = folder(tmp_path / "real", files)
    pool = folder(tmp_path / "pool", {name: png(100 + seed) for seed, name in enumerate(files)} | {"cat/broken.png": b"<html>"})
    sets = ["encoder={kind: pixels}", "metric_encoder={kind: pixels, resolution: 12}", "trials.check=false", "gates.manifold.on=false"]
    config = config_from_sets(CurationConfig, [*sets, "gates.labels.on=false"])
    result = curate(CurationRequest([str(pool)], str(real), str(tmp_path / "out"), config))
    assert any("the first is " in note and "broken.png" in note for note in result.notes)
    (pool / "cat" / "w.webp").write_bytes(in_format(0, "WEBP"))
    with pytest.raises(RequestError, match=r"21 png \(first: .*\) and 1 webp \(first: .*w\.webp\); a curated set has one format"):
        curate(CurationRequest([str(pool)], str(real), str(tmp_path / "out2"), config))
    (pool / "cat" / "w.webp").unlink()
    for name in ("cat/3.png", "dog/7.png"):
        (real / name).write_bytes(b"<html>")
    with pytest.raises(DatasetError, match=r"cat/3\.png.*dog/7\.png.*remove or replace them"):
        curate(CurationRequest([str(pool)], str(real), str(tmp_path / "out3"), config))
