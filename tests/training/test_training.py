"""The shared parts of fitting: order of data, augmentation, averaging, distances."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synthforge.training.augmentation import AUGMENT_DIM, augment
from synthforge.training.config import AugmentConfig, LoopConfig
from synthforge.training.data import DeviceImages, seeded
from synthforge.training.loop import Batch, TrainingLoop
from synthforge.training.memorising import coverage, memorising, nearest


def test_every_image_comes_once_before_any_comes_again() -> None:
    data = DeviceImages(torch.arange(10, dtype=torch.uint8).view(10, 1, 1, 1), torch.arange(10), torch.device("cpu"))
    seen = torch.cat([data.batch(step, 4, seed=3)[1] for step in range(5)])
    assert sorted(seen[:10].tolist()) == sorted(seen[10:].tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()
    assert torch.equal(data.batch(3, 4, seed=3)[1], seen[12:16])
    large = data.batch(0, 25, seed=3)[1]  # a batch larger than the data
    assert torch.bincount(large).tolist().count(3) == 5
    assert data.batch(0, 10, seed=0)[0].abs().max() <= 1


def test_augmentation_is_off_at_zero_and_told_by_its_vector() -> None:
    images = torch.rand(64, 1, 8, 8) * 2 - 1
    same, vector = augment(images, AugmentConfig(share=0.0), seeded("a", 1))
    assert torch.equal(same, images)
    assert vector.shape == (64, AUGMENT_DIM)
    assert not vector.any()
    moved, vector = augment(images, AugmentConfig(share=0.5), seeded("a", 1))
    touched = vector.abs().sum(dim=1) > 0
    assert touched.tolist() == [True] * 32 + [False] * 32
    assert torch.equal(moved[~touched], images[~touched])
    assert (moved[touched] - images[touched]).abs().flatten(1).mean(dim=1).min() > 0
    again = augment(images, AugmentConfig(share=0.5), seeded("a", 1))
    assert torch.equal(moved, again[0])


def test_flip_mirrors() -> None:
    images = torch.rand(200, 1, 8, 8)
    still = AugmentConfig(share=1.0, shift=0.0, scale=0.0, rotate=0.0, shear=0.0, flip=True)
    moved, vector = augment(images, still, seeded("f", 1))
    flipped = vector[:, -1] > 0
    assert 60 < int(flipped.sum()) < 140
    assert torch.allclose(moved[flipped], images[flipped].flip(3), atol=1e-5)
    assert torch.allclose(moved[~flipped], images[~flipped], atol=1e-5)


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


def test_copies_are_told_from_neighbours() -> None:
    rng = np.random.default_rng(0)
    fitted = torch.from_numpy(rng.normal(128, 40, (300, 64)).astype(np.float32))
    fresh = torch.from_numpy(rng.normal(128, 40, (1000, 64)).astype(np.float32))
    copies = fitted[rng.integers(0, 300, 1000)] + torch.from_numpy(rng.normal(0, 2, (1000, 64)).astype(np.float32))
    honest, copied = memorising(fresh, fitted), memorising(copies, fitted)
    assert honest.near_copies < 0.12
    assert honest.near_copies_real == pytest.approx(0.05, abs=0.01)
    assert copied.near_copies > 0.99
    assert copied.excess > 20
    assert copied.median_distance < 5 < copied.median_distance_real


def test_nearest_agrees_with_scikit_learn() -> None:
    from sklearn.neighbors import NearestNeighbors

    rng = np.random.default_rng(1)
    rows, others = rng.normal(size=(1500, 12)).astype(np.float32), rng.normal(size=(800, 12)).astype(np.float32)
    expected = NearestNeighbors(n_neighbors=1).fit(others).kneighbors(rows)[0][:, 0]
    assert np.allclose(nearest(torch.from_numpy(rows), torch.from_numpy(others)), expected, atol=1e-3)
    expected = NearestNeighbors(n_neighbors=2).fit(rows).kneighbors(rows)[0][:, 1]
    assert np.allclose(nearest(torch.from_numpy(rows), torch.from_numpy(rows), leave_one_out=True), expected, atol=1e-3)


def test_coverage_of_a_half_is_a_half() -> None:
    rng = np.random.default_rng(2)
    real = torch.from_numpy(np.concatenate([rng.normal(0, 1, (200, 8)), rng.normal(100, 1, (200, 8))]).astype(np.float32))
    generated = torch.from_numpy(rng.normal(0, 1, (2000, 8)).astype(np.float32))
    assert coverage(generated, real) == pytest.approx(0.5, abs=0.03)
    assert coverage(real, real) == 1.0
