"""Loss decomposition: how much of the lost accuracy is due to appearance, content and labels.

The terms are those of Wang, Schmedding and Huber (2024, arXiv 2311.03959). The measurement is our own: differences
between arms (see `arms`). The loss is real - random, and its parts are

- labels: label-filtered - random.
- appearance: real - rendered.
- content: real - resampled, less the cost of repeating images, label-filtered - repeated. The cost is measured on the
  pool, since its content is the one that is repeated; real images of all kinds would lose more by it.
- interaction: what resampling costs rendered images beyond what it costs real ones.
- rest: the remainder. It is rendered-resampled - repeated, or resampled - repeated without renderings. Images that lie
  between kinds are an example.

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

import numpy as np

from synthforge.arrays import Doubles
from synthforge.evaluation.diagnosis.arms import LABEL_FILTERED, RANDOM, RENDERED, RENDERED_RESAMPLED, REPEATED, RESAMPLED
from synthforge.evaluation.results.types import PARTS, Loss, LossPart, LossVerdict
from synthforge.recipe.evaluation import REAL
from synthforge.statistics import Measured, Word, estimate, share, verdicts

MOST_TAKEN = 2 / 3
"""Largest share of a pool that arms may take if the pool is to tell how other draws of real images would vary."""
_LARGEST = {"content": 2.0, "interaction": 2.0}
"""Largest value on one image, for parts that are the difference of two differences; it is 1 for others."""
_VERDICTS: dict[Word, LossVerdict] = {"helped": "loss", "hurt": "gain", "did not help": "none", "cannot tell": "cannot tell"}
"""Verdict of a difference to the verdict of the loss."""


def losses(
    settings: Sequence[Mapping[str, Doubles]], margin: float, unshown: Sequence[Collection[str]] = (), taken: Sequence[float] = ()
) -> list[Loss]:
    """The loss in each setting, and last its mean over all settings.

    Verdicts of the settings are corrected for their number, and so are those of the mean. In the mean a part counts
    as 0 where it is not shown. With one draw of real images, intervals of the whole and the rest allow for other
    draws if the pool tells how these would vary (`_of_other_draws`).

    Args:
        settings: for each, by arm, whether images were classified right (D, S, V). Arms that could not be made are
            missing.
        margin: a loss below this one does not count.
        unshown: for each setting, the parts in which the images can't be shown to differ.
        taken: for each setting, the share of the pool that `random` takes. 1: don't allow for other real images.
    """
    unshown = unshown or [()] * len(settings)
    each = [_contrasts(correct) for correct in settings]
    common = [name for name in each[0] if name != "rest" and all(name in differences for differences in each)]
    mean = {name: np.mean([differences[name] for differences in each], axis=0) for name in common}
    mean["rest"] = mean["whole"] - sum(mean[name] for name in PARTS if name in mean)
    nowhere = set.intersection(*map(set, unshown))
    taken = taken or [1.0] * len(settings)
    others = [_of_other_draws(correct, share) for correct, share in zip(settings, taken, strict=True)]
    mean_of = {name: np.mean([correct[name] for correct in settings], axis=0) for name in set.intersection(*map(set, settings))}
    of_mean = _of_other_draws(mean_of, max(taken))
    return [*_with_verdicts(each, margin, unshown, others), *_with_verdicts([mean], margin, [nowhere], [of_mean])]


def _contrasts(correct: Mapping[str, Doubles]) -> dict[str, Doubles]:
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


def _with_verdicts(
    each: Sequence[Mapping[str, Doubles]], margin: float, unshown: Sequence[Collection[str]], of_other_draws: Sequence[Mapping[str, float]]
) -> list[Loss]:
    shown = [
        {name: differences[name] for name in differences if name not in lacks} for differences, lacks in zip(each, unshown, strict=True)
    ]
    largest = [_LARGEST.get(name, 1.0) for differences in shown for name in differences]
    varying = [others.get(name, 0.0) for differences, others in zip(shown, of_other_draws, strict=True) for name in differences]
    judged = iter(verdicts([values_DSV for differences in shown for values_DSV in differences.values()], margin, largest, varying))
    results = []
    for differences, lacks, others in zip(shown, unshown, of_other_draws, strict=True):
        parts = dict.fromkeys(lacks, LossPart(loss=None, verdict="not shown"))
        for name, values_DSV in differences.items():
            most, varies = _LARGEST.get(name, 1.0), others.get(name, 0.0)
            ratio = share(values_DSV, differences["whole"], (varies, others.get("whole", 0.0))) if name != "whole" else None
            loss = Measured.difference(estimate(values_DSV, largest=most, of_other_draws=varies), most)
            parts[name] = LossPart(loss=loss, verdict=_VERDICTS[next(judged).word], share=ratio.rounded(4) if ratio is not None else None)
        unmeasured = LossPart(loss=None, verdict="not measured")
        results.append(Loss(whole=parts["whole"], parts={name: parts.get(name, unmeasured) for name in PARTS}))
    return results


def _of_other_draws(correct: Mapping[str, Doubles], taken: float) -> dict[str, float]:
    """Variance that other real images would give to the whole loss and to the rest, with a single draw.

    Only these two parts compare the pool with real images. The pool tells the variance, since each seed takes other
    images of it: another draw of real images is assumed to vary accuracy as much. Trainings vary too, so this is too
    much for a pool as varied as the real images; it may be too little for a less varied one. A choice of N from M
    images has 1 - N / M of the variance that it would have in an endless pool.
    """
    random_DSV = correct[RANDOM]
    if len(random_DSV) > 1 or random_DSV.shape[1] < 2 or taken > MOST_TAKEN:
        return {}
    by_part = {"whole": random_DSV, "rest": correct.get(REPEATED, random_DSV)}
    return {name: float(values_DSV[0].mean(axis=1).var(ddof=1)) / (1 - taken) for name, values_DSV in by_part.items()}
