"""LoRAs, other VAEs, learned tokens, variants and lossy shortcuts."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from packaging.version import Version

from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import RealGuidanceConfig
from tests import tiny_models
from tests.generators.pipelines.made import (
    PROMPTS,
    assert_equal,
    config_for,
    loaded,
    plain,
    requests_for,
    sampling_for,
    save_lora,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def test_loras_with_scales_equal_the_plain_call(models: Path, tmp_path: Path) -> None:
    sampling = sampling_for("sd")
    one, two = save_lora(tmp_path / "one", models), save_lora(tmp_path / "two", models, seed=2)
    loras = [{"model": str(one), "scale": 0.7}, {"model": str(two / "pytorch_lora_weights.safetensors"), "scale": -0.5}]
    generator = loaded(config_for("sd", models, loras=loras), sampling)
    requests = requests_for(sampling)
    pixels, _ = generator.sample(generator.prepare(requests))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(models / "sd"))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(str(one), adapter_name="a")
    pipeline.load_lora_weights(str(two), adapter_name="b")
    pipeline.set_adapters(["a", "b"], [0.7, -0.5])
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = pipeline(PROMPTS, height=16, width=16, guidance_scale=3.0, num_inference_steps=4, generator=generators).images
    assert_equal(pixels, np.stack([np.asarray(image) for image in images]))
    assert not np.array_equal(pixels.numpy(), plain("sd", models, sampling, requests))
    assert [lora["scale"] for lora in generator.identity()["loras"]] == [0.7, -0.5]


def test_a_lora_that_does_not_fit(models: Path, tmp_path: Path) -> None:
    sampling = sampling_for("sdxl")
    for name in ("sd", "flux"):
        lora = save_lora(tmp_path / name, models, name)
        config = config_for("sdxl", models, loras=[{"model": str(lora)}])
        with pytest.raises(
            ModelError, match=r"^generator.loras.0.model: .* does not fit this model .*made for a StableDiffusionXLPipeline$"
        ) as e:
            loaded(config, sampling)
        assert "\n" not in str(e.value)
    with pytest.raises(ModelError, match=r"generator.loras.0.model: no weights at .*nowhere"):
        config_for("sd", models, loras=[{"model": "nowhere"}]).files()
    (tmp_path / "pickle").mkdir()
    (tmp_path / "pickle" / "lora.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"generator.loras.0.model: lora.bin is a pickle"):
        config_for("sd", models, loras=[{"model": str(tmp_path / "pickle")}]).files()


def test_another_vae(models: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    other = tiny_models.vae().eval()
    other.save_pretrained(tmp_path / "vae")
    sampling = sampling_for("sd")
    generator = loaded(config_for("sd", models, vae=str(tmp_path / "vae")), sampling)
    requests = requests_for(sampling)
    pixels, _ = generator.sample(generator.prepare(requests))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(models / "sd"), vae=other)
    pipeline.set_progress_bar_config(disable=True)
    generators = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = pipeline(PROMPTS, height=16, width=16, guidance_scale=3.0, num_inference_steps=4, generator=generators).images
    assert_equal(pixels, np.stack([np.asarray(image) for image in images]))
    with pytest.raises(ModelError, match=r"generator.vae: .* is a UNet2DConditionModel, not a VAE"):
        loaded(config_for("sd", models, vae=str(models / "sd" / "unet")), sampling)


def test_learned_words(models: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(6)
    save_file({"<mine>": torch.randn(32)}, tmp_path / "word.safetensors")
    sampling = sampling_for("sd")
    words = [{"model": str(tmp_path / "word.safetensors"), "token": "<mine>"}]
    generator = loaded(config_for("sd", models, textual_inversions=words), sampling)
    with_word = generator.sample(generator.prepare(requests_for(sampling, prompts=["a <mine>"])))[0]
    without = loaded(config_for("sd", models), sampling)
    plainly = without.sample(without.prepare(requests_for(sampling, prompts=["a <mine>"])))[0]
    assert not torch.equal(with_word, plainly)
    save_file({"<mine>": torch.randn(48)}, tmp_path / "wide.safetensors")
    with pytest.raises(ModelError, match=r"^generator.textual_inversions.0: .* does not fit this model"):
        loaded(config_for("sd", models, textual_inversions=[{"model": str(tmp_path / "wide.safetensors"), "token": "<mine>"}]), sampling)


def test_variant_and_precision(models: Path, tmp_path: Path) -> None:
    """A folder with plain weights and a variant: only the files that are loaded count, and the precision is the one
    asked for."""
    place = Path(shutil.copytree(tiny_models.save("sd", models), tmp_path / "sd"))
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(str(place), dtype=torch.float16)
    pipeline.save_pretrained(place, variant="fp16")
    for original in (models / "sd").rglob("*.json"):  # saving notes the precision in some of them
        shutil.copyfile(original, place / original.relative_to(models / "sd"))
    plainly = config_for("sd", models)
    assert plainly.files().model.sha256 == config_for("sd", models, model=str(place)).files().model.sha256
    config = config_for("sd", models, model=str(place), variant="fp16", dtype="bfloat16")
    assert config.files().model.sha256 != plainly.files().model.sha256
    generator = loaded(config, sampling_for("sd"))
    assert generator.pipeline.unet.dtype == torch.bfloat16
    assert generator.identity()["dtype"] == "bfloat16"
    pixels, codes = generator.sample(generator.prepare(requests_for(sampling_for("sd"))))
    assert codes.tolist() == [0, 0, 0]
    assert pixels.float().std() > 5


def test_lossy_shortcuts_are_identity_and_change_the_image(models: Path) -> None:
    sampling = sampling_for("flux", steps=8)
    requests = requests_for(sampling)
    wanted = plain("flux", models, sampling, requests)
    cached = loaded(config_for("flux", models, step_cache={"name": "FirstBlockCache", "arguments": {"threshold": 0.9}}), sampling)
    assert not np.array_equal(cached.sample(cached.prepare(requests))[0].numpy(), wanted)
    quantised = loaded(config_for("flux", models, quantization={"backend": "layerwise_float8"}), sampling)
    pixels = quantised.sample(quantised.prepare(requests))[0].numpy().astype(int)
    assert not np.array_equal(pixels, wanted)
    assert np.abs(pixels - wanted).mean() < 20
    assert quantised.identity()["quantization"]["backend"] == "layerwise_float8"
    with pytest.raises(RequestError, match=r"generator.step_cache: StableDiffusionPipeline has no transformer"):
        loaded(config_for("sd", models, step_cache={"name": "FirstBlockCache"}), sampling_for("sd"))
    with pytest.raises(RequestError, match=r"generator.quantization.components: FluxPipeline has no 'unet'; it has .*transformer"):
        loaded(config_for("flux", models, quantization={"backend": "layerwise_float8", "components": ["unet"]}), sampling)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_image_to_image_form_keeps_precision_and_quantisation(dtype: str, models: Path) -> None:
    sampling = sampling_for("flux", real_guidance=RealGuidanceConfig(reference="x", strength=[0.5]))
    generator = loaded(config_for("flux", models, dtype=dtype), sampling)
    assert generator.pipeline.transformer.dtype == generator.pipeline.vae.dtype == getattr(torch, dtype)
    quantised = loaded(config_for("flux", models, dtype=dtype, quantization={"backend": "layerwise_float8"}), sampling)
    assert any(value.dtype == torch.float8_e4m3fn for value in quantised.pipeline.transformer.parameters())


def test_two_loras_of_one_folder_are_two(models: Path, tmp_path: Path) -> None:
    for number in (1, 2):
        saved = save_lora(tmp_path / str(number), models, seed=number) / "pytorch_lora_weights.safetensors"
        saved.rename(tmp_path / f"{number}.safetensors")
    loras = [{"model": str(tmp_path), "file": f"{number}.safetensors"} for number in (1, 2)]
    generator = loaded(config_for("sd", models, loras=loras), sampling_for("sd"))
    one, two = generator.identity()["loras"]
    assert (one["file"], two["file"]) == ("1.safetensors", "2.safetensors")
    assert one["sha256"] != two["sha256"]
    twice = loaded(config_for("sd", models, loras=[loras[1], loras[1]]), sampling_for("sd"))
    requests = requests_for(sampling_for("sd"))
    assert not torch.equal(generator.sample(generator.prepare(requests))[0], twice.sample(twice.prepare(requests))[0])


@pytest.mark.skipif(
    Version(version("transformers")) >= Version("5") and Version(version("peft")) < Version("0.22"),
    reason="transformers 5 takes adapters of text encoders from peft 0.22 on",
)
def test_a_flux_lora_reaches_the_text_encoder(models: Path, tmp_path: Path) -> None:
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    pipeline = diffusers.FluxPipeline.from_pretrained(str(tiny_models.save("flux", models)))
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(3)
    states = []
    for module in (pipeline.transformer, pipeline.text_encoder):
        targets = ["to_q", "to_v"] if module is pipeline.transformer else ["q_proj", "v_proj"]
        module.add_adapter(LoraConfig(r=2, lora_alpha=2, init_lora_weights=False, target_modules=targets))
        states.append({key: value * 3 for key, value in get_peft_model_state_dict(module).items()})
    diffusers.FluxPipeline.save_lora_weights(str(tmp_path), transformer_lora_layers=states[0], text_encoder_lora_layers=states[1])
    sampling = sampling_for("flux")
    generator = loaded(config_for("flux", models, loras=[{"model": str(tmp_path)}]), sampling)
    requests = requests_for(sampling)
    plainly = diffusers.FluxPipeline.from_pretrained(str(models / "flux"))
    plainly.set_progress_bar_config(disable=True)
    plainly.load_lora_weights(str(tmp_path))
    noise = [torch.Generator().manual_seed(request.seed) for request in requests]
    images = plainly(
        PROMPTS, height=16, width=16, guidance_scale=3.0, num_inference_steps=4, generator=noise, max_sequence_length=32
    ).images
    assert_equal(generator.sample(generator.prepare(requests))[0], np.stack([np.asarray(image) for image in images]))
