"""Loss decomposition: how much of the lost accuracy is due to appearance, content and labels.

The terms are those of Wang, Schmedding and Huber (2024, arXiv 2311.03959). The measurement is our own: differences
between arms (see `arms`). The loss is real - random, and its parts are

- labels: label-filtered - random.
- appearance: real - rendered.
- content: (real - resampled) - (label-filtered - repeated). The second bracket is the cost of repeating images.
  Repeating costs less where variety is small. `resampled` has the pool's content, so its cost is measured on the pool.
- interaction: what resampling costs rendered images beyond what it costs real ones.
- rest: the remainder. It is rendered-resampled - repeated, or resampled - repeated without renderings. One cause: pool
  images between two kinds.

Pool images are compared with renderings if there are some, so that a generated look does not count as content. A class
is only resampled if its pool images are shown to be distributed unlike its real ones.

Not covered:
- content that none or too few of the real images show; it is in the rest.
- looks that a low strength leaves unchanged, and without renderings all looks; they may pass for content.
- pools of near copies: repeating costs nothing there, so too little variety counts as content.

Shapes: D draws, S seeds, V holdout images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synthforge.arrays import Doubles
from synthforge.evaluation.diagnosis.arms import LABEL_FILTERED, RANDOM, RENDERED, RENDERED_RESAMPLED, REPEATED, RESAMPLED
from synthforge.evaluation.results.types import PARTS, Loss, LossPart, LossVerdict
from synthforge.recipe.evaluation import REAL
from synthforge.statistics import Judged, Measured, Word, estimate, share, verdicts

MOST_TAKEN = 2 / 3
"""Largest share of a pool that arms may take if the pool is to tell how other draws of real images would vary."""
_LARGEST = {"content": 2.0, "interaction": 2.0}
"""Largest value on one image, for parts that are the difference of two differences; it is 1 for others."""
_VERDICTS: dict[Word, LossVerdict] = {"helped": "loss", "hurt": "gain", "did not help": "none", "cannot tell": "cannot tell"}
"""Verdict of a difference to the verdict of the loss."""


@dataclass(frozen=True)
class ArmOutcomes:
    """What the losses of one setting are computed from."""

    correct: Mapping[str, Doubles]
    """By arm, whether images were classified right (D, S, V). Arms that could not be made are missing."""
    untested: Collection[str] = ()
    """Parts not tested, since arms would hold the same images."""
    taken: float = 1.0
    """Share of the pool that `random` takes. 1: intervals do not allow for other real images."""

    @property
    def pool_tells_of_other_draws(self) -> bool:
        """Whether intervals of a single draw can allow for other draws: each seed takes other images of the pool."""
        num_draws, num_seeds, _ = self.correct[RANDOM].shape
        return num_draws == 1 < num_seeds and self.taken <= MOST_TAKEN

    @property
    def of_other_draws(self) -> dict[str, float]:
        """Variance that other real images would give to the whole loss and to the rest, with a single draw.

        Only these two parts compare the pool with real images. The pool tells the variance, since each seed takes other
        images of it: another draw of real images is assumed to vary accuracy as much. Trainings vary too, so this is
        too much for a pool as varied as the real images; it may be too little for a less varied one. A choice of N from
        M images has 1 - N / M of the variance that it would have in an endless pool.
        """
        if not self.pool_tells_of_other_draws:
            return {}
        by_part = {"whole": self.correct[RANDOM], "rest": self.correct.get(REPEATED, self.correct[RANDOM])}
        return {name: float(values_DSV[0].mean(axis=1).var(ddof=1)) / (1 - self.taken) for name, values_DSV in by_part.items()}


class _Contrast(NamedTuple):
    """The whole loss or one part of it, in one setting."""

    values_DSV: Doubles
    largest: float
    """Largest value on one image."""
    of_other_draws: float
    """Variance by other draws than the only one."""


def losses(settings: Sequence[ArmOutcomes], margin: float) -> list[Loss]:
    """The loss in each setting, and last its mean over all settings.

    Verdicts of the settings are corrected for their number, and so are those of the mean. In the mean a part counts
    as 0 where it is not tested. With one draw of real images, intervals of the whole and the rest allow for other
    draws if the pool tells how these would vary.

    Args:
        margin: a loss below this one does not count.
    """
    each = [_differences(setting.correct) for setting in settings]
    common = [name for name in each[0] if name != "rest" and all(name in differences for differences in each)]
    mean = {name: np.mean([differences[name] for differences in each], axis=0) for name in common}
    mean["rest"] = mean["whole"] - sum(mean[name] for name in PARTS if name in mean)
    arms = set.intersection(*(set(one.correct) for one in settings))
    untested = set.intersection(*(set(one.untested) for one in settings))
    correct = {name: np.mean([one.correct[name] for one in settings], axis=0) for name in arms}
    of_mean = ArmOutcomes(correct, untested, taken=max(one.taken for one in settings))
    return [*_with_verdicts(settings, each, margin), *_with_verdicts([of_mean], [mean], margin)]


def _differences(correct: Mapping[str, Doubles]) -> dict[str, Doubles]:
    """The whole loss and its parts, paired by draw, seed and image."""
    differences = {"whole": correct[REAL] - correct[RANDOM]}
    if RENDERED in correct:
        differences["appearance"] = correct[REAL] - correct[RENDERED]
    if {RESAMPLED, LABEL_FILTERED, REPEATED} <= correct.keys():
        differences["content"] = correct[REAL] - correct[RESAMPLED] - (correct[LABEL_FILTERED] - correct[REPEATED])
    if LABEL_FILTERED in correct:
        differences["labels"] = correct[LABEL_FILTERED] - correct[RANDOM]
    if RENDERED_RESAMPLED in correct and "content" in differences:
        differences["interaction"] = correct[RENDERED] - correct[RENDERED_RESAMPLED] - (correct[REAL] - correct[RESAMPLED])
    differences["rest"] = differences["whole"] - sum(differences[name] for name in PARTS if name in differences)
    return differences


def _with_verdicts(settings: Sequence[ArmOutcomes], each: Sequence[Mapping[str, Doubles]], margin: float) -> list[Loss]:
    """The losses of settings from their differences; verdicts are corrected for all of these together."""
    contrasts = {
        (index, name): _Contrast(values_DSV, _LARGEST.get(name, 1.0), setting.of_other_draws.get(name, 0.0))
        for index, (setting, differences) in enumerate(zip(settings, each, strict=True))
        for name, values_DSV in differences.items()
        if name not in setting.untested
    }
    values, largest, of_other_draws = zip(*contrasts.values(), strict=True)
    judged = dict(zip(contrasts, verdicts(values, margin, largest, of_other_draws), strict=True))
    results = []
    for index, setting in enumerate(settings):
        whole = contrasts[index, "whole"]
        parts = {name: LossPart(loss=None, verdict="not shown" if name in setting.untested else "not measured") for name in PARTS}
        parts |= {name: _part(contrasts[index, name], whole, judged[index, name]) for name in PARTS if (index, name) in contrasts}
        results.append(Loss(whole=_part(whole, None, judged[index, "whole"]), parts=parts))
    return results


def _part(one: _Contrast, whole: _Contrast | None, judged: Judged) -> LossPart:
    """A figure with its verdict, and with its share of `whole` if that is given."""
    loss = Measured.difference(estimate(one.values_DSV, largest=one.largest, of_other_draws=one.of_other_draws), one.largest)
    ratio = share(one.values_DSV, whole.values_DSV, (one.of_other_draws, whole.of_other_draws)) if whole is not None else None
    return LossPart(loss=loss, verdict=_VERDICTS[judged.word], share=ratio.rounded(4) if ratio is not None else None)
