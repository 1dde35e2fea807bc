"""Settings: draws of the real images, each with the image sets that arms take from.

A *draw* is a subset of the reference's fit part that stands for all real images somebody has. Draws of one number and
different sizes are nested. Draws of one size share as few images as they can.

A *setting* is a draw, a number of synthetic images for each real one, and pools of one origin. `own` pools come from a
generator that has seen only the draw's images. Pools from `elsewhere` come from a generator that has seen others, or
does not say. The two are never put in one table.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from synthforge.arrays import Ints
from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Images
from synthforge.recipe.evaluation import MORE, REAL, Amount, ArmConfig


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
    notes: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    """Diagnosis only: figures that need no training (`ArmImages.facts`)."""

    @property
    def where(self) -> str:
        """For notes."""
        return f"{self.draw.per_class:g} real per class" + (", from elsewhere" if self.origin == "elsewhere" else "")

    def asked(self, num_classes: int) -> Ints:
        """Images of each class that an arm should take from each source besides `real`, int64 (C,)."""
        asked_C: Ints = np.rint(self.draw.fit.per_class(num_classes) * self.ratio).astype(np.int64)
        return asked_C

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
