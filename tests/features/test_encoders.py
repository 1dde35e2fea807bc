"""Encoders of every kind, with small real models: open_clip's and timm's own code made and saved them."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from synthforge.config import identity_of
from synthforge.data.images import decode, encode, resize
from synthforge.data.reading import Example, Labelled, read_labelled
from synthforge.errors import ModelError, RequestError
from synthforge.features.encoders.clip import CONFIG_FILE, WEIGHTS_FILES
from synthforge.features.encoders.config import EncoderConfig, FittedConfig, OpenClipConfig, PixelsConfig, TimmConfig
from synthforge.features.encoders.fitted import folds_of, without_fold
from synthforge.features.encoders.network import DeviceNetwork
from synthforge.features.encoders.protocol import SEEN_DIGITS, Encoder, Loading
from synthforge.progress import Reporter
from synthforge.training.config import LoopConfig
from synthforge.training.networks import Classifier
from tests.features.clips import NORMALISED, TINY_CLIP, write_clip

ASSETS = Path(__file__).resolve().parents[2] / "synthforge" / "assets" / "digits"
BUILTIN = [OpenClipConfig(model="builtin:digits/encoder"), FittedConfig(model="builtin:digits/judge")]
QUICK = FittedConfig(width=8, pixels=None, loop=LoopConfig(images=640, batch=32, learning_rate=3e-3, checks=4, compile=False))


def pictures(num: int, resolution: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, resolution, resolution, 3), dtype=np.uint8)


def load(config: EncoderConfig, cache: Path, **options: Any) -> list[Encoder]:
    return config.build(Loading(cache, "cpu", **options))


def embedded(encoder: Encoder, labelled: Labelled) -> np.ndarray:
    images = np.stack([resize(decode(example.data, 3), encoder.resolution) for example in labelled.examples])
    return encoder.embed(images).numpy()


def digests(labelled: Labelled) -> set[str]:
    return {example.sha256[:SEEN_DIGITS] for example in labelled.examples}


@pytest.fixture(scope="module")
def digits() -> dict[str, Labelled]:
    return dict(read_labelled("builtin:digits/reference"))


@pytest.fixture(scope="module")
def some(digits: dict[str, Labelled]) -> Labelled:
    """A few images of four classes."""
    chosen = [example for example in digits["fit"].examples if example.class_name in "0123"]
    return Labelled(list("0123"), chosen).first_of_each(15)


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vit") / "test_vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), file)
    return file


# The embedded ones


@pytest.mark.parametrize("config", BUILTIN, ids=lambda config: config.kind)
def test_folds_of_the_embedded_models_cover_the_fit_part_and_nothing_else(
    config: EncoderConfig, digits: dict[str, Labelled], tmp_path: Path
) -> None:
    first, second = load(config, tmp_path)
    fit, validation = digests(digits["fit"]), digests(digits["validation"])
    assert first.seen | second.seen == fit
    assert not first.seen & second.seen
    assert not validation & (first.seen | second.seen)
    for number, encoder in enumerate((first, second)):
        fitted, left_out = without_fold(digits["fit"], number, 2)
        assert (digests(fitted), digests(left_out) & encoder.seen) == (encoder.seen, set())
    assert first.name != second.name
    assert first.identity() != second.identity()


def unseen(encoder: Encoder, digits: dict[str, Labelled]) -> list[Labelled]:
    fit = [example for example in digits["fit"].examples if example.sha256[:SEEN_DIGITS] not in encoder.seen]
    return [Labelled(digits["fit"].classes, fit), digits["validation"]]


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


def test_the_embedded_judge_names_digits_that_it_has_not_seen(digits: dict[str, Labelled], tmp_path: Path) -> None:
    for judge in load(BUILTIN[1], tmp_path):
        assert judge.classes == list("0123456789")
        assert (judge.embed_texts(["3"]), judge.logit_scale) == (None, None)
        for part in unseen(judge, digits):
            probability = judge.classify(embedded(judge, part))
            assert probability is not None
            assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
            found = np.array(judge.classes)[probability.argmax(axis=1)]
            assert np.mean(found == [example.class_name for example in part.examples]) > 0.9


def test_the_embedded_models_are_small_and_say_how_well_they_do() -> None:
    for kind, name in (("encoder", "zero_shot_accuracy"), ("judge", "accuracy")):
        folders = sorted((ASSETS / kind).iterdir())
        assert [folder.name for folder in folders] == ["fold-0", "fold-1"]
        for folder in folders:
            report = json.loads((folder / "fitted.json").read_text())
            assert min(report[name].values()) > 0.9
            assert set(report[name]) == {"left_out_fold", "validation"}
            assert "scripts/fit_encoder.py" in report["command"]
    files = [path for kind in ("encoder", "judge") for path in (ASSETS / kind).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    table = load_file(ASSETS / "encoder" / "fold-0" / WEIGHTS_FILES[0])
    assert sum(value.numel() for name, value in table.items() if name != "token_embedding.weight") < 1_000_000
    assert int((table["token_embedding.weight"] != 0).any(dim=1).sum()) < 60


# open_clip


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


# timm


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


# Pixels


def test_pixels_are_pixels(tmp_path: Path) -> None:
    images = pictures(3, 8)
    (encoder,) = load(PixelsConfig(resolution=8), tmp_path)
    assert np.allclose(encoder.embed(images).numpy(), images.reshape(3, -1) / 255, atol=1e-7)
    (grey,) = load(PixelsConfig(resolution=8, channels=1), tmp_path)
    assert (encoder.dim, grey.dim) == (192, 64)
    assert np.allclose(grey.embed(images).numpy(), images.mean(axis=3).reshape(3, -1) / 255, atol=1e-6)
    assert encoder.identity() != grey.identity()
    assert encoder.seen == frozenset()


# Fitted


def test_cross_fitting_sees_all_but_its_fold(some: Labelled, tmp_path: Path) -> None:
    encoders = load(QUICK.model_copy(update={"folds": 3}), tmp_path, reference=some)
    assert len(encoders) == 3
    for number, encoder in enumerate(encoders):
        assert encoder.seen == digests(some) - digests(without_fold(some, number, 3)[1])
    assert frozenset.union(*(encoder.seen for encoder in encoders)) == digests(some)
    assert not frozenset.intersection(*(encoder.seen for encoder in encoders))
    assert encoders[0].resolution == 8
    assert encoders[0].embed(pictures(2, 8)).shape == (2, encoders[0].dim)


def test_a_fit_is_found_again_whatever_the_order_and_made_again_alike(some: Labelled, tmp_path: Path) -> None:
    first = load(QUICK, tmp_path / "a", reference=some)
    (folder,) = (tmp_path / "a").glob("fitted-*")
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    turned = Labelled(some.classes, some.examples[::-1])
    again = load(QUICK, tmp_path / "a", reference=turned)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
    elsewhere = load(QUICK, tmp_path / "b", reference=turned)
    identities = [[encoder.identity() for encoder in encoders] for encoders in (first, again, elsewhere)]
    assert identities[0] == identities[1] == identities[2]
    load(QUICK, tmp_path / "a", reference=Labelled(some.classes, some.examples[:-1]))
    load(QUICK.model_copy(update={"width": 16}), tmp_path / "a", reference=some)
    assert len(list((tmp_path / "a").glob("fitted-*"))) == 3
    (named, _) = load(FittedConfig(model=str(folder)), tmp_path)  # and as a model of its own
    assert named.identity() == first[0].identity()


class Cut(Reporter):
    """Breaks off while fitting, after so many images."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, num: int) -> None:
        self.left -= num
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_same_weights(some: Labelled, tmp_path: Path) -> None:
    whole = load(QUICK, tmp_path / "whole", reference=some)
    with pytest.raises(KeyboardInterrupt):
        load(QUICK, tmp_path / "cut", reference=some, reporter=Cut(640 + 400))
    (folder,) = (tmp_path / "cut").glob("fitted-*")
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["fold-0"]
    assert list(folder.glob(".fold-1.checkpoint.safetensors"))
    rest = Cut(10**9)
    cut = load(QUICK, tmp_path / "cut", reference=some, reporter=rest)
    assert 10**9 - rest.left < 640
    assert [encoder.identity() for encoder in cut] == [encoder.identity() for encoder in whole]
    assert not list(folder.glob(".fold-*"))


