"""The holdout is opened late, and no arm holds an image of it."""

from __future__ import annotations

import inspect
import io
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from synthforge.data.storage import resolve
from synthforge.errors import DatasetError
from synthforge.evaluation.holdout import check_holdout
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.run import evaluate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, Ran
from tests.evaluation.sets import QUICK, Sets, ask, difference, digits, per_class, sets_of, settings, tripwire, write

Cli = Callable[..., Ran]


def test_nothing_of_the_holdout_is_opened_before_all_is_chosen(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tripwire: tuning goes first, and no training gets a byte of the holdout.

    At the start it is checked that all images can be read. Nothing comes of that but an error.
    """
    import synthforge.evaluation.measure as verb
    import synthforge.evaluation.trainer.jobs as trainings

    events = ["start"]
    held = {path.read_bytes() for path in sets.holdout.rglob("*.png")}
    tune, train = verb.tune, trainings.train

    def tuned(*arguments: Any) -> Any:
        events.append("tuning")
        found = tune(*arguments)
        events.append("tuned")
        return found

    def trained(config: Any, mixing: Any, images: Any, **rest: Any) -> Any:
        files = images.gather(np.arange(len(images)))
        assert not held & set(files)
        return train(config, mixing, images, **rest)

    monkeypatch.setattr(verb, "tune", tuned)
    monkeypatch.setattr(trainings, "train", trained)
    with tripwire(sets.holdout, lambda: events[-1]) as opened:
        ask(sets, tmp_path, sets.more, more=("tuning.on=true", "tuning.augmentations=[affine]", "tuning.flip=[false]", "tuning.folds=2"))
    assert opened == {"start", "tuned"}
    assert inspect.signature(check_holdout).return_annotation == "None"


def test_a_holdout_that_cannot_be_used_is_told_before_the_first_training(sets: Sets, tmp_path: Path) -> None:
    holdout = shutil.copytree(sets.holdout, tmp_path / "holdout")
    broken = sorted((holdout / "4").iterdir())[2]
    broken.write_bytes(broken.read_bytes()[:40])
    with pytest.raises(DatasetError, match=rf"4/{broken.name}: not a readable image .*; remove or replace it"):
        ask(replace(sets, holdout=holdout), tmp_path, sets.more, arms="real")
    assert not list((tmp_path / "work").rglob("*.npz"))


def test_generating_curating_preparing_and_tuning_open_no_holdout(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a recipe that names one."""
    import synthforge.evaluation.measure as verb

    events, tune = ["start"], verb.tune
    monkeypatch.setattr(verb, "tune", lambda *given: (events.append("tuning"), tune(*given), events.append("tuned"))[1])
    tuning = ["evaluation.tuning.on=true", "evaluation.tuning.augmentations=[affine, shift]"]
    sets = [part for text in sets_of(tmp_path, *tuning) for part in ("--set", text)]
    with tripwire(Path(resolve("builtin:digits/holdout")), lambda: events[-1]) as opened:
        assert cli("generate", DIGITS, *sets).status == 0
        assert cli("curate", DIGITS, *sets).status == 0
        (pool,) = tmp_path.rglob("pool")
        for command in (
            ("plan", DIGITS, *sets, "--measure"),
            ("preview", DIGITS, *sets, "--out", tmp_path / "preview.png", "--per-class", 1),
            ("status", pool),
            ("verify", pool),
            ("show", 3, pool),
            ("recipe", "check", DIGITS),
            ("fit", "builtin:digits/reference", "--out", tmp_path / "fitted", "--set", "loop.images=2000", "--set", "loop.checks=2"),
        ):
            assert cli(*command).status == 0, command
        assert not opened
        evaluate(evaluation_of(load_recipe(DIGITS, sets_of(tmp_path, *tuning))))
    assert opened == {"start", "tuned"}


@pytest.mark.trains
def test_a_holdout_that_lacks_a_class_or_has_few_of_it_says_so(sets: Sets, tmp_path: Path) -> None:
    holdout = shutil.copytree(sets.holdout, tmp_path / "holdout")
    shutil.rmtree(holdout / "3")
    for image in sorted((holdout / "4").iterdir())[5:]:
        image.unlink()
    result = ask(replace(sets, holdout=holdout), tmp_path, sets.more, arms="real,more-set")
    assert "the held-out test set has no images of class 3, so results do not cover it" in result.notes
    assert any(note.startswith("fewer than 20 test images of class") and "4" in note for note in result.notes)
    (setting,) = result.tables[0].settings
    assert "3" not in setting.arms["real"].recall and 0 <= setting.arms["real"].recall["4"].value <= 1
    assert "3" not in difference(result, "more-set", "real").by_class
    assert 0.3 < setting.arms["real"].accuracy.value < 1


def test_copies_of_holdout_images_are_left_out_and_counted(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five as they are, five stored anew as another file, five mirrored; three can't be read."""
    pool = write(tmp_path / "theirs", per_class(digits(), 40, 70))
    stolen = digits("holdout")[:15]
    for number, example in enumerate(stolen):
        image = Image.open(io.BytesIO(example.data))
        name = pool / example.class_name / f"stolen-{number}.png"
        if number < 5:
            name.write_bytes(example.data)
        elif number < 10:
            image.convert("RGB").save(name)
        else:
            image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(name)
    for number in range(3):
        (pool / "0" / f"broken-{number}.png").write_bytes(b"\x89PNG no image" + bytes([number]))
    import synthforge.evaluation.trainer.jobs as trainings

    planted, trained_on, train = {path.read_bytes() for path in pool.rglob("stolen-*.png")}, set[bytes](), trainings.train

    def trained(config: Any, mixing: Any, images: Any, **rest: Any) -> Any:
        trained_on.update(images.gather(np.arange(len(images))))
        return train(config, mixing, images, **rest)

    monkeypatch.setattr(trainings, "train", trained)
    result = ask(sets, tmp_path, pool, arms="real,theirs", more=("synthetic_per_real=[3]", "workers=1"))
    assert result.copies_removed == {"theirs": 15}
    assert len(planted) == 15 and len(trained_on) >= 380  # nearly all of the pool
    assert not planted & trained_on
    assert any("3 images can't be read" in note for note in result.notes)
    assert any("15 images of theirs are copies of test images" in note for note in result.notes)


def test_holdout_images_that_real_images_copy_are_not_measured_on(sets: Sets, tmp_path: Path) -> None:
    """Three as they are and three mirrored: generators and tuning have seen these, so that leaving out the real ones is
    not enough."""
    real, holdout = tmp_path / "real", digits("holdout")[:200]
    shutil.copytree(sets.real, real)
    for number, example in enumerate(holdout[:6]):
        image = Image.open(io.BytesIO(example.data))
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if number >= 3 else image
        image.save(real / "fit" / example.class_name / f"0-{number}.png")  # first in its class, so in the fit part
    request = evaluation_of(
        None,
        real=str(real),
        holdout=str(sets.holdout),
        arms="real",
        out=str(tmp_path / "e.json"),
        sets=[*QUICK, "real_per_class=[10]", "curve=[5]"],
    )
    result = evaluate(type(request)(**{**request.__dict__, "folder": tmp_path / "work"}))
    assert result.copies_removed == {"real": 6}
    assert result.holdout_images == 194
    assert any("6 test images were left out, since real images are copies of them" in note for note in result.notes)


def test_a_holdout_that_is_training_data_is_refused(cli: Cli, sets: Sets, tmp_path: Path) -> None:
    copy = write(tmp_path / "copy", per_class(digits(), 0, 40))
    ran = cli("evaluate", "--real", sets.real, "--holdout", copy, "--out", tmp_path / "e.json", "--arms", "real", *settings())
    assert ran.status == 2
    assert "of the real images are copies of its" in ran.err
    ran = cli("evaluate", "--real", sets.real, "--holdout", sets.real, *settings())
    assert ran.status == 2
    assert "is both the real images and the held-out test set" in ran.err
