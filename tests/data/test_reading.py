"""Labelled images from dataset folders, plain tars and folders of images."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from synthforge.data.images import encode
from synthforge.data.reading import read_labelled
from synthforge.errors import DatasetError


def image(value: int, size: int = 9) -> bytes:
    return encode(
        np.full((size, size, 3), value, dtype=np.uint8) + np.arange(size, dtype=np.uint8)[:, None, None], "png", 95, marking=False
    )


def folder_of_images(place: Path, per_class: int = 10) -> Path:
    for number, name in enumerate(["cat", "dog"]):
        (place / name).mkdir(parents=True)
        for index in range(per_class):
            (place / name / f"{index:03d}.png").write_bytes(image(10 * number + index))
    return place


def test_the_builtin_reference_and_holdout_are_split_by_position() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    parts = read_labelled("builtin:digits/reference")
    assert {name: len(part.examples) for name, part in parts.items()} == {"fit": 800, "validation": 200}
    images, labels = parts["fit"].arrays(8, 1)
    assert images.shape == (800, 1, 8, 8)
    assert np.array_equal(labels, digits.target[:800])
    assert np.array_equal(images[:, 0], np.rint(digits.images[:800] * 255 / 16).astype(np.uint8))
    assert np.array_equal(parts["validation"].arrays(8, 1)[1], digits.target[800:1000])
    holdout = read_labelled("builtin:digits/holdout")
    assert sum(len(part.examples) for part in holdout.values()) == 797


def test_folder_of_images_keeps_the_end_of_each_class_for_validation(tmp_path: Path) -> None:
    parts = read_labelled(str(folder_of_images(tmp_path)))
    assert parts["fit"].classes == ["cat", "dog"]
    assert [Path(example.name).stem for example in parts["validation"].examples] == ["008", "009", "008", "009"]
    assert len(parts["fit"].examples) == 16
    assert parts["fit"].arrays(8, 3)[0].shape == (16, 3, 8, 8)


def test_named_parts_of_a_folder(tmp_path: Path) -> None:
    folder_of_images(tmp_path / "train", 4)
    folder_of_images(tmp_path / "val", 2)
    parts = read_labelled(str(tmp_path))
    assert {name: len(part.examples) for name, part in parts.items()} == {"fit": 8, "validation": 4}
    (tmp_path / "val" / "owl").mkdir()
    (tmp_path / "val" / "owl" / "1.png").write_bytes(image(1))
    with pytest.raises(DatasetError, match="class 'owl' of the validation part has no images in the fit part"):
        read_labelled(str(tmp_path))


def plain_tar(path: Path, entries: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_plain_webdataset_tars_by_folder_pattern_and_braces(tmp_path: Path) -> None:
    for shard in range(3):
        plain_tar(
            tmp_path / f"x-{shard:02d}.tar",
            {f"{shard}{i}.{ext}": data for i in range(5) for ext, data in (("png", image(i)), ("cls", b"%d" % (i % 2)))},
        )
    wanted = 15
    for address in (str(tmp_path), str(tmp_path / "x-*.tar"), str(tmp_path / "x-{00..02}.tar"), str(tmp_path / "x-{00,01,02}.tar")):
        parts = read_labelled(address)
        assert sum(len(part.examples) for part in parts.values()) == wanted, address
        assert parts["fit"].classes == ["0", "1"]
    assert sum(len(part.examples) for part in read_labelled(str(tmp_path / "x-01.tar")).values()) == 5
    with pytest.raises(DatasetError, match=r"2 of the 5 files .* missing, the first is .*x-03.tar"):  # less real data than was named
        read_labelled(str(tmp_path / "x-{00..04}.tar"))


def test_labels_from_json_and_none_at_all(tmp_path: Path) -> None:
    plain_tar(tmp_path / "j.tar", {"a.png": image(1), "a.json": b'{"label": 3}', "b.png": image(2), "b.json": b'{"class": "dog"}'})
    assert read_labelled(str(tmp_path / "j.tar"))["fit"].classes == ["3", "dog"]
    for name, entries in {"n": {"a.png": image(1)}, "o": {"a.png": image(1), "a.json": b"[]"}}.items():
        with pytest.raises(DatasetError, match=r"1 images and no label; each needs a \.cls"):
            read_labelled(str(plain_tar(tmp_path / f"{name}.tar", entries)))
    some = plain_tar(tmp_path / "some.tar", {"a.png": image(1), "a.cls": b"0", "b.png": image(2)})
    with pytest.raises(DatasetError, match=r"some.tar:b: has no label; each needs a .cls, or a .json"):
        read_labelled(str(some))


def test_tar_members_are_data_never_paths(tmp_path: Path) -> None:
    plain_tar(tmp_path / "evil.tar", {"../../escape.png": image(1), "../../escape.cls": b"0", "/abs.png": image(2), "/abs.cls": b"1"})
    parts = read_labelled(str(tmp_path / "evil.tar"))
    assert sum(len(part.examples) for part in parts.values()) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["evil.tar"]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no dataset folder, .* there; check the path"):
        read_labelled(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"empty: .*; images need a sub-folder for each class"):
        read_labelled(str(tmp_path / "empty"))
    folder = folder_of_images(tmp_path / "bad")
    (folder / "cat" / "003.png").write_bytes(b"corrupt")
    with pytest.raises(DatasetError, match=r"003.png: not a readable image .*; remove or replace it"):
        read_labelled(str(folder))["fit"].arrays(8, 3)
    tar = plain_tar(tmp_path / "t.tar", {"a.png": image(1), "a.cls": b"0"})
    tar.write_bytes(tar.read_bytes()[:700])
    with pytest.raises(DatasetError, match="torn or not a tar"):
        read_labelled(str(tar))


def test_first_of_each_class() -> None:
    fit = read_labelled("builtin:digits/reference")["fit"]
    few = fit.first_of_each(5)
    assert len(few.examples) == 50
    assert [example.name for example in few.examples] == [example.name for example in fit.examples if example in few.examples]
    with pytest.raises(DatasetError, match="fewer than per_class"):
        fit.first_of_each(100)
