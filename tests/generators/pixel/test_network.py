"""The denoiser."""

from __future__ import annotations

import pytest
import torch

from synthforge.generators.pixel.network import PixelDenoiser, body_for


@pytest.mark.parametrize("resolution", range(8, 65, 4))
def test_the_network_that_suits_a_resolution_takes_it(resolution: int) -> None:
    network = PixelDenoiser(resolution, 1, ["cat"], **{**body_for(resolution), "width": 8, "depth": 1})
    sample = torch.zeros(1, 1, resolution, resolution)
    assert network(sample, torch.zeros(1), torch.zeros(1, dtype=torch.long)).shape == sample.shape
