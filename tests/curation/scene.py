"""Synthetic features of a pool and of real images, for tests of gates and evidence."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from synthforge.curation.evidence import EncodedView, Evidence, Texts
from synthforge.features.config import IndexConfig
from synthforge.features.embed import Features

CENTRES = np.array([[0, 0, 0, 0], [8, 0, 0, 0]], np.float32)


class Scene:
    """Two classes of real images, 100 each to fit and 40 to validate, and a pool that a test plants."""

    def __init__(self, pool: np.ndarray, labels: np.ndarray, num_views: int = 1, unseen: np.ndarray | None = None) -> None:
        rng = np.random.default_rng(0)
        self.real_class = np.repeat([0, 1], 140)
        self.real = (CENTRES[self.real_class] + rng.normal(size=(280, 4))).astype(np.float32)
        self.fit = np.tile(np.arange(140) < 100, 2)
        self.pool, self.labels = pool.astype(np.float32), labels
        self.source = np.full(len(pool), -1)
        self.strength = np.full(len(pool), np.nan, np.float32)
        self.pixels = np.arange(len(pool)).astype(np.uint64)
        self.usable = np.ones(len(pool), bool)
        self.unseen = np.ones(280, bool) if unseen is None else unseen
        self.num_views = num_views
        self.texts: list[Texts] = []

    def evidence(self, neighbours: int = 10) -> Evidence:
        half, place = len(self.pool) // 2, Path(tempfile.mkdtemp())
        blocks = [self.pool[:half], self.pool[half:], self.real]
        for number, block in enumerate(blocks):
            np.save(place / f"{number}.npy", block)
        pool = Features([place / "0.npy", place / "1.npy"], [half, len(self.pool) - half])
        view = EncodedView(pool, Features([place / "2.npy"], [len(self.real)]), self.unseen)
        return Evidence(
            [view] * self.num_views,
            ["a", "b"],
            class_N=self.labels,
            usable_N=self.usable,
            pixels_N=self.pixels,
            strength_N=self.strength,
            source_N=self.source,
            real_class_M=self.real_class,
            real_key_M=[f"r{row}" for row in range(280)],
            fit_M=self.fit,
            neighbours=neighbours,
            index=IndexConfig(),
            embed_texts=lambda texts: self.texts,
        )


def drawn(num: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(num) % 2
    return CENTRES[labels] + np.random.default_rng(seed).normal(size=(num, 4)), labels
