"""Checks of a model and of the call before anything is loaded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import diffusers
import pytest

from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import GENERATORS, RealGuidanceConfig, SamplingConfig, SchedulerConfig
from synthforge.generators.protocol import ImageRequest
from tests import tiny_models
from tests.generators.pipelines.made import (
    assert_equal,
    config_for,
    loaded,
    plain,
    requests_for,
    sampling_for,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("dit", "text-to-image", "is a DiTPipeline, which is what `kind: dit` takes"),
        ("sd", "dit", "is a StableDiffusionPipeline, which is what `kind: text-to-image` takes"),
        ("sd", "unconditional", "is what `kind: text-to-image` takes"),
        ("unconditional", "text-to-image", "is what `kind: unconditional` takes"),
    ],
)
def test_a_model_of_another_kind_is_told_apart_without_loading(
    name: str, kind: str, words: str, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)
    config = GENERATORS[kind](kind=kind, model=str(tiny_models.save(name, models)))
    with pytest.raises(ModelError, match=r"generator\.model") as caught:
        config.check(config.files(), SamplingConfig(), ["a"])
    assert words in str(caught.value)


def edited_index(models: Path, place: Path, name: str, **changes: Any) -> Path:
    shutil.copytree(tiny_models.save(name, models), place)
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps(index | changes))
    return place


def test_strange_models_are_refused_before_loading(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)

    def refusal(sampling: SamplingConfig | None = None, labels: Sequence[str] = ("1",), name: str = "sd", **changes: Any) -> str:
        config = config_for(name, models, **changes)
        with pytest.raises((ModelError, RequestError)) as caught:
            config.check(config.files(), sampling or sampling_for(name), labels)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    code = edited_index(models, tmp_path / "code", "sd", unet=["os", "system"])
    assert "wants system from os for its unet" in refusal(model=str(code))
    control = edited_index(models, tmp_path / "control", "sd", _class_name="StableDiffusionControlNetPipeline")
    assert "is a StableDiffusionControlNetPipeline, which can't be used here" in refusal(model=str(control))
    pixart = edited_index(models, tmp_path / "pixart", "sd", _class_name="PixArtSigmaPipeline")
    guided = sampling_for("sd", real_guidance=RealGuidanceConfig(reference="x"))
    assert "PixArtSigmaPipeline has no image-to-image form; those of" in refusal(guided, model=str(pixart))
    assert "sampling.resolution: 15 is no multiple of 2" in refusal(sampling_for("sd", resolution=15))
    assert "classes: the model knows no class '1000', its numbers go from 0 to 999" in refusal(labels=["7", "1000"], name="dit")
    assert "did you mean 'golden retriever'" in refusal(labels=["golden retreiver"], name="dit")
    assert "sampling.resolution: the model makes 16 px, not 64" in refusal(sampling_for("dit", resolution=64), name="dit")


def test_arguments_of_the_call(models: Path) -> None:
    sampling = sampling_for("sd")
    requests = requests_for(sampling)
    more = {"guidance_rescale": 0.7}
    generator = loaded(config_for("sd", models, arguments=more), sampling)
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests, **more))
    with pytest.raises(RequestError, match=r"generator.arguments.guidance_rescal: .* did you mean 'guidance_rescale'"):
        loaded(config_for("sd", models, arguments={"guidance_rescal": 1}), sampling)
    with pytest.raises(RequestError, match=r"generator.arguments.num_inference_steps: other fields of the recipe decide it"):
        loaded(config_for("sd", models, arguments={"num_inference_steps": 1}), sampling)


def test_dit_labels_by_name_and_number(models: Path) -> None:
    sampling = sampling_for("dit")
    generator = loaded(config_for("dit", models), sampling)
    by_name = generator.prepare([ImageRequest(1, "Golden Retriever", "", None, 3.0), ImageRequest(1, "tabby", "", None, 3.0)])
    assert by_name.arguments["class_labels"] == [207, 281]


def test_mistakes_are_found_before_loading(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusers.DiffusionPipeline, "from_pretrained", None)

    def refusal(name: str, sampling: SamplingConfig, **changes: Any) -> str:
        config = config_for(name, models, **changes)
        with pytest.raises(RequestError) as caught:
            config.check(config.files(), sampling, ["1"])
        return str(caught.value)

    assert "takes no such argument" in refusal("sd", sampling_for("sd"), arguments={"bogus": 1})
    assert "has no transformer" in refusal("sd", sampling_for("sd"), step_cache={"name": "FirstBlockCache"})
    bogus = SchedulerConfig(name="EulerDiscreteScheduler", arguments={"bogus": 1})
    assert "EulerDiscreteScheduler has no such argument" in refusal("sd", sampling_for("sd", scheduler=bogus))
