"""Fitting: learns, guards against memorising, resumes exactly, refuses what it can't use."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from synthforge.data.images import encode
from synthforge.errors import DatasetError, ModelError, PlaceError
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.generators.pixel.fit import fit
from synthforge.generators.pixel.pipeline import PixelPipeline
from synthforge.recipe.load import config_from_sets
from tests import children
from tests.conftest import FORKS, files_of, in_child

REFERENCE = "builtin:digits/reference"
SHORT = ["loop.images=4000", "loop.batch=100", "loop.checks=4", "width=32", "depth=1", "threads=1"]


def config(*sets: str) -> PixelFitConfig:
    return config_from_sets(PixelFitConfig, [*SHORT, *sets])


@pytest.mark.trains
@pytest.mark.parametrize("objective", ["edm", "flow"])
def test_a_short_fit_learns_and_its_pipeline_loads(tmp_path: Path, objective: str) -> None:
    report = fit(REFERENCE, tmp_path / "m", config(f"objective={objective}", "loop.images=40000"))
    losses = [check.held_out_loss for check in report.checks]
    untrained = 1.0 if objective == "edm" else 1.6  # mean square of the target
    assert losses[-1] < 0.8 * untrained  # type: ignore[operator]
    assert (report.images_fitted, report.images_validation, report.real_budget) == (800, 200, 1000)
    assert report.sigma_data == pytest.approx(0.753, abs=0.01)
    pipeline = PixelPipeline.from_pretrained(tmp_path / "m")
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.guide is not None
    images = pipeline([0, 1, 2], output_type="np", generator=[torch.Generator().manual_seed(i) for i in range(3)]).images
    assert images.std() > 0.1
    assert json.loads((tmp_path / "m" / "fit.json").read_text())["checks"][-1]["step"] == 400
    assert not (tmp_path / "m" / "_fit").exists()


def test_per_class_uses_only_those_images_and_no_validation(tmp_path: Path) -> None:
    report = fit(REFERENCE, tmp_path / "m", config("per_class=5", "guide_at=null", "loop.batch=50"))
    assert (report.images_fitted, report.images_validation, report.real_budget) == (50, 0, 50)
    assert all(check.held_out_loss is None and check.coverage is None for check in report.checks)
    assert PixelPipeline.from_pretrained(tmp_path / "m").guide is None


@pytest.mark.trains
def test_memorising_is_seen_and_weights_before_it_are_kept(tmp_path: Path) -> None:
    """Fifty images shown thousands of times without augmentation or dropout: copies appear, and fitting stops."""
    sets = [
        "per_class=5",
        "width=128",
        "depth=2",
        "dropout=0",
        "augment.share=0",
        "loop.images=300000",
        "loop.batch=200",
        "loop.checks=20",
    ]
    report = fit(REFERENCE, tmp_path / "m", config(*sets))
    assert report.checks[-1].near_copies > 3 * report.checks[-1].near_copies_real
    assert not report.checks[-1].is_candidate
    assert "nothing better" in report.stopped
    kept = next(check for check in report.checks if check.step == report.kept_step)
    assert kept.is_candidate
    assert kept.step < report.checks[-1].step
    assert report.warning is None


def test_a_fit_is_decided_by_its_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(REFERENCE, tmp_path / name, config(f"loop.seed={seed}"))
    weights = {name: (tmp_path / name / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes() for name in "abc"}
    assert weights["a"] == weights["b"] != weights["c"]


def test_killed_and_resumed_fit_gives_the_same_weights(tmp_path: Path) -> None:
    assert in_child(children.fit, REFERENCE, str(tmp_path / "whole"), SHORT) == 0
    assert in_child(children.fit, REFERENCE, str(tmp_path / "killed"), SHORT, 2) == -9
    assert (tmp_path / "killed" / "_fit" / "checkpoint.safetensors").exists()
    with pytest.raises(ModelError, match="other settings or data"):
        fit(REFERENCE, tmp_path / "killed", config("loop.learning_rate=0.5"))
    assert in_child(children.fit, REFERENCE, str(tmp_path / "killed"), SHORT) == 0
    whole, resumed = (
        {name: digest for name, digest in files_of(tmp_path / of).items() if name != "fit.json"} for of in ("whole", "killed")
    )
    assert whole == resumed
    reports = [json.loads((tmp_path / of / "fit.json").read_text())["checks"] for of in ("whole", "killed")]
    assert reports[0] == reports[1]


def test_a_fit_that_was_killed_while_it_put_its_model_in_place_goes_on(tmp_path: Path) -> None:
    fit(REFERENCE, tmp_path / "whole", config(*TINY))
    child = FORKS.Process(target=_fit_and_die, args=(tmp_path / "killed",))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    left = {path.name for path in (tmp_path / "killed").iterdir()}
    assert "_fit" in left and len(left) > 1 and "model_index.json" not in left
    fit(REFERENCE, tmp_path / "killed", config(*TINY))
    weights = [
        sorted((name, digest) for name, digest in files_of(tmp_path / of).items() if name != "fit.json") for of in ("whole", "killed")
    ]
    assert weights[0] == weights[1]


TINY = ("loop.images=2000", "loop.checks=1")


def _fit_and_die(out: Path) -> None:
    """In a child: killed once a part of the model lies where it belongs."""
    original = os.replace

    def replace(source: Path, target: Path) -> None:
        original(source, target)
        if target.parent == out and "model" in str(source.parent):
            os.kill(os.getpid(), signal.SIGKILL)

    os.replace = replace  # type: ignore[assignment]
    fit(REFERENCE, out, config(*TINY))


def colour_folder(place: Path, size: int, per_class: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for name, colour in (("red", [200, 30, 30]), ("blue", [30, 30, 200])):
        (place / name).mkdir(parents=True)
        for index in range(per_class):
            image = np.clip(np.array(colour) + rng.integers(-25, 25, (size, size + 3, 3)), 0, 255).astype(np.uint8)
            (place / name / f"{index}.jpg").write_bytes(encode(image, "jpg", 95, marking=False))
    return place


@pytest.mark.trains
def test_colour_images_of_a_folder_go_through_the_unet(tmp_path: Path) -> None:
    sets = ["loop.images=3600", "loop.batch=24", "loop.checks=1", "width=16", "depth=1", "threads=1", "augment.flip=true"]
    report = fit(str(colour_folder(tmp_path / "data", 18)), tmp_path / "m", config_from_sets(PixelFitConfig, sets))
    assert (report.resolution, report.channels, report.classes) == (16, 3, ["blue", "red"])
    assert (report.images_fitted, report.images_validation) == (20, 4)
    pipeline = PixelPipeline.from_pretrained(tmp_path / "m")
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(["red"] * 8 + ["blue"] * 8, output_type="np", generator=[torch.Generator().manual_seed(i) for i in range(16)]).images
    red, blue = made[:8].mean(axis=(0, 1, 2)), made[8:].mean(axis=(0, 1, 2))
    assert red[0] > red[2]
    assert blue[2] > blue[0]


def test_what_cannot_be_fitted_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model_index.json").write_text("{}")
    with pytest.raises(PlaceError, match="holds a model already"):
        fit(REFERENCE, tmp_path / "m", config())
    with pytest.raises(DatasetError, match="fewer than per_class"):
        fit(REFERENCE, tmp_path / "n", config("per_class=500"))
    with pytest.raises(DatasetError, match="check the path"):
        fit(str(tmp_path / "nowhere"), tmp_path / "n", config())
    folder = colour_folder(tmp_path / "data", 16)
    (folder / "red" / "0.jpg").write_bytes(b"corrupt")
    with pytest.raises(DatasetError, match=r"0.jpg: not a readable image"):
        fit(str(folder), tmp_path / "n", config())
    assert not (tmp_path / "n").exists()


@pytest.mark.trains
def test_mixed_precision_keeps_weights_in_float32_and_learns(tmp_path: Path) -> None:
    report = fit(REFERENCE, tmp_path / "m", config("loop.precision=bfloat16", "loop.images=40000"))
    assert report.checks[-1].held_out_loss < 0.85  # type: ignore[operator]
    assert PixelPipeline.from_pretrained(tmp_path / "m").denoiser.dtype == torch.float32


def test_sets_that_teach_nothing_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "one" / name).mkdir(parents=True)
        for index in range(3):
            (tmp_path / "one" / name / f"{index}.png").write_bytes(encode(np.full((8, 8, 1), 9, dtype=np.uint8), "png", 90, marking=False))
    with pytest.raises(DatasetError, match="all images are of one colour"):
        fit(str(tmp_path / "one"), tmp_path / "m", config())
    with pytest.raises(PlaceError, match="is not empty"):
        fit(REFERENCE, tmp_path / "one", config())
    with pytest.raises(PlaceError, match="can't be written"):
        fit(REFERENCE, "/proc/nowhere/m", config())
