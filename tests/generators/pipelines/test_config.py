"""Configs of diffusers pipelines: the files that they name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from synthforge.errors import ModelError
from synthforge.generators.pipelines.config import LoraConfig, TextToImageConfig, UnconditionalConfig
from tests import tiny_models


def test_added_weights_are_digested_by_the_field_that_names_them(models: Path, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "style.safetensors")
    model = str(tiny_models.save("sd", models))
    config = TextToImageConfig(kind="text-to-image", model=model, loras=[LoraConfig(model=str(tmp_path / "style.safetensors"))])
    plain = TextToImageConfig(kind="text-to-image", model=model)
    assert set(plain.files().digests()) == {"generator.model"}
    digests = config.files().digests()
    assert set(digests) == {"generator.model", "generator.loras.0.model"}
    assert digests["generator.model"] == plain.files().digests()["generator.model"]


def test_a_lora_that_is_not_there_is_named_by_its_field(models: Path, tmp_path: Path) -> None:
    lora = LoraConfig(model=str(tmp_path / "none.safetensors"))
    config = TextToImageConfig(kind="text-to-image", model=str(tiny_models.save("sd", models)), loras=[lora])
    with pytest.raises(ModelError, match=r"generator\.loras\.0\.model"):
        config.files()


def test_what_a_kind_has_not_is_no_field_of_it() -> None:
    with pytest.raises(ValidationError, match="loras"):
        UnconditionalConfig.model_validate({"kind": "unconditional", "model": "m", "loras": []})
