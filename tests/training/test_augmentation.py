"""Augmentation on the device."""

from __future__ import annotations

import torch

from synthforge.training.augmentation import AUGMENT_DIM, augment
from synthforge.training.config import AugmentConfig
from synthforge.training.data import seeded


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
