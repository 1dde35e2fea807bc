"""The bundled trainer: images per second over a bare PyTorch loop, and what it reaches on all of Fashion-MNIST.

The bare loop is written by hand with the same network, batch, schedule, augmentation and precision, its data on the
device; it takes no averaged weights, does not count progress, and draws from one generator instead of one for each
step. On a GPU both are compiled. Beside it, on a GPU: airbench94 (Jordan 2024, arXiv 2404.00498), the published
speed-run recipe for CIFAR-10, if `airbench` is installed. CIFAR-10 itself is not at hand, so both are trained on 50,000
images of Fashion-MNIST with a border that makes them CIFAR-10's size, and tested on its test images.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from benchmarks import fashion
from benchmarks.harness import keep, paired, seconds, spread
from synthforge.data.images import encode
from synthforge.evaluation.trainer.loader import decoded
from synthforge.evaluation.trainer.train import TrainingSet, predict, train
from synthforge.recipe.evaluation import MixingConfig, TrainerAugmentConfig, TrainerConfig
from synthforge.training.networks import Classifier

PAIRS = int(os.environ.get("PAIRS", "9"))
CLAIM = "trainer over a bare PyTorch loop of the same network: at least 0.95 images per second"
FASHION_CLAIM = (
    "accuracy on the test images of Fashion-MNIST after training on all 60,000: that of equally small networks of its public list"
)
LISTED = {
    "2 convolutions, fewer than 100,000 parameters": 0.925,
    "2 convolutions, 113,000 parameters": 0.922,
    "2 convolutions, mirrored, moved and turned": 0.919,
    "2 convolutions and 3 linear layers, 1.8 million parameters": 0.932,
    "DenseNet-BC, 768,000 parameters, cropped and mirrored": 0.954,
}
"""From github.com/zalandoresearch/fashion-mnist, as their authors gave them; not run here."""
MOVED = TrainerAugmentConfig(share=1)

SIZES = {
    "digits, 8 px": TrainerConfig(resolution=8, width=16, batch=32, steps=1000, augment=MOVED),
    "Fashion-MNIST, 28 px": TrainerConfig(resolution=28, width=24, batch=64, steps=300, augment=MOVED),
}
GPU_SIZES = {
    "digits, 8 px": TrainerConfig(resolution=8, width=16, batch=32, steps=1000, augment=MOVED),
    "Fashion-MNIST, 28 px": TrainerConfig(resolution=28, width=24, batch=64, steps=1000, augment=MOVED),
    "size of CIFAR-10, 32 px": TrainerConfig(resolution=32, width=64, batch=512, steps=500, augment=MOVED),
}


def whole(width: int, batch: int, passes: int) -> TrainerConfig:
    """Over all 60,000 images so many times, as they are; in few passes moved and mirrored ones did worse."""
    augment = TrainerAugmentConfig(share=0)
    steps = math.ceil(60_000 * passes / batch)
    return TrainerConfig(resolution=28, width=width, batch=batch, steps=steps, learning_rate=1e-2, augment=augment)


WHOLE = {"cuda": {f"width {width}": whole(width, 512, 25) for width in (24, 64)}, "cpu": {"width 16": whole(16, 128, 12)}}
SPEED_RUN = TrainerConfig(
    resolution=32, width=64, batch=512, steps=980, learning_rate=1e-2, augment=TrainerAugmentConfig(flip=True, rotate=0, shear=0, scale=0)
)
"""Ten passes over 50,000 images."""


def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    found: dict[str, Any] = {"threads": 1}
    for name, config in (GPU_SIZES if device.type == "cuda" else SIZES).items():
        found[name] = over_bare(config, device)
        print(name, found[name], flush=True)
    if device.type == "cuda" and fashion.is_there():
        found["ten passes over 50,000 images of CIFAR-10's size"] = speed_run(device)
    keep("trainer", CLAIM, found, part=device.type)
    if fashion.is_there():
        keep("trainer", FASHION_CLAIM, whole_fashion(device), part=f"fashion-{device.type}")


def training_set(images: NDArray[np.uint8], labels: NDArray[np.int64]) -> TrainingSet:
    """Encoded as a dataset holds them; images uint8 (N, H, W)."""
    files = [encode(image[:, :, None], "png", 100, marking=False) for image in images]
    ones = np.ones(len(files))
    return TrainingSet(labels, ones.astype(np.bool_), ones, lambda rows: [files[row] for row in rows])


def over_bare(config: TrainerConfig, device: torch.device) -> dict[str, Any]:
    assert config.resolution is not None
    rng = np.random.default_rng(0)
    labels = np.arange(1000) % 10
    images = (rng.integers(0, 128, (1000, config.resolution, config.resolution)) + 12 * labels[:, None, None]).astype(np.uint8)
    given = training_set(images, labels)
    resident_NCHW = torch.from_numpy(decoded(given.gather(np.arange(1000)), config.resolution)).to(device)
    label_N = torch.from_numpy(labels).to(device)

    def timed(run: Callable[[], object]) -> float:
        def whole() -> None:
            run()
            if device.type == "cuda":
                torch.cuda.synchronize()

        return config.steps * config.batch / seconds(whole)

    return paired(
        lambda: timed(lambda: train(config, MixingConfig(), given, 10, 0, device)),
        lambda: timed(lambda: bare_training(config, resident_NCHW, label_N, device)),
        PAIRS,
    )


def bare_training(config: TrainerConfig, images_NCHW: Tensor, label_N: Tensor, device: torch.device) -> nn.Module:
    """What one would write by hand."""
    assert config.resolution is not None
    torch.manual_seed(0)
    network = Classifier(config.resolution, config.width, 10, "batch").to(device).to(memory_format=torch.channels_last).train()
    if device.type == "cuda":
        network.compile(dynamic=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    warmup = round(config.warmup * config.steps)

    def rate(step: int) -> float:
        return (step + 1) / warmup if step < warmup else 0.5 * (1 + math.cos(math.pi * (step - warmup) / (config.steps - warmup)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    num = len(images_NCHW)
    order, place = torch.randperm(num, device=device), 0
    for _ in range(config.steps):
        if place + config.batch > num:
            order, place = torch.randperm(num, device=device), 0
        rows_B = order[place : place + config.batch]
        place += config.batch
        moved_BCHW = _moved(images_NCHW[rows_B].float() / 127.5 - 1, config.augment).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            logits_BC = network(moved_BCHW)
        loss = functional.cross_entropy(logits_BC.float(), label_N[rows_B], label_smoothing=config.label_smoothing)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return network.eval()


def _moved(images_BCHW: Tensor, config: TrainerAugmentConfig) -> Tensor:
    num, device = len(images_BCHW), images_BCHW.device
    shift_B2 = 2 * config.shift * torch.randn(num, 2, device=device)
    angle_B = math.radians(config.rotate) * torch.randn(num, device=device)
    scale_B, shear_B = torch.exp(config.scale * torch.randn(num, device=device)), config.shear * torch.randn(num, device=device)
    cos_B, sin_B = torch.cos(angle_B), torch.sin(angle_B)
    first_B3 = torch.stack([cos_B * scale_B, (shear_B - sin_B) * scale_B, shift_B2[:, 0]], dim=1)
    second_B3 = torch.stack([sin_B * scale_B, cos_B * scale_B, shift_B2[:, 1]], dim=1)
    grid = functional.affine_grid(torch.stack([first_B3, second_B3], dim=1), list(images_BCHW.shape), align_corners=False)
    return functional.grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def whole_fashion(device: torch.device) -> dict[str, Any]:
    """Accuracy on the 10,000 test images, of two seeds."""
    images, labels = fashion.read("train")
    given = training_set(images, labels)
    found: dict[str, Any] = {name: accuracy(config, given, 28, device, seeds=2) for name, config in WHOLE[device.type].items()}
    return found | {"listed by the publisher of the data": LISTED}


def accuracy(config: TrainerConfig, given: TrainingSet, resolution: int, device: torch.device, seeds: int) -> dict[str, Any]:
    tests, truths = fashion.read("t10k")
    test = training_set(_padded(tests, resolution), truths)
    test_VCHW = decoded(test.gather(np.arange(len(test))), resolution)
    scores, times = [], []
    for seed in range(seeds):
        networks: list[nn.Module] = []
        times.append(seconds(lambda networks=networks, seed=seed: networks.append(train(config, MixingConfig(), given, 10, seed, device))))  # type: ignore[misc]
        scores.append(float((predict(networks[0], test_VCHW, truths, device).predicted_V == truths).mean()))
    return {
        "accuracy": spread(scores),
        "seconds, decoding and compiling included": spread(times),
        "parameters": sum(parameter.numel() for parameter in networks[0].parameters()),
        "steps": config.steps,
        "batch": config.batch,
    }


def _padded(images: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    side = (resolution - images.shape[1]) // 2
    return np.pad(images, ((0, 0), (side, side), (side, side)))


def speed_run(device: torch.device) -> dict[str, Any]:
    images, labels = fashion.read("train")
    images = _padded(images[:50_000], 32)
    found: dict[str, Any] = {"ours": accuracy(SPEED_RUN, training_set(images, labels[:50_000]), 32, device, seeds=3)}
    if find_spec("airbench") is None:
        return found | {"airbench94": "not measured: the package airbench is not installed"}
    import airbench

    before = Path.cwd()
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)  # it reads ./cifar10
        try:
            Path("cifar10").mkdir()
            tests, truths = fashion.read("t10k")
            parts = {"train": (images, labels[:50_000]), "test": (_padded(tests, 32), truths)}
            for name, (part, truth) in parts.items():
                colour = torch.from_numpy(part)[..., None].expand(-1, -1, -1, 3).contiguous()
                torch.save({"images": colour, "labels": torch.from_numpy(truth), "classes": fashion.CLASSES}, f"cifar10/{name}.pt")
            airbench.train94(verbose=False, epochs=1)
            test = airbench.CifarLoader("cifar10", train=False)
            scores, times = [], []
            for _ in range(3):
                networks: list[nn.Module] = []
                times.append(
                    seconds(lambda networks=networks: (networks.append(airbench.train94(verbose=False)), torch.cuda.synchronize()))
                )  # type: ignore[misc]
                scores.append(airbench.evaluate(networks[0], test, tta_level=0))
        finally:
            os.chdir(before)
    parameters = sum(parameter.numel() for parameter in networks[0].parameters())
    return found | {"airbench94": {"accuracy": spread(scores), "seconds": spread(times), "parameters": parameters}}


if __name__ == "__main__":
    main()
