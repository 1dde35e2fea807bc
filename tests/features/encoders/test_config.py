"""Encoders by their Configs: declared fields, light imports, and refusals of models in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from synthforge.config import identity_of
from synthforge.errors import ModelError
from synthforge.features.encoders.clip import CONFIG_FILE, WEIGHTS_FILES
from synthforge.features.encoders.config import EncoderConfig, FittedConfig, OpenClipConfig, TimmConfig
from tests.features.encoders.made import ASSETS, load


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
        (OpenClipConfig(model="ViT-B-33"), r"encoder\.model: there is no ViT-B-33; did you mean 'ViT-B-32"),
        (OpenClipConfig(model="vit-b-32-quickgelus"), "did you mean 'ViT-B-32-quickgelu"),
        (OpenClipConfig(model="ViT-B-32"), r"encoder\.pretrained: ViT-B-32 is an architecture without weights; give one of openai"),
        (
            OpenClipConfig(model="ViT-B-32", pretrained="laion2b_s34b_b79"),
            "has no weights laion2b_s34b_b79; did you mean 'laion2b_s34b_b79k",
        ),
        (OpenClipConfig(model="ViT-B-32", pretrained="mine.safetensors"), "no weights at mine.safetensors"),
        (OpenClipConfig(model="./nowhere"), r"there is no \./nowhere; name a folder"),
        (OpenClipConfig(model="builtin:digits/encodr"), "there is no builtin:digits/encodr"),
        (OpenClipConfig(model="builtin:digits/judge"), "no model of open_clip"),
        (OpenClipConfig(model="builtin:digits/encoder", pretrained="openai"), "remove `pretrained`"),
        (TimmConfig(model="resnet500"), r"encoder\.model: there is no resnet500; did you mean 'resnet50"),
        (TimmConfig(model="resnet50.a1_in1"), "resnet50 has no weights a1_in1; did you mean 'a1_in1k"),
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
    assert all(line.startswith("refused encoder.") and "HF_HUB_OFFLINE" in line and "<newline>" not in line for line in lines[2:])


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
