"""Appearance, content or labels: how much of the lost accuracy comes of each.

The words are those of Wang, Schmedding and Huber (2024, arXiv 2311.03959); the measurement is an operational definition of our own, by
differences between arms (see `arms`). The loss is real - random, and its parts are

- labels: label-filtered - random.
- appearance: real - rendered.
- content: real - resampled, less what repeating images costs where content is the pool's, label-filtered - repeated. (Copies of some images
  of all kinds leave out more kinds than copies of some images of the pool's, so that repeating would cost real images more.)
- interaction: what resampling costs rendered images more than real ones.
- rest: what these leave, which is rendered-resampled - repeated, or resampled - repeated without renderings. It is neither look, nor how
  often there is what, nor labels. Images that lie between kinds are an example.

Images are compared with the renderings where there are some, so that the generated look does not pass for content. Where a class's pool
images can't be shown to be distributed otherwise than its real ones, none of it is repeated.
Not covered: content that no real image of the setting has, or that too few show; it is in the rest. Looks that low strengths leave as they
were, and without renderings all looks: they may open the test of content, and move images among the real ones. The cost of repeating is
taken from the pool, for want of real images of its content: if those are near copies of each other, repeating costs nothing there, and too
little variety counts as content.
Shapes: D draws, S seeds, V holdout images.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from synthforge.evaluation.diagnosis.arms import LABEL_FILTERED, RANDOM, RENDERED, RENDERED_RESAMPLED, REPEATED, RESAMPLED
from synthforge.evaluation.results.types import PARTS, Loss, LossPart, LossVerdict
from synthforge.evaluation.sets import Floats
from synthforge.recipe.evaluation import REAL
from synthforge.statistics import Measured, Word, estimate, share, verdicts

MOST_TAKEN = 2 / 3
"""Share of a pool up to which what arms take of it varies enough to say how other draws would."""
_LARGEST = {"content": 2.0, "interaction": 2.0}
"""Largest value on one image of parts that are the difference of two differences; for others it is 1."""
_VERDICTS: dict[Word, LossVerdict] = {"helped": "loss", "hurt": "gain", "did not help": "none", "cannot tell": "cannot tell"}
"""Verdict of a difference -> verdict of the loss that it is."""


def losses(
    settings: Sequence[Mapping[str, Floats]], margin: float, unshown: Sequence[Collection[str]] = (), taken: Sequence[float] = ()
) -> list[Loss]:
    """The loss in each setting, and last its mean over all of them.

    Verdicts of the settings allow for each other, and so do those of the means. In the mean a part counts as 0 where it was not shown.
    If there is one draw of the real images, intervals of the whole and the rest allow for others, where the pool tells how they would
    vary (`_of_other_draws`).

    Args:
        settings: in each, by arm, whether images were classified right (D, S, V); arms that could not be made are missing.
        margin: a loss below this one does not count.
        unshown: in each setting the parts whose arms are the same, since images can't be shown to differ in them.
        taken: in each setting the share of the pool that `random` takes; 1, or none at all, where other real images are not allowed for.
    """
    unshown = unshown or [()] * len(settings)
    each = [_contrasts(correct) for correct in settings]
    common = [name for name in each[0] if name != "rest" and all(name in found for found in each)]
    mean = {name: np.mean([found[name] for found in each], axis=0) for name in common}
    mean["rest"] = mean["whole"] - sum(mean[name] for name in PARTS if name in mean)
    nowhere = set.intersection(*map(set, unshown))
    taken = taken or [1.0] * len(settings)
    others = [_of_other_draws(correct, share) for correct, share in zip(settings, taken, strict=True)]
    mean_of = {name: np.mean([correct[name] for correct in settings], axis=0) for name in set.intersection(*map(set, settings))}
    of_mean = _of_other_draws(mean_of, max(taken))
    return [*_with_verdicts(each, margin, unshown, others), *_with_verdicts([mean], margin, [nowhere], [of_mean])]


def _contrasts(correct: Mapping[str, Floats]) -> dict[str, Floats]:
    """The whole loss and its parts, paired by draw, seed and image."""
    found = {"whole": correct[REAL] - correct[RANDOM]}
    if RENDERED in correct:
        found["appearance"] = correct[REAL] - correct[RENDERED]
    if {RESAMPLED, LABEL_FILTERED, REPEATED} <= correct.keys():
        found["content"] = correct[REAL] - correct[RESAMPLED] - (correct[LABEL_FILTERED] - correct[REPEATED])
    if LABEL_FILTERED in correct:
        found["labels"] = correct[LABEL_FILTERED] - correct[RANDOM]
    if RENDERED_RESAMPLED in correct and "content" in found:
        found["interaction"] = correct[RENDERED] - correct[RENDERED_RESAMPLED] - (correct[REAL] - correct[RESAMPLED])
    found["rest"] = found["whole"] - sum(found[name] for name in PARTS if name in found)
    return found


def _with_verdicts(
    each: Sequence[Mapping[str, Floats]], margin: float, unshown: Sequence[Collection[str]], of_other_draws: Sequence[Mapping[str, float]]
) -> list[Loss]:
    shown = [{name: found[name] for name in found if name not in lacks} for found, lacks in zip(each, unshown, strict=True)]
    largest = [_LARGEST.get(name, 1.0) for found in shown for name in found]
    varying = [others.get(name, 0.0) for found, others in zip(shown, of_other_draws, strict=True) for name in found]
    told = iter(verdicts([values_DSV for found in shown for values_DSV in found.values()], margin, largest, varying))
    results = []
    for found, lacks, others in zip(shown, unshown, of_other_draws, strict=True):
        parts = dict.fromkeys(lacks, LossPart(loss=None, verdict="not shown"))
        for name, values_DSV in found.items():
            most, varies = _LARGEST.get(name, 1.0), others.get(name, 0.0)
            ratio = share(values_DSV, found["whole"], (varies, others.get("whole", 0.0))) if name != "whole" else None
            loss = Measured.difference(estimate(values_DSV, largest=most, of_other_draws=varies), most)
            parts[name] = LossPart(loss=loss, verdict=_VERDICTS[next(told).word], share=ratio.rounded(4) if ratio is not None else None)
        unmeasured = LossPart(loss=None, verdict="not measured")
        results.append(Loss(whole=parts["whole"], parts={name: parts.get(name, unmeasured) for name in PARTS}))
    return results


def _of_other_draws(correct: Mapping[str, Floats], taken: float) -> dict[str, float]:
    """Variance of the whole loss, and of the rest, by other real images. For one draw of them, which may be a lucky one.

    Only these two parts compare the pool with real images; the others compare each with what was made of the same. The pool tells the
    variance, since each seed takes other images of it: another draw of real images is taken to vary accuracy as much as such a choice does.
    Accuracy varies by the training as well, so this is too much for a pool of the variety of the real images; it may be too little for one
    of less. A choice of N of M images varies by 1 - N / M of what it would in an endless pool.
    """
    random_DSV = correct[RANDOM]
    if len(random_DSV) > 1 or random_DSV.shape[1] < 2 or taken > MOST_TAKEN:
        return {}
    by_part = {"whole": random_DSV, "rest": correct.get(REPEATED, random_DSV)}
    return {name: float(values_DSV[0].mean(axis=1).var(ddof=1)) / (1 - taken) for name, values_DSV in by_part.items()}
