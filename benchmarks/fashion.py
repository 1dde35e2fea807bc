"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017, arXiv 1708.07747) from Debian's `dataset-fashion-mnist`, as folders of
images by class.

The first so many training images of each class are the fit part, the next ones the validation part; the test images are
the holdout.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synthforge.data.images import encode, resize

PLACE = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ["T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot"]


def is_there() -> bool:
    return PLACE.exists()


def read(name: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`train` or `t10k`: images (N, 28, 28) and labels (N,)."""
    images = np.frombuffer(gzip.decompress((PLACE / f"{name}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((PLACE / f"{name}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    return images.reshape(-1, 28, 28), labels.astype(np.int64)


def write_reference(out: Path, per_class: int = 100, validation: int = 50, side: int = 28) -> Path:
    """Fit and validation part as a folder of images by class, of so many pixels; what is there stays."""
    images, labels = read("train")
    for number, name in enumerate(CLASSES):
        rows = np.flatnonzero(labels == number)[: per_class + validation]
        for place, row in enumerate(rows):
            _write(out / ("fit" if place < per_class else "validation") / name / f"{row:05d}.png", images[row], side)
    return out


def write_holdout(out: Path, side: int = 28) -> Path:
    """All 10,000 test images likewise."""
    images, labels = read("t10k")
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        _write(out / CLASSES[label] / f"{row:05d}.png", image, side)
    return out


def _write(path: Path, image: NDArray[np.uint8], side: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_bytes(encode(resize(image[:, :, None], side), "png", 100, marking=False))
