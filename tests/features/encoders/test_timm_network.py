"""Image networks, made and saved by timm itself."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from synthforge.features.encoders.config import TimmConfig
from tests.features.encoders.made import load, pictures


def test_features_are_those_of_timms_own_preprocessing(vit_file: Path, tmp_path: Path) -> None:
    (encoder,) = load(TimmConfig(model="test_vit", pretrained=str(vit_file)), tmp_path)
    model = timm.create_model("test_vit", num_classes=0)
    state = {name: value for name, value in load_file(vit_file).items() if not name.startswith("head.")}
    model.load_state_dict(state)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model) | {"crop_pct": 1.0})
    images = pictures(3, encoder.resolution)
    with torch.no_grad():
        expected = model.eval()(torch.stack([transform(Image.fromarray(image)) for image in images]))
    assert encoder.embed(images).shape == (3, encoder.dim)
    assert torch.allclose(encoder.embed(images), expected, atol=1e-5)
    assert (encoder.seen, encoder.embed_texts(["x"]), encoder.classify(expected.numpy())) == (frozenset(), None, None)


def test_a_timm_folder_and_another_resolution(tmp_path: Path, vit_file: Path) -> None:
    torch.manual_seed(1)
    model = timm.create_model("test_efficientnet", pretrained=False)
    timm.models.save_for_hf(model, tmp_path / "saved", safe_serialization=True)
    (encoder,) = load(TimmConfig(model=str(tmp_path / "saved")), tmp_path)
    images = pictures(2, encoder.resolution)
    expected = model.eval().forward_head(
        model.forward_features(
            (
                torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
                - torch.tensor(encoder.identity()["preprocessing"]["mean"])[:, None, None]
            )
            / torch.tensor(encoder.identity()["preprocessing"]["std"])[:, None, None]
        ),
        pre_logits=True,
    )
    assert torch.allclose(encoder.embed(images), expected.detach(), atol=1e-5)
    (smaller,) = load(TimmConfig(model=str(tmp_path / "saved"), resolution=64), tmp_path)
    assert smaller.embed(pictures(2, 64)).shape == (2, encoder.dim)
    (fixed,) = load(TimmConfig(model="test_vit", pretrained=str(vit_file), resolution=64), tmp_path)  # a ViT must be told its size
    assert (fixed.resolution, fixed.embed(pictures(2, 64)).shape) == (64, (2, fixed.dim))
    assert smaller.identity() != encoder.identity()
