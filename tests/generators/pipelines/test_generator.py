"""A diffusers pipeline as a generator equals the plain call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthforge.errors import RequestError
from synthforge.generators.config import RealGuidanceConfig, SchedulerConfig
from tests.generators.pipelines.made import (
    assert_equal,
    config_for,
    loaded,
    plain,
    requests_for,
    sampling_for,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


TEXT = ["sd", "sdxl", "sd3", "flux"]


@pytest.mark.parametrize("name", ["sd", "sd-checked", "sdxl", "sd3", "flux", "dit", "unconditional"])
def test_every_family_equals_the_plain_call(name: str, models: Path) -> None:
    sampling = sampling_for(name)
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling)
    generator.learn_texts(sorted({(request.prompt, request.negative) for request in requests}))
    pixels, codes = generator.sample(generator.prepare(requests))
    assert codes.tolist() == [0, 0, 0]
    assert_equal(pixels, plain(name, models, sampling, requests))


@pytest.mark.parametrize("name", TEXT)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_starting_from_real_images_equals_the_plain_call(name: str, strength: float, models: Path) -> None:
    sampling = sampling_for(name, real_guidance=RealGuidanceConfig(reference="x", strength=[strength]))
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling)
    generator.learn_texts(sorted({(request.prompt, request.negative) for request in requests}))
    pixels, _ = generator.sample(generator.prepare(requests))
    assert_equal(pixels, plain(name, models, sampling, requests))
    assert "Img2Img" in generator.identity()["class"]


@pytest.mark.parametrize(
    ("name", "scheduler", "guidance"),
    [
        ("sd", "EulerAncestralDiscreteScheduler", 3.0),
        ("sd", "LCMScheduler", 1.0),
        ("sd", "DPMSolverMultistepScheduler", 3.0),
        ("sd", "DDPMScheduler", 0.0),
        ("sdxl", "EulerAncestralDiscreteScheduler", 0.0),
        ("sdxl", "LCMScheduler", 1.0),
        ("dit", "DPMSolverMultistepScheduler", 3.0),
        ("unconditional", "DDIMScheduler", 1.0),
    ],
)
def test_other_schedulers_and_no_guidance_equal_the_plain_call(name: str, scheduler: str, guidance: float, models: Path) -> None:
    sampling = sampling_for(name, scheduler=SchedulerConfig(name=scheduler), guidance=[guidance])
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling)
    pixels, _ = generator.sample(generator.prepare(requests))
    assert_equal(pixels, plain(name, models, sampling, requests))
    assert generator.identity()["scheduler"] == scheduler


@pytest.mark.parametrize("name", ["sd", "sdxl", "sd3"])
def test_negative_prompts_and_guidance(name: str, models: Path) -> None:
    sampling = sampling_for(name, guidance=[7.5])
    generator = loaded(config_for(name, models), sampling)
    requests = requests_for(sampling, negative="blurry")
    generator.learn_texts([("a cat", "blurry"), ("a dog and a house", "blurry")])
    pixels, _ = generator.sample(generator.prepare(requests))
    assert_equal(pixels, plain(name, models, sampling, requests))
    assert not np.array_equal(pixels.numpy(), plain(name, models, sampling, requests_for(sampling)))


def test_one_step_of_a_turbo_model(models: Path) -> None:
    sampling = sampling_for("sdxl", steps=1, guidance=[0.0])
    generator = loaded(config_for("sdxl", models), sampling)
    requests = requests_for(sampling)
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sdxl", models, sampling, requests))


def test_a_batch_is_the_same_whatever_it_is_made_with(models: Path) -> None:
    """Seeds belong to images: alone, in another order, or beside others, an image stays what it is."""
    sampling = sampling_for("sd", scheduler=SchedulerConfig(name="EulerAncestralDiscreteScheduler"))
    generator = loaded(config_for("sd", models), sampling)
    requests = requests_for(sampling)
    together = generator.sample(generator.prepare(requests))[0].numpy().astype(int)
    backwards = generator.sample(generator.prepare(requests[::-1]))[0].numpy().astype(int)
    alone = generator.sample(generator.prepare(requests[1:2]))[0].numpy().astype(int)
    assert np.abs(together - backwards[::-1]).max() <= 2
    assert np.abs(together[1:2] - alone).max() <= 2


def test_the_safety_checkers_verdict_is_a_code(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    sampling = sampling_for("sd")
    generator = loaded(config_for("sd-checked", models), sampling)
    original = StableDiffusionSafetyChecker.forward

    def flags_second(self: Any, clip_input: Any, images: Any) -> Any:
        images, _ = original(self, clip_input, images)
        images[1] = 0
        return images, [False, True, False]

    monkeypatch.setattr(StableDiffusionSafetyChecker, "forward", flags_second)
    _, codes = generator.sample(generator.prepare(requests_for(sampling)))
    assert codes.tolist() == [0, 2, 0]
    unchecked = loaded(config_for("sd-checked", models, safety_checker=False), sampling)
    assert unchecked.sample(unchecked.prepare(requests_for(sampling)))[1].tolist() == [0, 0, 0]
    assert unchecked.identity()["safety_checker"] is False


def test_images_that_are_not_finite_are_named(models: Path) -> None:
    sampling = sampling_for("sd")
    generator = loaded(config_for("sd", models), sampling)
    original = generator.decoder._decode

    def broken(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sample = original(latents, *args, **kwargs)[0].clone()
        sample[0, 0, 0, 0], sample[2, 1, 3, 3] = float("nan"), float("inf")
        return (sample,)

    generator.decoder._decode = broken
    assert generator.sample(generator.prepare(requests_for(sampling)))[1].tolist() == [1, 0, 1]


def test_noise_that_no_seed_decides_is_refused(models: Path) -> None:
    with pytest.raises(RequestError, match=r"sampling.scheduler: DiTPipeline hands no random generator to DDPMScheduler"):
        loaded(config_for("dit", models), sampling_for("dit", scheduler=SchedulerConfig(name="DDPMScheduler")))
    sampling = sampling_for(
        "sd3", scheduler=SchedulerConfig(name="FlowMatchEulerDiscreteScheduler", arguments={"stochastic_sampling": True})
    )
    generator = loaded(config_for("sd3", models), sampling)
    with pytest.raises(RequestError, match=r"draws noise that no seed decides"):
        generator.sample(generator.prepare(requests_for(sampling)))


def test_a_negative_prompt_where_none_is_taken(models: Path) -> None:
    sampling = sampling_for("flux", real_guidance=None)
    generator = loaded(config_for("flux", models), sampling)
    generator._parameters = {name: value for name, value in generator._parameters.items() if name != "negative_prompt"}  # type: ignore[assignment]
    with pytest.raises(RequestError, match=r"prompts.negative: FluxPipeline takes no negative prompt"):
        generator.learn_texts([("a", "b")])


def test_a_resolution_that_the_pipeline_rounds_is_refused(models: Path) -> None:
    sampling = sampling_for("flux", resolution=18)
    generator = loaded(config_for("flux", models), sampling)
    with pytest.raises(RequestError, match=r"sampling.resolution: FluxPipeline makes 16 x 16 instead of 18"):
        generator.sample(generator.prepare(requests_for(sampling)))


def test_texts_that_the_pipeline_can_not_take_are_one_line(models: Path) -> None:
    generator = loaded(config_for("flux", models, arguments={"max_sequence_length": 1024}), sampling_for("flux"))
    with pytest.raises(RequestError, match=r"^generator: FluxPipeline does not take what the recipe asks of it \(.*1024"):
        generator.learn_texts([("a cat", None)])