def test_folds_are_even_in_every_class_and_copies_stay_together(digits: dict[str, Labelled]) -> None:
    fit = digits["fit"].first_of_each(3)
    copies = [Example(f"{example.name} again", f"{example.key}-again", example.class_name, example.data) for example in fit.examples[:7]]
    other = [Example("x", "x", "9" if fit.examples[8].class_name != "9" else "8", fit.examples[8].data)]  # one file under two labels
    whole = Labelled(fit.classes, [*fit.examples, *copies, *other])
    folds = folds_of(whole, 2)
    assert folds[len(fit.examples) : -1] == folds[:7]
    assert folds[-1] == folds[8]
    counts = Counter((example.class_name, fold) for example, fold in zip(fit.examples, folds, strict=False))
    assert all(counts[name, fold] in (1, 2) for name in fit.classes for fold in (0, 1))
    assert abs(folds_of(fit, 2).count(0) - 15) <= 1


def test_a_class_with_one_image_is_known_to_one_classifier_only(some: Labelled, tmp_path: Path) -> None:
    rare = next(example for example in some.examples if example.class_name == "3")
    reference = Labelled(some.classes, [example for example in some.examples if example.class_name != "3"] + [rare])
    encoders = load(QUICK, tmp_path, reference=reference)
    assert sorted(map(len, (encoder.classes for encoder in encoders))) == [3, 4]
    for encoder in encoders:
        assert ("3" in encoder.classes) == (rare.sha256[:SEEN_DIGITS] in encoder.seen)
        probability = encoder.classify(embedded(encoder, reference))
        assert probability is not None
        assert probability.shape[1] == len(encoder.classes)


