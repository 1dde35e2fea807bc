"""The families of pipelines that diffusers knows."""

from __future__ import annotations

import diffusers

from synthforge.generators.pipelines.families import (
    DIT,
    UNCONDITIONAL,
    call_parameters,
    guides_above,
    image_to_image_class,
    text_to_image_classes,
)


def test_the_classes_are_those_of_diffusers() -> None:
    names = text_to_image_classes()
    assert len(names) > 20 and not names.keys() & (DIT | UNCONDITIONAL)
    assert all(hasattr(diffusers, name) for name in [*names, *DIT, *UNCONDITIONAL])


def test_an_image_to_image_form_is_found_where_there_is_one() -> None:
    assert image_to_image_class("StableDiffusionPipeline") == "StableDiffusionImg2ImgPipeline"
    assert image_to_image_class("PixArtSigmaPipeline") is None
    assert image_to_image_class("DiTPipeline") is None


def test_above_which_value_guidance_begins_is_read_from_the_pipelines() -> None:
    for name in ("StableDiffusionPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusion3Pipeline", "PixArtSigmaPipeline"):
        assert guides_above(name, "guidance_scale") == 1
    assert guides_above("ZImagePipeline", "guidance_scale") == 0
    assert guides_above("FluxPipeline", "true_cfg_scale") == guides_above("QwenImagePipeline", "true_cfg_scale") == 1
    assert guides_above("KandinskyCombinedPipeline", "guidance_scale") is None
    assert call_parameters("StableDiffusion3Pipeline")["max_sequence_length"].default == 256
