"""CLIP models, made and saved by open_clip itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from synthforge.data.reading import Labelled
from synthforge.features.encoders.clip import CONFIG_FILE, WEIGHTS_FILES
from synthforge.features.encoders.config import OpenClipConfig
from tests.features.clips import NORMALISED, TINY_CLIP
from tests.features.encoders.made import BUILTIN, embedded, load, pictures, unseen


@pytest.mark.parametrize("template", ["a photo of a {}", "{}", "a handwritten digit {}"])
def test_the_embedded_encoder_names_digits_that_it_has_not_seen(template: str, digits: dict[str, Labelled], tmp_path: Path) -> None:
    for encoder in load(BUILTIN[0], tmp_path):
        texts = encoder.embed_texts([template.format(name) for name in digits["fit"].classes])
        assert texts is not None
        assert encoder.logit_scale is not None
        assert np.allclose(np.linalg.norm(texts, axis=1), 1, atol=1e-5)
        for part in unseen(encoder, digits):
            features = embedded(encoder, part)
            assert (features.shape, features.dtype) == ((len(part.examples), encoder.dim), np.float32)
            assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
            found = np.array(part.classes)[(features @ texts.T).argmax(axis=1)]
            assert np.mean(found == [example.class_name for example in part.examples]) > 0.9
        assert encoder.classify(features) is None


def test_features_are_those_of_open_clips_own_preprocessing(clip_folder: Path, tmp_path: Path) -> None:
    (encoder,) = load(OpenClipConfig(model=str(clip_folder)), tmp_path)
    images = pictures(5, 32)
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{clip_folder}")
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([transform(Image.fromarray(image)) for image in images]), normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(["a cat", "a dog"])
        texts = model.encode_text(tokens, normalize=True).numpy()
    assert (encoder.resolution, encoder.dim, encoder.seen) == (32, 24, frozenset())
    assert torch.allclose(encoder.embed(images), expected, atol=1e-6)
    found = encoder.embed_texts(["a cat", "a dog"])
    assert found is not None
    assert np.allclose(found, texts, atol=1e-6)
    assert encoder.embed_texts([]).shape == (0, 24)  # type: ignore[union-attr]
    assert encoder.logit_scale == pytest.approx(float(model.logit_scale.detach().exp()))


def test_an_architecture_in_a_file_goes_with_weights_in_a_file(clip_folder: Path, tmp_path: Path) -> None:
    """Even one with the name of an architecture that open_clip has: that one stays as it was."""
    architecture = tmp_path / "ViT-B-32.json"
    architecture.write_text(json.dumps(TINY_CLIP))
    before = open_clip.get_model_config("ViT-B-32")
    (encoder,) = load(OpenClipConfig(model=str(architecture), pretrained=str(clip_folder / WEIGHTS_FILES[0])), tmp_path)
    assert open_clip.get_model_config("ViT-B-32") == before
    images = pictures(3, 32)
    (same,) = load(OpenClipConfig(model=str(clip_folder)), tmp_path)
    assert encoder.dim == 24
    assert not torch.allclose(encoder.embed(images), same.embed(images))  # without a folder: the usual normalisation
    model, _, transform = open_clip.create_model_and_transforms(
        f"local-dir:{clip_folder}", image_mean=open_clip.OPENAI_DATASET_MEAN, image_std=open_clip.OPENAI_DATASET_STD
    )
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([transform(Image.fromarray(image)) for image in images]), normalize=True)
    assert torch.allclose(encoder.embed(images), expected, atol=1e-6)
    assert encoder.embed_texts(["a cat"]) is not None


def test_an_identity_is_what_features_depend_on(clip_folder: Path, tmp_path: Path) -> None:
    def identity(folder: Path, **options: Any) -> dict[str, Any]:
        return load(OpenClipConfig(model=str(folder), **options), tmp_path)[0].identity()

    known = identity(clip_folder)
    assert known["dtype"] == "float32"
    assert str(clip_folder.parent) not in json.dumps(known)  # nothing of this machine
    moved = tmp_path / "elsewhere" / clip_folder.name
    shutil.copytree(clip_folder, moved)
    assert identity(moved) == known
    assert identity(moved, precision="bfloat16") != known
    weights = load_file(moved / WEIGHTS_FILES[0])
    save_file(weights | {"logit_scale": weights["logit_scale"] + 1}, moved / WEIGHTS_FILES[0])
    changed = identity(moved)
    assert changed["weights"] != known["weights"]
    (moved / CONFIG_FILE).write_text(json.dumps({"model_cfg": TINY_CLIP | {"quick_gelu": True}, "preprocess_cfg": NORMALISED}))
    assert identity(moved)["architecture"] != known["architecture"]
    (moved / CONFIG_FILE).write_text(json.dumps({"model_cfg": TINY_CLIP}))
    assert identity(moved)["preprocessing"] != known["preprocessing"]


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_stays_near(precision: Any, clip_folder: Path, tmp_path: Path) -> None:
    images = pictures(4, 32)
    (whole,) = load(OpenClipConfig(model=str(clip_folder)), tmp_path)
    (half,) = load(OpenClipConfig(model=str(clip_folder), precision=precision), tmp_path)
    found, expected = half.embed(images), whole.embed(images)
    assert found.dtype == torch.float32
    assert not torch.equal(found, expected)
    assert torch.allclose(found, expected, atol=0.05)


def test_a_siglip_like_model_has_a_scale_and_a_bias_that_no_softmax_over_texts_sees(tmp_path: Path) -> None:
    """The bias is the same for all texts, so zero-shot probabilities are those of the model's own logits."""
    architecture = TINY_CLIP | {"init_logit_scale": float(np.log(10)), "init_logit_bias": -10.0}
    torch.manual_seed(0)
    model = open_clip.CLIP(**architecture)
    save_file(model.state_dict(), tmp_path / WEIGHTS_FILES[0])
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"model_cfg": architecture, "preprocess_cfg": NORMALISED}))
    (encoder,) = load(OpenClipConfig(model=str(tmp_path)), tmp_path)
    images, texts = pictures(3, 32), encoder.embed_texts(["a cat", "a dog", "a house"])
    assert texts is not None
    assert encoder.logit_scale == pytest.approx(10)
    cosines = encoder.embed(images) @ torch.from_numpy(texts).T
    with_bias = torch.softmax(cosines * encoder.logit_scale + model.logit_bias, dim=1)
    assert torch.allclose(torch.softmax(cosines * encoder.logit_scale, dim=1), with_bias.detach(), atol=1e-6)
