"""EfficientNet-Lite0 from its package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from synthforge.errors import HubUnreachable, ModelError
from synthforge.features.encoders import lite0
from synthforge.features.encoders.config import Lite0Config, TimmConfig
from synthforge.features.encoders.protocol import Loading


def test_features_are_those_of_the_packages_own_tensors(tmp_path: Path) -> None:
    """The tensors are those of timm's network in the same order: the features follow from them, once loaded by hand."""
    import timm

    (encoder,) = Lite0Config(resolution=64).build(Loading(tmp_path, "cpu"))
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    features = encoder.embed(images)
    network = timm.create_model(lite0.ARCHITECTURE, num_classes=0).eval()
    tensors = list(torch.load(lite0._file_of_package("encoder"), weights_only=True).values())
    state = network.state_dict()
    network.load_state_dict(dict(zip(state, tensors, strict=False)))
    mean, std = (torch.tensor(timm.data.resolve_model_data_config(network)[name])[:, None, None] for name in ("mean", "std"))
    with torch.inference_mode():
        wanted = network((torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - mean) / std)
    torch.testing.assert_close(features, wanted)
    assert features.shape == (3, 1280) == (3, encoder.dim)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_the_package_is_missing_or_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lite0, "SHA256", "0" * 64)
    with pytest.raises(ModelError, match=r"not the expected one; install version 0.1.0"):
        Lite0Config().build(Loading(tmp_path, "cpu"))
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'synthforge\[offline\]'"):
        Lite0Config().build(Loading(tmp_path, "cpu"))


def test_the_error_of_an_unreachable_hub_names_it(tmp_path: Path) -> None:
    with pytest.raises(HubUnreachable, match=r"or use encoder=\{kind: lite0\} and metric_encoder=\{kind: pixels\}, which need no hub"):
        TimmConfig(model="vit_small_patch14_dinov2.lvd142m").build(Loading(tmp_path, "cpu"))
