"""Train one classifier on one training set, and test it.

AdamW with a one-cycle schedule (linear rise, half cosine to zero), label smoothing and averaged weights. Batches are
augmented on the device. Every arm is trained in this way, with the same number of steps whatever the size of its set.
Batch-norm recalibration on training images without augmentation comes last.

The same seed gives the same result on the same device with the same number of threads.

Not covered: several devices for one training; networks whose normalisation needs more than batch-norm statistics.

Shapes: N images of the set, V test images, B batch, C classes, H = W = resolution.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from synthforge.arrays import Bools, Doubles, Floats, Ints
from synthforge.data.read_config import WHITE
from synthforge.evaluation.trainer.loader import Gather, Resident, Streamed, decoded
from synthforge.evaluation.trainer.mixing import Mixing
from synthforge.evaluation.trainer.models import build
from synthforge.recipe.evaluation import MixingConfig, TrainerConfig
from synthforge.training.augmentation import augment, erase, mixup
from synthforge.training.config import LoopConfig
from synthforge.training.data import to_float
from synthforge.training.loop import Batch, Progress, TrainingLoop
from synthforge.training.networks import recalibrate_batch_norm, set_parts

_TEST_BATCH = 256
_RECALIBRATION_BATCHES = 16


@dataclass(frozen=True)
class TrainingSet:
    """N labelled images of one arm."""

    label_N: Ints
    is_real_N: Bools
    weight_N: Doubles
    """Importance weights, for example of curation; 1 without weights."""
    gather: Gather
    """Reads their files, in any order and from several threads."""
    background: str = WHITE
    """What transparent images are put on."""

    def __len__(self) -> int:
        return len(self.label_N)


@dataclass(frozen=True)
class Predictions:
    """A classifier's predictions for V test images. Field names are those of its file."""

    predicted_V: NDArray[np.int16]
    """The most probable class."""
    confidence_V: Floats
    """Its probability."""
    probability_V: Floats
    """Of the true class."""


def train(
    config: TrainerConfig,
    mixing: MixingConfig,
    images: TrainingSet,
    num_classes: int,
    seed: int,
    device: torch.device,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> nn.Module:
    """Train a network from images (n, 3, H, W) in -1 to 1 to logits (n, C); returns its averaged weights in eval mode.

    Args:
        config: with `resolution` filled in.
    """
    assert config.resolution is not None
    is_real_N, importance_N = torch.from_numpy(images.is_real_N), torch.from_numpy(images.weight_N)
    mixed = Mixing(mixing, is_real_N, importance_N, batch=config.batch, num_steps=config.steps, seed=seed)
    torch.manual_seed(seed)
    network = build(config, num_classes, "parts" if mixed.num_first else "batch").to(device).to(memory_format=torch.channels_last)
    set_parts(network, mixed.num_first)
    label_N, weight_N = torch.from_numpy(images.label_N).to(device), mixed.weight_N.to(device)
    class_C = torch.arange(num_classes, device=device)
    source = _source(config, images, mixed, device)

    def batch_of(step: int) -> Batch:
        rows_B, images_BCHW = source.batch(step)
        return rows_B.to(device), images_BCHW

    def loss(network: nn.Module, batch: Batch, generator: torch.Generator) -> Tensor:
        rows_B, images_BCHW = batch
        target_BC = (label_N[rows_B, None] == class_C).float()
        with torch.autocast(device.type, enabled=False):  # half precision moves images by up to a fifth of a pixel
            changed_BCHW, target_BC = _changed(to_float(images_BCHW), target_BC, mixed.part_sizes, config, generator)
        logits_BC = network(changed_BCHW.contiguous(memory_format=torch.channels_last)).float()
        loss_B = functional.cross_entropy(logits_BC, target_BC, label_smoothing=config.label_smoothing, reduction="none")
        weight_B = weight_N[rows_B]
        return (loss_B * weight_B).sum() / weight_B.sum()

    shared = config.model_dump(include=set(LoopConfig.model_fields))
    loop_config = LoopConfig(**shared, images=config.steps * config.batch, checks=1, seed=seed)
    try:
        loop = TrainingLoop(network, batch_of, loss, loop_config, capture=config.network == "residual")
        for _ in loop.run(on_progress):
            pass
        trained: nn.Module = loop.ema
        if config.start != "probe":  # a probe keeps its network as it is
            recalibrate_batch_norm(trained, (to_float(source.of(mixed.recalibration_rows(step))) for step in range(_RECALIBRATION_BATCHES)))
    finally:
        source.close()
    return trained.eval()


def _changed(
    images_BCHW: Tensor, target_BC: Tensor, part_sizes: list[int], config: TrainerConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Augmented images with their targets. Real and synthetic parts are augmented and mixed apart."""
    parts = []
    for images_PCHW, target_PC in zip(images_BCHW.split(part_sizes), target_BC.split(part_sizes), strict=True):
        moved_PCHW, _ = augment(images_PCHW, config.augment, generator)
        moved_PCHW = erase(moved_PCHW, config.augment.erase, generator)
        parts.append(mixup(moved_PCHW, target_PC, config.augment.mixup, generator))
    if len(parts) == 1:
        return parts[0]
    return torch.cat([images for images, _ in parts]), torch.cat([targets for _, targets in parts])


def _source(config: TrainerConfig, images: TrainingSet, mixed: Mixing, device: torch.device) -> Resident | Streamed:
    """Resident on the device if the whole set fits."""
    assert config.resolution is not None
    if len(images) * 3 * config.resolution**2 > config.resident_gib * 2**30:
        return Streamed(images.gather, config.resolution, images.background, mixed.rows, config.steps, device)
    return Resident(decoded(images.gather(np.arange(len(images))), config.resolution, images.background), mixed.rows, device)


def predict(network: nn.Module, images_VCHW: NDArray[np.uint8], truth_V: Ints, device: torch.device) -> Predictions:
    """Test a trained network on uint8 images (V, 3, H, W)."""
    with torch.inference_mode():
        parts = [
            network(to_float(torch.from_numpy(images_VCHW[start : start + _TEST_BATCH]).to(device))).float().softmax(dim=1).cpu()
            for start in range(0, len(images_VCHW), _TEST_BATCH)
        ]
    probability_VC = torch.cat(parts)
    confidence_V, predicted_V = probability_VC.max(dim=1)
    true_V = probability_VC.gather(1, torch.from_numpy(truth_V)[:, None])[:, 0]
    return Predictions(predicted_V.numpy().astype(np.int16), confidence_V.numpy(), true_V.numpy())
