"""The pixel pipeline as a diffusers pipeline: saving, loading, guidance, image-to-image, seeds, schedulers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

from synthforge.data.storage import resolve
from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import SamplingConfig, SchedulerConfig
from synthforge.generators.pixel.config import PixelConfig
from synthforge.generators.pixel.generator import PixelGenerator
from synthforge.generators.pixel.network import PixelDenoiser, body_for
from synthforge.generators.pixel.pipeline import PixelPipeline
from synthforge.generators.protocol import ImageRequest

BUILTIN = resolve("builtin:digits/generator")


@pytest.mark.parametrize("resolution", range(8, 65, 4))
def test_the_network_that_suits_a_resolution_takes_it(resolution: int) -> None:
    network = PixelDenoiser(resolution, 1, ["cat"], **{**body_for(resolution), "width": 8, "depth": 1})
    sample = torch.zeros(1, 1, resolution, resolution)
    assert network(sample, torch.zeros(1), torch.zeros(1, dtype=torch.long)).shape == sample.shape


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


def noise(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


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
    """With a denoiser that was really fitted: the built-in one for EDM; any for flow, where only the noising is compared."""
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


def loaded(config: PixelConfig, sampling: SamplingConfig, device: str = "cpu", labels: tuple[str, ...] = ("1",)) -> PixelGenerator:
    """As a run does it: files, then what they say, then the weights."""
    files = config.files()
    config.check(files, sampling, labels)
    return config.build(files, sampling, device)  # type: ignore[return-value]


def requests(*seeds: int, guidance: float = 1.5) -> list[ImageRequest]:
    return [ImageRequest(seed, str(seed % 10), "", None, guidance) for seed in seeds]


@pytest.mark.parametrize("guide", ["unconditional", "less_trained"])
def test_an_engine_image_is_what_the_plain_call_gives(guide: str) -> None:
    config = PixelConfig(kind="pixel", model=BUILTIN, guide=guide)  # type: ignore[arg-type]
    generator = loaded(config, SamplingConfig(steps=5))
    pixels, codes = generator.sample(generator.prepare(requests(11, 12, 13)))
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 8, 8, 1)
    assert not codes.any()
    pipeline = PixelPipeline.from_pretrained(BUILTIN)
    pipeline.set_progress_bar_config(disable=True)
    plain = pipeline(["1", "2", "3"], num_inference_steps=5, guidance_scale=1.5, guided_by=guide, generator=noise(11, 12, 13)).images
    assert np.array_equal(pixels[..., 0].numpy(), np.stack([np.asarray(image) for image in plain]))


@pytest.mark.parametrize("name", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
def test_schedulers_by_name_with_arguments(name: str) -> None:
    sampling = SamplingConfig(steps=4, scheduler=SchedulerConfig(name=name, arguments={"rho": 5.0}))
    generator = loaded(PixelConfig(kind="pixel", model=BUILTIN), sampling)
    assert type(generator.pipeline.scheduler).__name__ == name
    assert generator.identity()["scheduler_config"]["rho"] == 5.0
    assert generator.sample(generator.prepare(requests(1, 2)))[0].float().std() > 10


def test_settings_that_do_not_fit_the_model_are_refused() -> None:
    config = PixelConfig(kind="pixel", model=BUILTIN)
    cases = {
        "the model makes 8 px, not 32": SamplingConfig(resolution=32),
        "use one of EDMDPMSolverMultistepScheduler, EDMEulerScheduler": SamplingConfig(scheduler=SchedulerConfig(name="DDIMScheduler")),
        "no such argument; did you mean 'rho'": SamplingConfig(scheduler=SchedulerConfig(name="EDMEulerScheduler", arguments={"roh": 1})),
    }
    for message, sampling in cases.items():
        with pytest.raises(RequestError, match=message):
            loaded(config, sampling)
    with pytest.raises(RequestError, match="no class 'ten'"):
        loaded(config, SamplingConfig(), labels=("1", "ten"))
    if not torch.cuda.is_available():
        with pytest.raises(RequestError, match="is not on this machine"):
            loaded(config, SamplingConfig(), device="cuda")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUILTIN, tmp_path / "model"))


def load(folder: Path, **config: object) -> None:
    loaded(PixelConfig(kind="pixel", model=str(folder), **config), SamplingConfig())  # type: ignore[arg-type]


def test_pickles_are_refused_by_name_and_by_content(model: Path) -> None:
    weights = model / "denoiser" / "diffusion_pytorch_model.safetensors"
    torch.save({"x": torch.zeros(1)}, weights)  # a pickle under an honest name
    with pytest.raises(ModelError, match="can't be loaded"):
        load(model)
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(ModelError, match=r"as a pickle \(diffusion_pytorch_model.bin\).*only safetensors"):
        load(model)


@pytest.mark.parametrize("damage", ["truncated", "no index", "index", "config", "scheduler", "other class", "gone"])
def test_damaged_models_are_refused_in_one_line(model: Path, damage: str) -> None:
    weights = model / "denoiser" / "diffusion_pytorch_model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no index":
        (model / "model_index.json").unlink()
    elif damage == "index":
        (model / "model_index.json").write_text("{")
    elif damage == "config":
        (model / "denoiser" / "config.json").write_text("{")
    elif damage == "scheduler":
        shutil.rmtree(model / "scheduler")
    elif damage == "other class":
        index = json.loads((model / "model_index.json").read_text())
        index["denoiser"] = ["diffusers", "UNet2DModel"]
        (model / "model_index.json").write_text(json.dumps(index))
    else:
        shutil.rmtree(model)
    with pytest.raises(ModelError, match=r"^generator\.model: ") as caught:
        load(model)
    assert "\n" not in str(caught.value)


def test_autoguidance_needs_the_copy(model: Path) -> None:
    shutil.rmtree(model / "guide")
    index = json.loads((model / "model_index.json").read_text())
    index["guide"] = [None, None]
    (model / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="saved without a less trained copy"):
        load(model, guide="less_trained")


def test_hub_ids_load_from_the_hubs_cache(tmp_path: Path) -> None:
    """The real hub code, on a cache laid out as the hub's own client does; the commit becomes the revision."""
    import os
    import subprocess
    import sys

    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--someone--digits"
    shutil.copytree(BUILTIN, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    code = (
        "from synthforge.data.model_files import find_model\n"
        "files = find_model('someone/digits')\n"
        f"assert files.revision == '{commit}', files\n"
        "assert files.sha256 == find_model('builtin:digits/generator').sha256\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)})
