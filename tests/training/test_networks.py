"""The small residual classifier."""

from __future__ import annotations

import pytest
import torch

from synthforge.training.networks import Classifier, resolution_for


@pytest.mark.parametrize(("resolution", "width", "dim"), [(8, 8, 16), (12, 8, 32), (16, 8, 32), (28, 8, 32), (64, 8, 32)])
def test_classifiers_of_every_size(resolution: int, width: int, dim: int) -> None:
    classifier = Classifier(resolution, width, 3)
    images = torch.rand(2, 3, resolution, resolution)
    assert classifier.features(images).shape == (2, dim)
    assert classifier(images).shape == (2, 3)


def test_small_networks_see_images_at_a_multiple_of_four() -> None:
    assert [resolution_for(side) for side in (3, 8, 11, 28, 31, 64, 500)] == [8, 8, 8, 28, 28, 64, 64]
    assert resolution_for(500, most=32) == 32
