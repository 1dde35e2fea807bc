"""Settings: draws of the real images, each with the image sets that arms take from.

A *setting* is a draw, a number of synthetic images for each real one, and pools of one origin. `own` pools come from a
generator that has seen only the draw's images. Pools from `elsewhere` come from a generator that has seen others, or
does not say. The two are never put in one table.

Shapes: C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from synthforge.arrays import Ints
from synthforge.errors import RequestError
from synthforge.evaluation.reference import RealDraw, Reference
from synthforge.evaluation.results.types import ImageFacts, Origin
from synthforge.evaluation.sets import Images
from synthforge.recipe.evaluation import MORE, REAL, Amount, ArmConfig, EvaluationConfig

FEWEST_CURVE_POINTS = 3
"""Amounts on the real learning curve, where there are images enough."""


@dataclass(frozen=True)
class Setting:
    """One draw with pools of one origin."""

    draw: RealDraw
    ratio: float
    """Synthetic images for each real one."""
    origin: Origin
    sources: dict[str, Images]
    """Images that arms take from besides `real` and `more`, by `ArmConfig.key_of`."""
    generator: str = ""
    """The generator's name."""
    facts: ImageFacts | None = None
    """Diagnosis only."""

    @property
    def where(self) -> str:
        """For notes."""
        return f"{self.draw.per_class:g} real images per class" + (", generator trained elsewhere" if self.origin == "elsewhere" else "")

    def asked(self, num_classes: int) -> Ints:
        """Images of each class that an arm should take from each source besides `real`, int64 (C,)."""
        return (self.draw.fit.per_class(num_classes) * self.ratio).round().astype(np.int64)

    def wanted(self, num_classes: int, is_copy: Mapping[str, bool]) -> Ints:
        """Images of each class that an arm takes, int64 (C,).

        At most as many as every source has, so that all arms are of one size.
        """
        wanted_C = self.asked(num_classes)
        for images in self.sources.values():
            wanted_C = np.minimum(wanted_C, images.usable(is_copy).reach(num_classes))
        return wanted_C

    def lacking(self, classes: list[str], is_copy: Mapping[str, bool]) -> dict[str, str]:
        """Keys of sources that have no image of some class, and the first such class."""
        lacking = {}
        for key, images in self.sources.items():
            lacks_C = (self.asked(len(classes)) > 0) & (images.usable(is_copy).reach(len(classes)) == 0)
            if lacks_C.any():
                lacking[key] = classes[int(np.flatnonzero(lacks_C)[0])]
        return lacking

    def parts(self, arm: ArmConfig, seed: int, num_classes: int, is_copy: Mapping[str, bool]) -> list[Images] | str:
        """The images of one arm and seed, without copies of holdout images; or the reason why there is no such arm."""
        wanted_C = self.wanted(num_classes, is_copy)
        parts = []
        for name in arm.of:
            if name == REAL and REAL not in self.sources:  # a diagnosis cuts it to the size of the others
                parts.append(self.draw.fit.usable(is_copy))
                continue
            source = self.draw.rest if name == MORE else self.sources.get(arm.key_of(name))
            if source is None or not len(source):
                return "there are not enough other real images" if name.startswith(MORE) else f"there are no images of {name}"
            source = source.usable(is_copy)
            if (source.reach(num_classes) < wanted_C).any():
                return f"{name} has too few images of a class"
            # Only draw and seed decide, so arms with a common source take the same images.
            parts.append(source.draw(wanted_C, (self.draw.number, seed)))
        return parts


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
