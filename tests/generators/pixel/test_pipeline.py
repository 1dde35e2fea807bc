"""PixelPipeline as a diffusers pipeline."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from synthforge.generators.pixel.network import PixelDenoiser
from synthforge.generators.pixel.pipeline import PixelPipeline
from tests.generators.pixel.made import BUILTIN, noise


def tiny(objective: str = "edm", body: str = "unet", resolution: int = 16, channels: int = 3, guide: bool = True) -> PixelPipeline:
    torch.manual_seed(0)
    networks = []
    for _ in range(2):
        network = PixelDenoiser(resolution, channels, ["cat", "dog"], body, 16, 1, 1 if body == "mlp" else 2, 7, objective).eval()
        for parameter in network.parameters():  # zero-initialised layers would hide everything
            torch.nn.init.normal_(parameter, std=0.2)
        networks.append(network)
    scheduler = (
        diffusers.EDMDPMSolverMultistepScheduler(sigma_data=0.5) if objective == "edm" else diffusers.FlowMatchEulerDiscreteScheduler()
    )
    pipeline = PixelPipeline(networks[0], scheduler, networks[1] if guide else None)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.parametrize("objective", ["edm", "flow"])
@pytest.mark.parametrize(("body", "resolution", "channels"), [("mlp", 8, 1), ("unet", 8, 1), ("unet", 32, 3), ("unet", 64, 3)])
def test_saves_and_loads_like_any_pipeline(tmp_path: Path, objective: str, body: str, resolution: int, channels: int) -> None:
    pipeline = tiny(objective, body, resolution, channels)
    arguments = {"num_inference_steps": 3, "guidance_scale": 2.0, "output_type": "np"}
    before = pipeline(["cat", 1], generator=noise(1, 2), **arguments).images
    pipeline.save_pretrained(tmp_path)
    assert sorted(path.suffix for path in (tmp_path / "denoiser").iterdir()) == [".json", ".safetensors"]
    again = PixelPipeline.from_pretrained(tmp_path, local_files_only=True)
    again.set_progress_bar_config(disable=True)
    assert np.array_equal(before, again(["cat", 1], generator=noise(1, 2), **arguments).images)
    assert before.shape == (2, resolution, resolution, channels)
    assert 0 <= before.min() <= before.max() <= 1


def test_half_precision_files_load_as_float32() -> None:
    pipeline = PixelPipeline.from_pretrained(BUILTIN)
    assert pipeline.denoiser.dtype == torch.float32
    assert isinstance(pipeline, DiffusionPipeline)


def test_noise_of_an_image_depends_on_its_own_seed_alone() -> None:
    pipeline = tiny()
    together = pipeline(["cat", "dog", "cat"], generator=noise(5, 6, 7), num_inference_steps=3, output_type="np").images
    alone = pipeline(["dog"], generator=noise(6), num_inference_steps=3, output_type="np").images
    assert np.abs(together[1] - alone[0]).max() < 1e-4
    other = pipeline(["dog"], generator=noise(8), num_inference_steps=3, output_type="np").images
    assert np.abs(together[1] - other[0]).max() > 0.05


def test_guidance_moves_away_from_the_guide() -> None:
    """On raw outputs: unguided + (scale - 1) x (unguided - guide), for both guides; scale 1 is no guidance, exactly."""
    pipeline = tiny()
    sample, time = torch.randn(2, 3, 16, 16), torch.tensor([0.1, 0.1])
    labels, null = torch.tensor([0, 1]), torch.tensor([2, 2])
    plain = pipeline.denoiser(sample, time, labels)
    for guided_by, away in (
        ("unconditional", pipeline.denoiser(sample, time, null)),
        ("less_trained", pipeline.guide(sample, time, labels)),
    ):
        guided = pipeline._guided(sample, time, labels, 3.0, guided_by)
        assert torch.allclose(guided, plain + 2 * (plain - away), atol=1e-5)
        assert torch.equal(pipeline._guided(sample, time, labels, 1.0, guided_by), plain)
    with pytest.raises(ValueError, match="without a less trained copy"):
        tiny(guide=False)(["cat"], guidance_scale=2.0, guided_by="less_trained")


@pytest.mark.parametrize("objective", ["edm", "flow"])
def test_image_to_image_keeps_more_at_lower_strength(objective: str) -> None:
    """With a denoiser that was really fitted: the built-in one for EDM; any for flow, where only the noising is
    compared."""
    if objective == "edm":
        pipeline = PixelPipeline.from_pretrained(BUILTIN)
        pipeline.set_progress_bar_config(disable=True)
        labels = [3] * 16
    else:
        pipeline, labels = tiny("flow", "mlp", 8, 1), [0] * 16
    config = pipeline.denoiser.config
    source = torch.rand(16, config.channels, config.resolution, config.resolution, generator=torch.Generator().manual_seed(0))
    distance = []
    for strength in (0.05, 0.5, 1.0):
        made = pipeline(
            labels, image=source, strength=strength, generator=noise(*range(16)), num_inference_steps=20, output_type="pt"
        ).images
        distance.append(float((made - source).abs().mean()))
    assert distance[0] < distance[1]
    assert distance[0] < distance[2]
    as_pil = pipeline.numpy_to_pil(source.permute(0, 2, 3, 1).numpy())
    assert (
        pipeline(labels, image=as_pil, strength=0.5, generator=noise(*range(16)), num_inference_steps=4, output_type="pt").images.shape
        == source.shape
    )
    with pytest.raises(ValueError, match="one for each label"):
        pipeline(labels[:3], image=source)


def test_wrong_calls_say_what_is_wrong() -> None:
    pipeline = tiny()
    with pytest.raises(ValueError, match="no class 'owl'; there are cat, dog"):
        pipeline(["owl"])
    with pytest.raises(ValueError, match="label 9"):
        pipeline([9])
    with pytest.raises(ValueError, match="needs a EDM scheduler"):
        PixelPipeline(pipeline.denoiser, diffusers.FlowMatchEulerDiscreteScheduler())
