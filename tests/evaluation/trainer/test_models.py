"""Classifiers: the residual network and models of timm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from synthforge.errors import RequestError
from synthforge.evaluation.trainer.loader import decoded
from synthforge.evaluation.trainer.models import build, filled_in
from synthforge.evaluation.trainer.train import predict, train
from synthforge.recipe.evaluation import MixingConfig, TrainerConfig
from tests.evaluation.sets import digits
from tests.evaluation.trainer.test_train import CPU, training_set


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("timm") / "model.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), file)
    return file


@pytest.mark.parametrize("start", ["scratch", "probe", "fine-tune"])
def test_any_timm_model_from_scratch_as_a_probe_or_fine_tuned(start: str, weights: Path) -> None:
    pretrained = None if start == "scratch" else str(weights)
    config = TrainerConfig(
        network="test_resnet",
        pretrained=pretrained,
        start=start,
        resolution=32,
        steps=8,
        batch=8,
        learning_rate=1e-3,  # type: ignore[arg-type]
    )
    network = train(filled_in(config, 8), MixingConfig(policy="pooled"), training_set(40), 10, 0, CPU)
    test = digits("validation")[:20]
    truth = np.array([int(example.class_name) for example in test])
    found = predict(network, decoded([one.data for one in test], 32), truth, CPU)
    assert np.allclose(found.confidence_V >= found.probability_V, True)
    trained = {name: value for name, value in network.state_dict().items() if name.startswith("backbone.network.")}
    if start == "probe":
        before = timm.create_model("test_resnet", pretrained=False, num_classes=0).state_dict()
        assert trained.keys() == {f"backbone.network.{name}" for name in before}
        plain = build(filled_in(config, 8), 10, "batch").state_dict()
        assert all(torch.equal(value, plain[name]) for name, value in trained.items())
    else:
        assert not trained


def test_what_a_network_cannot_take_is_said() -> None:
    with pytest.raises(RequestError, match="split-norm is for the residual network"):
        build(TrainerConfig(network="test_resnet", resolution=32), 10, "parts")
    with pytest.raises(RequestError, match=r"test_vit can't take images of 12 px|test_vit"):
        filled_in(TrainerConfig(network="test_vit", resolution=12), 8)
    with pytest.raises(RequestError, match="nonesuch"):
        filled_in(TrainerConfig(network="nonesuch"), 8)
    with pytest.raises(ValueError, match="fine-tune needs a network with pretrained weights"):
        TrainerConfig(start="fine-tune")


def test_resolution_is_that_of_the_images_up_to_64() -> None:
    assert [filled_in(TrainerConfig(), size).resolution for size in (5, 8, 30, 64, 500)] == [8, 8, 28, 64, 64]
