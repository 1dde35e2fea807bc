"""Small pictures, and encoders loaded on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from synthforge.data.images import decode, resize
from synthforge.data.reading import Labelled
from synthforge.features.encoders.config import EncoderConfig, FittedConfig, OpenClipConfig
from synthforge.features.encoders.protocol import SEEN_DIGITS, Encoder, Loading

ASSETS = Path(__file__).resolve().parents[3] / "synthforge" / "assets" / "digits"


BUILTIN = [OpenClipConfig(model="builtin:digits/encoder"), FittedConfig(model="builtin:digits/judge")]


def pictures(num: int, resolution: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, resolution, resolution, 3), dtype=np.uint8)


def load(config: EncoderConfig, cache: Path, **options: Any) -> list[Encoder]:
    return config.build(Loading(cache, "cpu", **options))


def embedded(encoder: Encoder, labelled: Labelled) -> np.ndarray:
    images = np.stack([resize(decode(example.data, 3), encoder.resolution) for example in labelled.examples])
    return encoder.embed(images).numpy()


def digests(labelled: Labelled) -> set[str]:
    return {example.sha256[:SEEN_DIGITS] for example in labelled.examples}


def unseen(encoder: Encoder, digits: dict[str, Labelled]) -> list[Labelled]:
    fit = [example for example in digits["fit"].examples if example.sha256[:SEEN_DIGITS] not in encoder.seen]
    return [Labelled(digits["fit"].classes, fit), digits["validation"]]
