"""The training loop: averaged weights, joined parameters, losses that are not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from synthforge.training.config import LoopConfig
from synthforge.training.data import seeded
from synthforge.training.loop import Batch, TrainingLoop


@pytest.mark.trains
def test_averaged_weights_follow_and_smooth() -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(1, 1)

    def loss(network: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        x = torch.randn(64, 1, generator=generator)
        return (network(x) - (3 * x + 1)).square().mean()

    loop = TrainingLoop(network, lambda step: (), loss, LoopConfig(images=64_000, batch=64, checks=2, learning_rate=0.02))
    assert list(loop.run()) == [500, 1000]
    assert float(loop.ema.weight) == pytest.approx(3, abs=0.02)
    assert float(loop.ema.bias) == pytest.approx(1, abs=0.02)
    assert not torch.equal(loop.ema.weight, network.weight)


def test_joined_parameters_are_trained_as_single_ones_are_and_kept_as_such(tmp_path: Path) -> None:
    def network() -> torch.nn.Module:
        torch.manual_seed(0)
        layers = [torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(180, 2)]
        layers[3].bias.requires_grad_(False)
        return torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)

    images = torch.randn(16, 3, 8, 8, generator=seeded("images"))

    def loss(network: torch.nn.Module, batch: Batch, generator: torch.Generator) -> torch.Tensor:
        return network(images).square().mean()

    config = LoopConfig(images=12 * 16, batch=16, checks=2)
    checkpoint = tmp_path / "checkpoint.safetensors"
    whole = TrainingLoop(network(), lambda step: (), loss, config)
    single = network().train()
    optimizer = torch.optim.AdamW(
        [parameter for parameter in single.parameters() if parameter.requires_grad], betas=(0.9, 0.99), weight_decay=config.weight_decay
    )
    done = 0
    for step in whole.run():
        for number in range(done, step):
            whole.step = number
            optimizer.param_groups[0]["lr"] = whole._rate()
            optimizer.zero_grad()
            loss(single, (), torch.Generator()).backward()
            optimizer.step()
        whole.step = done = step
        for ours, plain in zip(whole.network.parameters(), single.parameters(), strict=True):
            assert ours.stride() == plain.stride()
            torch.testing.assert_close(ours, plain)

    killed = TrainingLoop(network(), lambda step: (), loss, config, checkpoint)
    for step in killed.run():
        if step == 12:
            break  # only the first check is written
    kept = load_file(checkpoint)
    trained = [parameter for parameter in single.parameters() if parameter.requires_grad]
    assert [kept[f"optimizer.{number}.exp_avg"].shape for number in range(3)] == [parameter.shape for parameter in trained]
    resumed = TrainingLoop(network(), lambda step: (), loss, config, checkpoint)
    assert resumed.resume()
    assert list(resumed.run()) == [12]
    for ours, undisturbed in zip(resumed.network.state_dict().values(), whole.network.state_dict().values(), strict=True):
        assert torch.equal(ours, undisturbed)


def test_a_loss_that_is_not_finite_stops_the_fit() -> None:
    from synthforge.errors import WorkError

    network = torch.nn.Linear(1, 1)
    loop = TrainingLoop(
        network,
        lambda step: (torch.ones(1, 1),),
        lambda net, batch, generator: net(*batch).sum() * float("nan"),
        LoopConfig(images=100, batch=1, checks=1),
    )
    with pytest.raises(WorkError, match="not finite"):
        list(loop.run())