@pytest.mark.trains
def test_probabilities_are_those_of_equally_frequent_classes(digits: dict[str, Labelled], tmp_path: Path) -> None:
    """Of a class with a tenth of the images the classifier still finds most."""
    ones = [example for example in digits["fit"].examples if example.class_name == "1"]
    sevens = [example for example in digits["fit"].examples if example.class_name == "7"]
    reference = Labelled(["1", "7"], ones + sevens[:8])
    config = QUICK.model_copy(update={"loop": QUICK.loop.model_copy(update={"images": 3200})})
    encoder = load(config, tmp_path, reference=reference)[0]
    probability = encoder.classify(embedded(encoder, Labelled(["1", "7"], sevens[8:])))
    assert probability is not None
    assert np.mean(probability[:, encoder.classes.index("7")] > 0.5) > 0.8


def test_fitting_needs_real_images_and_enough_of_them(some: Labelled, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="judge: kind fitted needs real images"):
        load(QUICK, tmp_path, where="judge")
    with pytest.raises(RequestError, match="3 real images are too few for 2 folds"):
        load(QUICK, tmp_path, reference=Labelled(some.classes, some.examples[:3]))
    with pytest.raises(ModelError, match=r"encoder\.model: no fitted classifiers at nowhere"):
        load(FittedConfig(model="nowhere"), tmp_path)


@pytest.mark.parametrize(("resolution", "width", "dim"), [(8, 8, 16), (12, 8, 32), (16, 8, 32), (28, 8, 32), (64, 8, 32)])
def test_classifiers_of_every_size(resolution: int, width: int, dim: int) -> None:
    classifier = Classifier(resolution, width, 3)
    images = torch.rand(2, 3, resolution, resolution)
    assert classifier.features(images).shape == (2, dim)
    assert classifier(images).shape == (2, 3)


# What is refused, and how


