"""A network on its device."""

from __future__ import annotations

import pytest
import torch

from synthforge.errors import RequestError
from synthforge.features.encoders.network import DeviceNetwork


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(RequestError, match="encoder: cuda:99 is not on this machine"):
        DeviceNetwork(
            torch.nn.Identity(), lambda images: images, device="cuda:99", precision="auto", mean=[0.5], std=[0.5], where="encoder"
        )
