"""The settings of an evaluation: draws of the real images, and beside each the sets that were made for it.

A *draw* is a subset of the reference's fit part, as if there were no other real images. Draws of one number and different sizes are nested;
those of one size lie apart as far as they can, since what they share does not vary between them. A *setting*
is a draw with a number of synthetic images for each real one, and with pools of one origin: made by a generator that has seen only
the draw's images (`own`), or by one that has seen others, or does not say (`elsewhere`). The two are never put in one table.
Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Images, Ints
from synthforge.recipe.evaluation import MORE, REAL, Amount, ArmConfig


@dataclass(frozen=True)
class RealDraw:
    """Some of the reference's images, and what is left of its fit part."""

    amount: Amount
    number: int
    fit: Images
    validation: Images | None
    """The validation part, which belongs to the whole reference only."""
    rest: Images
    """Images of the fit part that are not in the draw."""

    @property
    def per_class(self) -> float:
        """Mean number of images of a class."""
        return len(self.fit) / max(len(set(self.fit.label_N.tolist())), 1)

    @property
    def budget(self) -> int:
        """Every real image that may have been seen by what is behind an arm."""
        return len(self.fit) + (len(self.validation) if self.validation is not None else 0)

    @property
    def name(self) -> str:
        """Name of its folder."""
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
    """Images that arms take from besides `real` and `more`, by `ArmConfig.key_of`. Arms take all that curation chose, of others some."""
    generator: str = ""
    """Name of the generator."""
    notes: list[str] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    """Diagnosis only: figures that are known without training (`DiagnosisSources.facts`)."""

    @property
    def where(self) -> str:
        """The setting in words, for notes."""
        return f"{self.draw.per_class:g} real per class" + (", from elsewhere" if self.origin == "elsewhere" else "")

    def asked(self, num_classes: int) -> Ints:
        """Images of each class that arms are to take of each source beside `real`, int64 (C,)."""
        asked_C: Ints = np.rint(self.draw.fit.per_class(num_classes) * self.ratio).astype(np.int64)
        return asked_C

    def wanted(self, num_classes: int, is_copy: Mapping[str, bool]) -> Ints:
        """Images of each class that they take, int64 (C,): no more than every source has, so that arms are of one size."""
        wanted_C = self.asked(num_classes)
        for images in self.sources.values():
            wanted_C = np.minimum(wanted_C, images.usable(is_copy).reach(num_classes))
        return wanted_C

    def lacking(self, classes: list[str], is_copy: Mapping[str, bool]) -> dict[str, str]:
        """Keys of sources that have no image of a class at all, and the class."""
        found = {}
        for key, images in self.sources.items():
            lacks_C = (self.asked(len(classes)) > 0) & (images.usable(is_copy).reach(len(classes)) == 0)
            if lacks_C.any():
                found[key] = classes[int(np.flatnonzero(lacks_C)[0])]
        return found

    def parts(self, arm: ArmConfig, seed: int, num_classes: int, is_copy: Mapping[str, bool]) -> list[Images] | str:
        """The images of one arm and seed, without copies of holdout images; or why there can't be such an arm."""
        wanted_C = self.wanted(num_classes, is_copy)
        parts = []
        for name in arm.of:
            if name == REAL and REAL not in self.sources:  # in a diagnosis it is cut to the size of the others
                parts.append(self.draw.fit.usable(is_copy))
                continue
            source = self.draw.rest if name == MORE else self.sources.get(arm.key_of(name))
            if source is None or not len(source):
                return "there are not enough other real images" if name.startswith(MORE) else f"there are no images of {name}"
            source = source.usable(is_copy)
            if (source.reach(num_classes) < wanted_C).any():
                return f"{name} has too few images of a class"
            # Draw and seed alone decide, so that arms which take from one source take the same images.
            parts.append(source.draw(wanted_C, (self.draw.number, seed)))
        return parts
