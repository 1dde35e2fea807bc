"""The real images, and draws of them.

A *draw* is a subset of the reference's fit part that stands for all real images somebody has. Draws of one number and
different sizes are nested. Draws of one size share as few images as they can.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import scipy
import torch

from synthforge.arrays import Bools, Ints
from synthforge.data.image_table import Table
from synthforge.data.read_config import Reading
from synthforge.data.subset import write_subset
from synthforge.errors import DatasetError, RequestError
from synthforge.evaluation.sets import Images
from synthforge.progress import Reporter
from synthforge.recipe.evaluation import Amount, EvaluationConfig
from synthforge.training.data import seeded


@dataclass(frozen=True)
class RealDraw:
    """Some of the reference's images, and the rest of its fit part."""

    amount: Amount
    number: int
    fit: Images
    validation: Images | None
    """The validation part. None: the draw is not the whole reference."""
    rest: Images
    """Images of the fit part that are not in the draw."""

    @property
    def per_class(self) -> float:
        """Mean number of images of a class."""
        return len(self.fit) / max(len(set(self.fit.label_N.tolist())), 1)

    @property
    def budget(self) -> int:
        """Number of real images that generator, encoder and tuning may have seen."""
        return len(self.fit) + (len(self.validation) if self.validation is not None else 0)

    @property
    def name(self) -> str:
        """For its folder."""
        return f"real-{self.amount}-draw-{self.number}"

    @property
    def is_whole(self) -> bool:
        """True for the whole reference."""
        return self.amount == "all"


@dataclass(frozen=True)
class Reference:
    """All real images. Draws are subsets of its fit part."""

    address: str
    table: Table
    fit: Bools
    """Rows of the fit part."""
    classes: list[str]
    image_size: int
    """Shorter side of the first image."""
    notes: list[str]

    @classmethod
    def open(cls, address: str, cache: Path, reporter: Reporter, reading: Reading | None = None) -> Reference:
        """Open a labelled set; raises DatasetError or RequestError."""
        table = Table.open(address, cache, reporter, reading)
        table.require_labels(address)
        (collection,), names = table.collections, table.strings("class")
        present = set(names)
        if len(present) == 1:
            raise RequestError(f"{address}: holds one class only, {present.pop()!r}; a classifier needs at least two")
        first = next(members for _, members in table.samples(np.zeros(1, np.int64)))
        try:
            size = min(first.pixels().shape[:2])
        except DatasetError as error:
            raise DatasetError(f"{address}, image {table.strings('key')[0]}: {error}; remove or replace it") from error
        notes = list(collection.problems)
        classes = [name for name in collection.classes if name in present]
        return cls(address, table, table.fit, classes, image_size=size, notes=notes)

    def draws(self, amount: Amount, config: EvaluationConfig, where: str = "real_per_class") -> list[RealDraw]:
        """The draws of one amount; raises RequestError if there are too few images.

        With `config.generators` each draw has the first images of each class, since those generators were fitted on
        them.

        Args:
            where: the field that holds the amount, for errors.
        """
        whole = Images.of(self.table, self.classes, np.flatnonzero(self.fit), is_real=True)
        validation = Images.of(self.table, self.classes, np.flatnonzero(~self.fit), is_real=True)
        num_C = whole.per_class(len(self.classes))
        if (num_C == 0).any():
            name = self.classes[int(np.argmin(num_C))]
            raise RequestError(f"{self.address}: class {name!r} has no real images to train on; add some, or leave it out")
        if not isinstance(amount, int):
            of_fit = RealDraw("all", 0, whole, validation if len(validation) else None, rest=whole.take(np.arange(0)))
            return [replace(of_fit, number=number) for number in range(config.draws)]
        if (num_C < amount).any():
            label = int(np.argmin(num_C))
            raise RequestError(
                f"{where}: {amount} asked for, but class {self.classes[label]!r} has {num_C[label]} real images in the fit part; lower it"
            )
        draws = []
        for number in range(config.draws):
            order = [_order(whole, number if config.generators is None else None, label) for label in range(len(self.classes))]
            taken = np.sort(np.concatenate([rows[:amount] for rows in order]))
            rest = np.sort(np.concatenate([rows[amount:] for rows in order]))
            draws.append(RealDraw(amount, number, whole.take(taken), None, whole.take(rest)))
        return draws

    def write(self, images: Images, place: Path, parts: dict[str, tuple[int, int]]) -> None:
        """Write some images as a dataset folder, their bytes unchanged; what is there stays."""
        write_subset(self.table, images.row_N, images.label_N, place, classes=self.classes, parts=parts, origin=self.address)


def _order(images: Images, draw: int | None, label: int) -> Ints:
    """Rows of a class in the order in which a draw takes them.

    All draws share one random order, and begin at places that lie far apart. These are van der Corput's (1935), so a
    draw is the same however many draws there are. `draw` None: the rows as they lie.
    """
    rows: Ints = np.flatnonzero(images.label_N == label)
    if draw is None:
        return rows
    rows = rows[torch.randperm(len(rows), generator=seeded("real draw", label)).numpy()]
    begin = float(scipy.stats.qmc.Halton(1, scramble=False).fast_forward(draw).random()[0, 0])
    return np.roll(rows, -int(begin * len(rows)))
