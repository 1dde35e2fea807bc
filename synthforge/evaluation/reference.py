"""The real images of an evaluation: what draws are made of, and what arms are compared with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from synthforge.data.images import decode
from synthforge.data.pools import Table
from synthforge.data.subset import write_subset
from synthforge.errors import DatasetError, RequestError
from synthforge.evaluation.conditions import RealDraw
from synthforge.evaluation.sets import Bools, Images, Ints
from synthforge.progress import Reporter
from synthforge.recipe.evaluation import Amount, EvaluationConfig
from synthforge.training.data import seeded


@dataclass(frozen=True)
class Reference:
    """All real images, of which draws are some."""

    address: str
    table: Table
    fit: Bools
    """Rows of the fit part."""
    classes: list[str]
    image_size: int
    """Shorter side of the first image."""
    notes: list[str]

    @classmethod
    def open(cls, address: str, cache: Path, reporter: Reporter) -> Reference:
        """Raises DatasetError or RequestError."""
        table = Table.open(address, cache, reporter)
        table.require_labels(address)
        (collection,), names = table.collections, table.strings("class")
        parts = collection.part()
        fit_M = np.asarray(np.concatenate([parts[block.name] for block in collection.blocks]) == "fit")
        present = set(names)
        if len(present) == 1:
            raise RequestError(f"{address}: holds one class only, {present.pop()!r}; a classifier needs two or more to tell apart")
        first = next(members.image for _, members in table.samples(np.zeros(1, np.int64)))
        try:
            size = min(decode(first).shape[:2])
        except DatasetError as error:
            raise DatasetError(f"{address}, image {table.strings('key')[0]}: {error}; remove or replace it") from error
        notes = [f"{address}: {problem}" for problem in collection.problems]
        classes = [name for name in collection.classes if name in present]
        return cls(address, table, fit_M, classes, image_size=size, notes=notes)

    def draws(self, amount: Amount, config: EvaluationConfig, where: str = "real_per_class") -> list[RealDraw]:
        """The draws of one amount; raises RequestError if there are too few images.

        Generators that are there were fitted on the first images of each class, so then each draw has these, and another pool.

        Args:
            where: the field that asks for the amount, for errors.
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
        found = []
        for number in range(config.draws):
            order = [_order(whole, number if config.generators is None else None, label) for label in range(len(self.classes))]
            taken = np.sort(np.concatenate([rows[:amount] for rows in order]))
            rest = np.sort(np.concatenate([rows[amount:] for rows in order]))
            found.append(RealDraw(amount, number, whole.take(taken), None, whole.take(rest)))
        return found

    def write(self, images: Images, place: Path, parts: dict[str, tuple[int, int]]) -> None:
        """Some of them as a dataset folder, their bytes as they are; what is there stays."""
        write_subset(self.table, images.row_N, images.label_N, place, classes=self.classes, parts=parts, origin=self.address)


def _order(images: Images, draw: int | None, label: int) -> Ints:
    """Rows of a class in the order in which a draw takes them: one random order for all, begun at places that lie far apart.

    The places are van der Corput's, so more draws leave those that were there as they are. Without a draw: as they lie.
    """
    rows: Ints = np.flatnonzero(images.label_N == label)
    if draw is None:
        return rows
    rows = rows[torch.randperm(len(rows), generator=seeded("real draw", label)).numpy()]
    begin, step = 0.0, 0.5
    while draw:
        draw, bit = divmod(draw, 2)
        begin, step = begin + bit * step, step / 2
    return np.roll(rows, -int(begin * len(rows)))
