"""The families of pipelines that diffusers knows."""

from __future__ import annotations

import diffusers

from synthforge.generators.pipelines.families import DIT, UNCONDITIONAL, image_to_image_class, text_to_image_classes


def test_the_classes_are_those_of_diffusers() -> None:
    names = text_to_image_classes()
    assert len(names) > 20 and not names.keys() & (DIT | UNCONDITIONAL)
    assert all(hasattr(diffusers, name) for name in [*names, *DIT, *UNCONDITIONAL])


def test_an_image_to_image_form_is_found_where_there_is_one() -> None:
    assert image_to_image_class("StableDiffusionPipeline") == "StableDiffusionImg2ImgPipeline"
    assert image_to_image_class("PixArtSigmaPipeline") is None
    assert image_to_image_class("DiTPipeline") is None