def pickled(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    torch.save({"weight": torch.zeros(1)}, folder / name)
    return folder / name


@pytest.mark.parametrize("name", ["open_clip_pytorch_model.bin", "model.pt", "weights.ckpt"])
def test_pickles_are_refused(name: str, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was loaded"))
    file = pickled(tmp_path / "pickled", name)
    shutil.copy(clip_folder / CONFIG_FILE, file.parent)
    (file.parent / "config.json").write_text(json.dumps({"architecture": "test_vit"}))
    configs: list[EncoderConfig] = [
        OpenClipConfig(model=str(file.parent)),
        OpenClipConfig(model="ViT-B-32", pretrained=str(file)),
        TimmConfig(model=str(file.parent)),
        TimmConfig(model="test_vit", pretrained=str(file)),
    ]
    for config in configs:
        with pytest.raises(ModelError, match=f"{name} is a pickle, which can run any code") as caught:
            load(config, tmp_path)
        assert "\n" not in str(caught.value)
    # open_clip would take this pickle before a safetensors file that does not have the usual name
    shutil.copy(clip_folder / WEIGHTS_FILES[0], file.parent / "my.safetensors")
    with pytest.raises(ModelError, match="is a pickle"):
        load(configs[0], tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (OpenClipConfig(model="ViT-B-33"), r"encoder\.model: there is no ViT-B-33; did you mean ViT-B-32"),
        (OpenClipConfig(model="vit-b-32-quickgelus"), "did you mean ViT-B-32-quickgelu"),
        (OpenClipConfig(model="ViT-B-32"), r"encoder\.pretrained: ViT-B-32 is an architecture without weights; give one of openai"),
        (
            OpenClipConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79"),
            "has no weights laion2b_s34b_b79; did you mean laion2b_s34b_b79k",
        ),
        (OpenClipConfig(model="ViT-B-32", pretrained="mine.safetensors"), "no weights at mine.safetensors"),
        (OpenClipConfig(model="./nowhere"), r"there is no \./nowhere; name a folder"),
        (OpenClipConfig(model="builtin:digits/encodr"), "there is no builtin:digits/encodr"),
        (OpenClipConfig(model="builtin:digits/judge"), "no model of open_clip"),
        (OpenClipConfig(model="builtin:digits/encoder", pretrained="openai"), "remove `pretrained`"),
        (TimmConfig(model="resnet500"), r"encoder\.model: there is no resnet500; did you mean resnet50"),
        (TimmConfig(model="resnet50.a1_in1"), "resnet50 has no weights a1_in1; did you mean a1_in1k"),
        (TimmConfig(model="qwerty"), "there is no qwerty; name a folder"),
        (TimmConfig(model="builtin:digits/reference"), "has no config.json"),
        (FittedConfig(model="builtin:digits/reference"), "no fitted classifiers"),
    ],
)
def test_wrong_names_give_one_line_with_near_ones(config: EncoderConfig, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        load(config, tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_and_wrong_files_give_one_line(clip_folder: Path, vit_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(clip_folder, broken)
    (broken / WEIGHTS_FILES[0]).write_bytes(b"{" * 100)
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"embed_dim": 8}))
    judge = tmp_path / "judge"
    shutil.copytree(ASSETS / "judge", judge)
    (judge / "fold-0" / "fitted.json").write_text("{}")
    for config in (
        OpenClipConfig(model=str(broken)),
        OpenClipConfig(model="ViT-B-32", pretrained=str(vit_file)),
        OpenClipConfig(model=str(other), pretrained=str(vit_file)),
        TimmConfig(model="test_vit", pretrained=str(broken / WEIGHTS_FILES[0])),
        TimmConfig(model="test_vit", pretrained=str(clip_folder / WEIGHTS_FILES[0])),
        TimmConfig(model="test_vit", pretrained=str(vit_file), resolution=61),
        FittedConfig(model=str(judge)),
    ):
        with pytest.raises(ModelError) as caught:
            load(config, tmp_path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith("encoder")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(RequestError, match="encoder: cuda:99 is not on this machine"):
        DeviceNetwork(torch.nn.Identity(), lambda images: images, "cuda:99", "auto", [0.5], [0.5], "encoder")


HUB = """
import sys
from pathlib import Path
from synthforge.features.encoders.config import OpenClipConfig, TimmConfig
from synthforge.features.encoders.protocol import Loading
from synthforge.errors import ModelError
for config in (OpenClipConfig(model="someone/clip"), TimmConfig(model="hf-hub:someone/vit"), OpenClipConfig(model="someone/pickled"),
               TimmConfig(model="someone/pickled"), TimmConfig(model="someone/nothing"), TimmConfig(model="resnet50.a1_in1k"),
               OpenClipConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79k")):
    try:
        (encoder,) = config.build(Loading(Path("unused"), "cpu"))
        print("loaded", encoder.name, encoder.dim)
    except ModelError as error:
        print("refused", str(error).replace(chr(10), "<newline>"))
"""


@pytest.mark.slow
def test_models_come_from_a_hub_and_pickles_stay_there(clip_folder: Path, tmp_path: Path) -> None:
    """The hub's own client against a server that speaks its protocol, and without one."""
    from tests.hub_server import HubServer

    served = tmp_path / "served" / "someone"
    shutil.copytree(clip_folder, served / "clip")
    (served / "clip" / "open_clip_pytorch_model.bin").write_bytes(b"a pickle beside safetensors")
    timm.models.save_for_hf(timm.create_model("test_vit", pretrained=False), served / "vit", safe_serialization=True)
    shutil.copytree(served / "clip", served / "pickled")
    shutil.copy(served / "vit" / "config.json", served / "pickled")
    (served / "pickled" / WEIGHTS_FILES[0]).unlink()
    command = [sys.executable, "-c", HUB]
    environment = os.environ | {
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
        "HF_HOME": str(tmp_path / "home"),
    }
    with HubServer(tmp_path / "served") as hub:
        answers = environment | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address}
        lines = subprocess.run(command, capture_output=True, text=True, env=answers, check=True).stdout.splitlines()
        downloaded = set(hub.downloaded)
    assert lines[:2] == ["loaded someone/clip 24", "loaded someone/vit 64"]
    assert [line.split(";")[0] for line in lines[2:4]] == [
        "refused encoder.model: someone/pickled has no open_clip_model.safetensors on the hub",
        "refused encoder.model: someone/pickled has no model.safetensors on the hub",
    ]
    assert all("can't be loaded" in line or "on the hub" in line for line in lines[4:])
    assert not [name for name in downloaded if name.endswith(".bin")]
    environment = environment | {"HF_HUB_OFFLINE": "1"}
    lines = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.splitlines()
    assert lines[:2] == ["loaded someone/clip 24", "loaded someone/vit 64"]  # from the cache
    assert len(lines) == 7
    assert all(line.startswith("refused encoder.") and "can't be loaded" in line and "<newline>" not in line for line in lines[2:])


def test_configs_load_no_model_library() -> None:
    code = (
        "import sys; import synthforge.features.encoders.config, synthforge.features.encoders.protocol\n"
        "assert not {'torch', 'open_clip', 'timm', 'huggingface_hub'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_fields_are_declared() -> None:
    assert identity_of(TimmConfig(model="x"), lambda path, value: f"<{value}>")["model"] == "<x>"
    assert identity_of(OpenClipConfig(), lambda path, value: "held")["model"] == "held"
    assert "model" not in identity_of(FittedConfig(), lambda path, value: value)


def test_equal_pixels_give_equal_features_whatever_the_file_format(tmp_path: Path) -> None:
    """PNG and lossless WebP of one image, grey and colour: the format must not show."""
    grey = pictures(1, 8)[0][:, :, :1]
    buffer = io.BytesIO()
    Image.fromarray(np.repeat(grey, 3, axis=2)).save(buffer, "WEBP", lossless=True)
    files = [encode(grey, "png", 100, marking=False), encode(np.repeat(grey, 3, axis=2), "png", 100, marking=True), buffer.getvalue()]
    for config in (*BUILTIN, PixelsConfig(resolution=16)):
        encoder = load(config, tmp_path)[0]
        found = encoder.embed(np.stack([resize(decode(file, 3), encoder.resolution) for file in files]))
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2])
