"""The small residual classifier."""

from __future__ import annotations

import pytest
import torch

from synthforge.training.networks import Classifier


@pytest.mark.parametrize(("resolution", "width", "dim"), [(8, 8, 16), (12, 8, 32), (16, 8, 32), (28, 8, 32), (64, 8, 32)])
def test_classifiers_of_every_size(resolution: int, width: int, dim: int) -> None:
    classifier = Classifier(resolution, width, 3)
    images = torch.rand(2, 3, resolution, resolution)
    assert classifier.features(images).shape == (2, dim)
    assert classifier(images).shape == (2, 3)
