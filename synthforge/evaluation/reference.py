"""The real images, and the draws of them: subsets that each stand for all the real images that somebody has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from synthforge.arrays import Bools, Ints
from synthforge.data.images import decode
from synthforge.data.pools import Table
from synthforge.data.subset import write_subset
from synthforge.errors import DatasetError, RequestError
from synthforge.evaluation.conditions import RealDraw, Setting
from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Images
from synthforge.progress import Reporter
from synthforge.recipe.evaluation import REAL, Amount, EvaluationConfig
from synthforge.training.data import seeded

FEWEST_CURVE_POINTS = 3


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
    def open(cls, address: str, cache: Path, reporter: Reporter) -> Reference:
        """Open a labelled set; raises DatasetError or RequestError."""
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


@dataclass(frozen=True)
class RealDraws:
    """All draws of an evaluation or a diagnosis."""

    reference: Reference
    by_amount: dict[Amount, list[RealDraw]]
    """Draws that are evaluated."""
    all: list[RealDraw]
    """With those that only the real learning curve needs, from few images to many."""

    @classmethod
    def of(cls, reference: Reference, config: EvaluationConfig) -> RealDraws:
        """Raises RequestError if there are too few images."""
        draws = cls(reference, {amount: reference.draws(amount, config) for amount in config.real_per_class}, [])
        if any(arm.of != [REAL] for arm in config.arms):
            for setting in draws.settings(config.synthetic_per_real, "own", {}):
                if not setting.asked(len(reference.classes)).any():
                    beside = f"{setting.ratio:g} for each of {setting.draw.amount} real images"
                    raise RequestError(f"evaluation.synthetic_per_real: {beside} is no image at all; raise it")
        amounts = dict.fromkeys([*draws.by_amount, *_curve_amounts(config, reference)])
        of_curve = (draws.by_amount.get(amount) or reference.draws(amount, config, "evaluation.curve") for amount in amounts)
        return replace(draws, all=sorted(itertools.chain(*of_curve), key=lambda draw: (draw.per_class, draw.number)))

    def require_readable(self) -> None:
        """Raises DatasetError if an image of a draw can't be read."""
        used = [images.row_N for draw in self.all for images in (draw.fit, draw.validation) if images is not None]
        self.reference.table.require_readable(np.unique(np.concatenate(used)))

    def settings(self, ratios: Sequence[float], origin: Origin, sources: dict[str, Images], generator: str = "") -> list[Setting]:
        """Every evaluated draw with every ratio, all with the same sources."""
        return [Setting(draw, ratio, origin, sources, generator) for draws in self.by_amount.values() for ratio in ratios for draw in draws]


def _curve_amounts(config: EvaluationConfig, reference: Reference) -> list[Amount]:
    """Amounts for the real learning curve.

    By default those that are evaluated, all images, and half of the smallest amount; also a quarter of it where these
    are too few.
    """
    if config.curve is not None:
        return [*config.curve]
    amounts: dict[Amount, None] = dict.fromkeys([*config.real_per_class, "all"])
    whole = int(reference.draws("all", config)[0].fit.per_class(len(reference.classes)).min())
    smallest = min(amount if isinstance(amount, int) else whole for amount in config.real_per_class)
    for part in (2, 4):
        if (part == 2 or len(amounts) < FEWEST_CURVE_POINTS) and smallest // part >= 1:
            amounts[smallest // part] = None
    return [amount for amount in amounts if not (isinstance(amount, int) and amount > whole)]


def _order(images: Images, draw: int | None, label: int) -> Ints:
    """Rows of a class in the order in which a draw takes them.

    All draws share one random order, and begin at places that lie far apart. These are van der Corput's (1935), so a
    draw is the same however many draws there are. `draw` None: the rows as they lie.
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
