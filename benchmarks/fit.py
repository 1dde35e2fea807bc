"""`fit`: training images per second over a bare loop of the same network, batch, loss and optimiser."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import keep, paired, seconds
from synthforge.data.images import encode
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.generators.pixel.fit import _Fit
from synthforge.recipe.load import config_from_sets
from synthforge.training.augmentation import AUGMENT_DIM, augment

PAIRS = 5


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        colours = _folder(Path(directory) / "colours", 32)
        found["32 px, 3 channels, default U-Net, batch 64"] = _measure(str(colours), 64, 12)
        found["8 px digits, default MLP, batch 256"] = _measure("builtin:digits/reference", 256, 400)
        found["8 px digits, the bare loop augmenting too"] = _measure("builtin:digits/reference", 256, 400, augmented=True)
    keep("fit", "fit images per second over a bare loop of the same network, at least 0.95", found)


def _folder(place: Path, size: int) -> Path:
    rng = np.random.default_rng(0)
    for name in "ab":
        (place / name).mkdir(parents=True)
        for number in range(100):
            (place / name / f"{number}.png").write_bytes(
                encode(rng.integers(0, 256, (size, size, 3), dtype=np.uint8), "png", 90, marking=False)
            )
    return place


def _measure(data: str, batch: int, steps: int, augmented: bool = False) -> dict[str, Any]:
    """Checks are left out of both: they are evaluation, and happen a dozen times a fit."""
    sets = [f"loop.batch={batch}", f"loop.images={batch * steps}", "loop.checks=1", "loop.warmup=0"]
    config: PixelFitConfig = config_from_sets(PixelFitConfig, sets)

    scratch = Path(tempfile.mkdtemp())

    def fitting() -> float:
        fit = _Fit(data, scratch, config)
        fit.loop._checkpoint = None
        return batch * steps / seconds(lambda: next(iter(fit.loop.run())))

    def bare() -> float:
        fit = _Fit(data, scratch, config)
        network, sigma_data = fit.network.train(), fit.sigma_data
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
        generator = torch.Generator().manual_seed(0)
        images_NCHW = fit.fitted.images_NCHW.float() / 127.5 - 1

        def loop() -> None:
            for _ in range(steps):
                rows = torch.randint(0, len(images_NCHW), (batch,))
                images, labels, vectors = images_NCHW[rows], fit.fitted.labels_N[rows], torch.zeros(batch, AUGMENT_DIM)
                if augmented:
                    images, vectors = augment(images, config.augment, generator)
                sigma = (torch.randn(batch, 1, 1, 1) * 1.4 - 0.8).exp()
                total = (sigma**2 + sigma_data**2).sqrt()
                noised = images + sigma * torch.randn_like(images)
                output = network(noised / total, sigma.flatten().log() / 4, labels, vectors)
                target = (images - sigma_data**2 / total**2 * noised) / (sigma * sigma_data / total)
                loss = (output - target).square().mean()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)

        return batch * steps / seconds(loop)

    return paired(fitting, bare, PAIRS)
