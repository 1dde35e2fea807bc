"""Images on the device, in an order decided by seed and step."""

from __future__ import annotations

import torch

from synthforge.training.data import DeviceImages


def test_every_image_comes_once_before_any_comes_again() -> None:
    data = DeviceImages(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), torch.device("cpu"))
    seen = torch.cat([data.batch(step, 4, seed=3)[1] for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(data.batch(3, 4, seed=3)[1], seen[12:16])
    large = data.batch(0, 25, seed=3)[1]  # a batch larger than the data
    assert torch.bincount(large).tolist().count(3) == 5
    assert data.batch(0, 10, seed=0)[0].abs().max() <= 1
