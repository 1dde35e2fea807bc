"""fit.json says which images a model has seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from synthforge.data.layout import digest_of
from synthforge.data.reading import Labelled, read_labelled
from synthforge.generators.pixel.fit_report import REPORT, digest_of_images, was_fitted_on


def some() -> Labelled:
    return read_labelled("builtin:digits/reference")["fit"].first_of_each(3)


def write(folder: Path, labelled: Labelled) -> None:
    digest = digest_of([digest_of_images(*labelled.arrays(8, 1))])
    (folder / REPORT).write_text(json.dumps({"resolution": 8, "channels": 1, "classes": labelled.classes, "data_digest": digest}))


def test_a_model_was_fitted_on_its_images_and_on_no_others(tmp_path: Path) -> None:
    labelled = some()
    write(tmp_path, labelled)
    assert was_fitted_on(tmp_path, [labelled])
    assert not was_fitted_on(tmp_path, [Labelled(labelled.classes, labelled.examples[1:])])
    assert not was_fitted_on(tmp_path, [labelled, labelled])


def test_a_model_without_a_report_or_with_a_torn_one_proves_nothing(tmp_path: Path) -> None:
    assert not was_fitted_on(tmp_path, [some()])
    (tmp_path / REPORT).write_text("{")
    assert not was_fitted_on(tmp_path, [some()])


def test_labels_count_in_the_digest() -> None:
    images, labels = some().arrays(8, 1)
    assert digest_of_images(images, labels) == digest_of_images(images.copy(), labels.copy())
    assert digest_of_images(images, labels) != digest_of_images(images, np.roll(labels, 1))
