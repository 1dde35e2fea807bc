"""Sets are named by their images, wherever these lie, and are read back as they were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from synthforge.data.image_table import Table
from synthforge.errors import RequestError, WorkError
from synthforge.evaluation.sets import Images, SetReader, classes_in, digest_of_set, write_set
from tests.evaluation.sets import digits, per_class, write

CLASSES = [str(number) for number in range(10)]


def images_in(folder: Path, cache: Path) -> Images:
    return Images.of(Table.open(str(folder), cache), CLASSES, is_real=True)


def test_a_set_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    images = images_in(write(tmp_path / "one", per_class(digits(), 0, 3)), tmp_path / "cache")
    images = replace(images.take(np.arange(20)[::-1]), weight_N=np.linspace(0.5, 2, 20))
    reader = SetReader(tmp_path, tmp_path / "cache")
    again = reader.images(digest := write_set(tmp_path, [images]))
    for name, value in vars(images).items():
        assert np.array_equal(getattr(again, name), value), name
    training_set = reader.read(digest)
    assert training_set.gather(np.array([3, 3, 0])) == [reader.files(images)[row] for row in (3, 3, 0)]


def test_the_digest_is_over_what_is_trained_on_and_not_over_places(tmp_path: Path) -> None:
    one, other = (images_in(write(tmp_path / name, per_class(digits(), 0, 2)), tmp_path / "cache") for name in ("one", "other"))
    assert one.address != other.address
    digest = digest_of_set([one])
    assert digest == digest_of_set([other])
    changed = [replace(one, is_real=False), replace(one, weight_N=one.weight_N * 2), one.take(np.arange(len(one))[::-1])]
    assert digest not in {digest_of_set([images]) for images in changed}


def test_an_image_that_changed_since_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", per_class(digits(), 0, 2))
    digest = write_set(tmp_path, [images_in(folder, tmp_path / "cache")])
    first, second = sorted((folder / "0").iterdir())
    first.write_bytes(second.read_bytes())
    reader = SetReader(tmp_path, tmp_path / "cache")
    with pytest.raises(WorkError, match="has changed since the evaluation began"):
        reader.read(digest).gather(np.arange(20))


def test_sets_with_none_of_the_real_classes_are_refused(tmp_path: Path) -> None:
    table = Table.open(str(write(tmp_path / "one", per_class(digits(), 0, 1))), tmp_path / "cache")
    assert classes_in(table, "one", ["3", "x"]) == set(CLASSES)
    with pytest.raises(RequestError, match="use the same names"):
        classes_in(table, "one", ["x", "y"])
