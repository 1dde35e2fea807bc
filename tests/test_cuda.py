"""On a CUDA GPU: captured steps do what steps one by one do, and the same seed gives the same result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from synthforge.data.images import encode
from synthforge.evaluation.trainer.train import TrainingSet, predict, train
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.generators.pixel.fit import fit
from synthforge.recipe.evaluation import MixingConfig, TrainerAugmentConfig, TrainerConfig
from synthforge.training.config import LoopConfig
from synthforge.training.loop import Batch, TrainingLoop

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU"),
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("default"),  # the compiler of some versions warns of its own code, and of float32 products
]
CUDA = torch.device("cuda")


def looped(capture: bool, *, steps: int, precision: str = "float32") -> tuple[list[float], Tensor]:
    """Losses and averaged weights of a network with dropout, batch norm and noise from the step's generator."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(2)).to(CUDA)
    network(torch.zeros(2, 3, 8, 8, device=CUDA))
    images = torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(CUDA)

    def batch_of(step: int) -> Batch:
        rows = (torch.arange(16, device=CUDA) + 16 * step) % 64
        return images[rows], rows % 2

    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        noise = torch.randn(batch[0].shape, generator=generator, device=CUDA)
        return nn.functional.cross_entropy(network(batch[0] + 0.1 * noise).float(), batch[1])

    config = LoopConfig(images=16 * steps, batch=16, checks=1, compile=False, precision=precision)  # type: ignore[arg-type]
    loop = TrainingLoop(network, batch_of, loss, config, capture=capture)
    loop.network.train()
    losses = [float(loop._train_step()) for _ in range(steps)]
    return losses, torch.cat([parameter.flatten() for parameter in loop.ema.parameters()])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_captured_steps_are_those_one_by_one(precision: str) -> None:
    (eager, eager_weights), (captured, weights) = looped(False, steps=12, precision=precision), looped(True, steps=12, precision=precision)
    assert captured == pytest.approx(eager, rel=2e-3)
    assert torch.allclose(weights, eager_weights, atol=2e-3)
    assert len(set(captured)) == 12  # noise and dropout are drawn anew in every replay


def test_same_seed_same_captured_steps() -> None:
    first, again = looped(True, steps=30), looped(True, steps=30)
    assert first[0] == again[0]
    assert torch.equal(first[1], again[1])


def digits_set(num: int) -> tuple[TrainingSet, np.ndarray, np.ndarray]:
    """Ten kinds of bars, of which each is a class."""
    rng = np.random.default_rng(0)
    label_N = np.arange(num) % 10
    images = rng.integers(0, 80, (num, 8, 8)).astype(np.uint8)
    for image, label in zip(images, label_N, strict=True):
        (image if label < 5 else image.T)[1 + label % 5] = 255
    files = [encode(image[:, :, None], "png", 100, marking=False) for image in images]
    given = TrainingSet(label_N, np.arange(num) < num // 2, np.ones(num), lambda rows: [files[row] for row in rows])
    return given, np.repeat(images[:, None], 3, axis=1), label_N


@pytest.mark.trains
@pytest.mark.parametrize("policy", ["pooled", "weighted", "synthetic-then-real", "split-norm"])
@pytest.mark.parametrize("compiled", [False, True])
def test_the_trainer_learns_and_repeats(policy: str, compiled: bool) -> None:
    given, images_NCHW, label_N = digits_set(400)
    augment = TrainerAugmentConfig(shift=0.0, rotate=2.0, erase=0.2, mixup=0.2)
    config = TrainerConfig(resolution=8, width=16, batch=32, steps=300, learning_rate=1e-2, augment=augment, compile=compiled)
    found = []
    for _ in range(2):
        network = train(config, MixingConfig(policy=policy), given, 10, 0, CUDA)  # type: ignore[arg-type]
        found.append(predict(network, images_NCHW, label_N, CUDA))
    assert (found[0].predicted_V == label_N).mean() > 0.95
    assert (found[0].probability_V == found[1].probability_V).all()


def test_streamed_images_give_the_same_result() -> None:
    given, images_NCHW, label_N = digits_set(400)
    config = TrainerConfig(resolution=8, width=16, batch=32, steps=60, learning_rate=1e-2, compile=False)
    found = [
        predict(train(one, MixingConfig(), given, 10, 0, CUDA), images_NCHW, label_N, CUDA).probability_V
        for one in (config, config.model_copy(update={"resident_gib": 0.0}))
    ]
    assert (found[0] == found[1]).all()


@pytest.mark.parametrize("body", ["mlp", "unet"])
def test_a_generator_is_fitted_the_same_again(tmp_path: Path, body: str) -> None:
    reports = []
    for name in ("one", "two"):
        config = PixelFitConfig(
            per_class=20, body=body, width=32, depth=2, loop=LoopConfig(images=64 * 60, batch=64, checks=2, compile=body == "unet")
        )  # type: ignore[arg-type]
        fit("builtin:digits/reference", tmp_path / name, config)
        reports.append([path.read_bytes() for path in sorted((tmp_path / name).rglob("*.safetensors"))])
    assert reports[0]
    assert reports[0] == reports[1]
