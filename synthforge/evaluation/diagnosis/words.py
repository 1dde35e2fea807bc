"""A diagnosis in words: how much of the loss is appearance, content or labels, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from synthforge.evaluation.diagnosis.labels import DOUBTED_BY_CHANCE
from synthforge.evaluation.results.types import PARTS, Advice, Cause, ImageFacts, Loss, LossPart, PartName, TableDiagnosis
from synthforge.evaluation.results.words import points
from synthforge.recipe.evaluation import EvaluationConfig
from synthforge.statistics import Measured

RECOGNISED = 0.9
"""Content was not kept if a smaller share of the renderings is nearest to their own real image."""
MANY_DOUBTS = 0.02
"""Smallest share of doubtful labels worth naming, beyond the share among the real images."""


def sentence_of(per_class: float, loss: Loss, facts: ImageFacts | None) -> str:
    """One setting in words."""
    return f"{per_class:g} real images per class: {_in_words(loss)}.{_facts_in_words(facts)}"


def _many_doubts(facts: ImageFacts | None) -> bool:
    return facts is not None and facts.p_value <= DOUBTED_BY_CHANCE and facts.doubted - facts.doubted_real >= MANY_DOUBTS


def _facts_in_words(facts: ImageFacts | None) -> str:
    if facts is None:
        return ""
    look = "" if facts.recognised is not None else ", looks included"
    words = f" The pool's images lie {facts.variety:.2f} times as far apart as the same number of real ones{look}."
    if facts.differing:
        words += f" In {facts.differing:.0%} of the classes they are distributed otherwise than the real ones{look} (5% by chance alone)."
    else:
        words += " In no class can they be shown to be distributed otherwise than so few real ones, so nothing was trained for content."
    if _many_doubts(facts):
        words += f" {facts.doubted:.0%} of them look like another class than theirs, and {facts.doubted_real:.0%} of the real ones."
    if facts.compared < 1:
        words += f" Only {facts.compared:.0%} of the real images could be compared, and stand for all."
    if facts.recognised is not None and facts.recognised < RECOGNISED:
        words += (
            f" Only {facts.recognised:.0%} of the rendered images are nearest to their own real one, so some of what is called appearance "
            "is content; lower diagnosis.strength."
        )
    return words


def _in_words(loss: Loss) -> str:
    whole = loss.whole
    assert whole.loss is not None
    verdicts = {"loss": "", "none": ", no loss worth naming", "gain": ", so they are the better ones"}
    verdict = verdicts.get(whole.verdict, ", which may be chance")
    parts = ", ".join(f"{name} {_part_in_words(loss.parts[name])}" for name in PARTS)
    return f"synthetic images cost {points(whole.loss)} points of accuracy{verdict}; {parts}"


def _part_in_words(part: LossPart) -> str:
    if part.loss is None:
        return "not measurable" if part.verdict == "not measured" else "not shown to differ"
    return points(part.loss) + ("" if part.verdict in {"loss", "gain"} else ", none" if part.verdict == "none" else " (may be chance)")


def notes_of(tables: Sequence[TableDiagnosis]) -> list[str]:
    """Settings in which a part is not shown and counts as 0 in the mean."""
    notes = []
    for table in tables:
        for name in PARTS if table.mean.whole.loss is not None else ():
            lacking = [f"{one.real_per_class:g}" for one in table.settings if one.loss.parts[name].verdict == "not shown"]
            if lacking and table.mean.parts[name].loss is not None:
                notes.append(f"{name}: with {', '.join(lacking)} real images per class none is shown, which counts as 0 in the mean")
    return notes


def pool_note(config: EvaluationConfig, tables: Sequence[TableDiagnosis]) -> str | None:
    """What intervals of a single draw cover, with a pool from elsewhere. None: there is no such pool or interval."""
    elsewhere = [table for table in tables if table.origin == "elsewhere"]
    if config.draws > 1 or config.seeds == 1 or not elsewhere:
        return None
    if all(table.covers_real_images for table in elsewhere):
        others = "allow for others too, as if these varied like the choice of pool images"
    else:
        others = "do not all allow for others either: arms take too much of the pool for it to tell how these would vary"
    return (
        "one draw: intervals cover seeds and holdout images, not other real images; "
        f"those of the whole loss and of the rest by a pool from elsewhere {others}"
    )


def verdict_of(tables: Sequence[TableDiagnosis]) -> str:
    """The loss and its parts over all settings of the first table."""
    if not tables:
        return "Nothing could be compared: there is no arm of real or of synthetic images."
    mean = tables[0].mean
    assert mean.whole.loss is not None
    these = "" if tables[0].covers_real_images else " (these ones; others were not tried)"
    if mean.whole.verdict == "none":
        return f"Random synthetic images lose nothing worth naming against real ones{these}: {_lost(mean.whole.loss)} points of accuracy."
    if mean.whole.verdict == "gain":
        return f"Random synthetic images are better than as many real ones{these}: they lose {_lost(mean.whole.loss)} points of accuracy."
    amounts = ", ".join(f"{one.real_per_class:g}" for one in tables[0].settings)
    over = f"on average over {amounts}" if len(tables[0].settings) > 1 else f"with {amounts}"
    over += f" real ones per class{these}"
    first = f"Random synthetic images in place of as many real ones lose {_lost(mean.whole.loss)} points of accuracy, {over}"
    shown = _largest_first(mean)
    is_sure = mean.whole.verdict == "loss"
    first += "" if is_sure else ", which may be chance"
    if not shown and is_sure:
        return f"{first}; so few trainings can't tell by which part."
    if not shown:
        return f"{first}; more draws or seeds, or more real images, would tell."
    causes = [f"{_lost(loss)} {_CAUSES[name]}{_share(mean.parts[name])}" for name, loss in shown]
    measurable: tuple[PartName, ...] = ("appearance", "content", "labels")
    unknown = [f"{name} could not be measured" for name in measurable if mean.parts[name].verdict == "not measured"]
    return f"{first}: {', '.join([*causes, *unknown])}."


def _largest_first(mean: Loss) -> list[tuple[PartName, Measured]]:
    """The parts that are proven."""
    return sorted(mean.shown.items(), key=lambda part: (part[1].value, part[0]), reverse=True)


def _lost(one: Measured) -> str:
    """A loss in points of accuracy."""
    return f"{100 * one.value:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]"


def _share(part: LossPart) -> str:
    return f" ({part.share.value:.0%} [{part.share.low:.0%}, {part.share.high:.0%}] of it)" if part.share is not None else ""


_CAUSES: dict[PartName, str] = {
    "appearance": "by appearance",
    "content": "by content",
    "labels": "by wrong labels",
    "interaction": "by content and appearance together, beyond both alone",
    "rest": "without a known cause",
}
ADVICE: dict[Cause, str] = {
    "appearance": "Appearance: the images look generated. A better generator, or one fitted longer or on more real images, is what helps; "
    "curation can't mend it. Images that start from real ones (sampling.real_guidance, low strength) look more like them.",
    "content": "Content: the pool shows the wrong mix of kinds within its classes. Curate it (`synthforge curate`), from a larger pool; "
    "lower sampling.guidance and vary the prompts for more variety; or start from real images (sampling.real_guidance).",
    "labels": "Labels: too many images show another class than theirs. Keep curation.gates.labels on, raise sampling.guidance, "
    "and look at the prompts of the classes concerned.",
    "interaction": "Content and appearance add up to more than each alone: curate first, then look at the generator.",
    "rest": "The unexplained rest: get more real images; with these a better generator can be fitted too. It is what can't be put down to "
    "look, mix of kinds within a class, or labels, such as images that lie between kinds, or kinds that too few real images show.",
    "none": "Nothing to mend: use the images, and let `synthforge evaluate` say whether adding them to real ones helps.",
    "unclear": "More to tell from first: raise evaluation.seeds or evaluation.draws, or give more real images, until a part stands out.",
}
"""By part; `none`: there is no loss, `unclear`: no part of it is proven."""


def advice_of(tables: Sequence[TableDiagnosis]) -> list[Advice]:
    """What to do next, the largest part first."""
    if not tables:
        return []
    mean = tables[0].mean
    causes: list[Cause] = [name for name, _ in _largest_first(mean)]
    if "labels" not in causes and any(_many_doubts(one.facts) for one in tables[0].settings):
        causes.append("labels")
    if mean.whole.verdict in {"none", "gain"}:
        causes = ["none"]
    return [Advice(cause=cause, text=ADVICE[cause]) for cause in causes or ["unclear"]]
