"""Fixtures of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from synthforge.data.reading import Labelled, read_labelled
from tests.features.clips import write_clip


@pytest.fixture(scope="module")
def digits() -> dict[str, Labelled]:
    return dict(read_labelled("builtin:digits/reference"))


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("vit") / "test_vit.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), file)
    return file
