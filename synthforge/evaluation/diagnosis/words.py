"""A diagnosis in words: how much of the loss is appearance, content or labels, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence

from synthforge.evaluation.diagnosis.labels import DOUBTED_BY_CHANCE
from synthforge.evaluation.results.types import PARTS, Advice, Cause, ImageFacts, Loss, LossPart, PartName, TableDiagnosis
from synthforge.evaluation.results.words import listed, lost
from synthforge.recipe.evaluation import EvaluationConfig
from synthforge.statistics import Measured

RECOGNISED = 0.9
"""Image-to-image kept the content if at least this share of rendered images is nearest to its own source image."""
MANY_DOUBTS = 0.02
"""Doubted labels are mentioned if their share in the pool exceeds that in the real images by this much."""


def sentence_of(per_class: float, loss: Loss, facts: ImageFacts | None) -> str:
    """One setting in words."""
    return f"{per_class:g} real images per class: {_in_words(loss)}.{_facts_in_words(facts)}"


def _many_doubts(facts: ImageFacts | None) -> bool:
    return facts is not None and facts.p_value <= DOUBTED_BY_CHANCE and facts.doubted - facts.doubted_real >= MANY_DOUBTS


def _facts_in_words(facts: ImageFacts | None) -> str:
    if facts is None:
        return ""
    look = "" if facts.recognised is not None else " (appearance and content together)"
    words = f" Variety of the pool: {facts.variety:.2f} times that of the same number of real images{look}."
    if facts.differing:
        words += f" Content differs significantly in {facts.differing:.0%} of the classes{look}; 5% are expected by chance."
    else:
        words += " With so few real images, no class differs significantly in content, so no classifier was trained for content."
    if _many_doubts(facts):
        words += f" {facts.doubted:.0%} of the pool's images look like another class, but only {facts.doubted_real:.0%} of the real images."
    if facts.compared < 1:
        words += f" Only {facts.compared:.0%} of the real images could be compared; the others are assumed to be like them."
    if facts.recognised is not None and facts.recognised < RECOGNISED:
        words += (
            f" Only {facts.recognised:.0%} of the rendered images are most similar to their own source image, so part of the loss by "
            "appearance is really due to content. Lower `diagnosis.strength`."
        )
    return words


def _in_words(loss: Loss) -> str:
    whole = loss.whole
    assert whole.loss is not None
    remark = {"none": " (no relevant loss)", "gain": " (so synthetic images are better)", "cannot tell": " (not significant)"}
    words = f"random synthetic images cost {lost(whole.loss)}{remark.get(whole.verdict, '')}"
    return f"{words}. Loss decomposition: {'; '.join(f'{name}: {_part_in_words(loss.parts[name])}' for name in PARTS)}"


def _part_in_words(part: LossPart) -> str:
    if part.loss is None:
        return "not measured" if part.verdict == "not measured" else "no measurable difference"
    remark = {"none": " (no relevant loss)", "cannot tell": " (not significant)"}
    return lost(part.loss, "points") + remark.get(part.verdict, "")


def notes_of(tables: Sequence[TableDiagnosis]) -> list[str]:
    """Notes on the means over settings."""
    notes = []
    for table in tables:
        for name in PARTS if table.mean.whole.loss is not None else ():
            lacking = [f"{one.real_per_class:g}" for one in table.settings if one.loss.parts[name].verdict == "not shown"]
            if lacking and table.mean.parts[name].loss is not None:
                notes.append(f"{name}: no measurable difference with {listed(lacking)} real images per class; the mean counts this as 0")
    return notes


def pool_note(config: EvaluationConfig, tables: Sequence[TableDiagnosis]) -> str | None:
    """What intervals of a single draw cover. None: several draws, one seed, or no pool from elsewhere."""
    elsewhere = [table for table in tables if table.origin == "elsewhere"]
    if config.draws > 1 or config.seeds == 1 or not elsewhere:
        return None
    if all(table.covers_real_images for table in elsewhere):
        covered = "also cover other real images, on the assumption that these vary as much as a random choice from the pool"
    else:
        covered = "cover other real images only where the pool is large enough to estimate this"
    return (
        "one draw: intervals cover seeds and test images, not other real images; exceptions are the total loss and the rest where the "
        f"generator was trained elsewhere: their intervals {covered}"
    )


def verdict_of(tables: Sequence[TableDiagnosis]) -> str:
    """The loss and its significant parts, over all settings of the first table."""
    if not tables:
        return "Nothing could be compared: there is no arm of real images, or none of synthetic images."
    mean = tables[0].mean
    assert mean.whole.loss is not None
    loss = lost(mean.whole.loss)
    amounts = [f"{one.real_per_class:g}" for one in tables[0].settings]
    scope = "" if tables[0].covers_real_images else " This holds for these real images; others were not tried."
    if mean.whole.verdict == "none":
        return f"Training on random synthetic images instead of as many real ones costs no relevant accuracy: {loss}.{scope}"
    if mean.whole.verdict == "gain":
        return f"Training on random synthetic images is better than training on as many real ones: the loss is negative, {loss}.{scope}"
    mean_over = "on average over" if len(amounts) > 1 else "with"
    first = f"Random synthetic images cost {loss} compared with as many real images, {mean_over} {listed(amounts)} real images per class."
    is_sure, shown = mean.whole.verdict == "loss", _largest_first(mean)
    if not is_sure:
        first += " This loss is not significant."
    if not shown:
        unclear = "With so few training runs its causes cannot be separated."
        return f"{first}{scope} {unclear if is_sure else 'Use more draws, seeds or real images to decide.'}"
    causes = [f"{lost(part, 'points')} {_CAUSES[name]}{_share(mean.parts[name])}" for name, part in shown]
    unknown = [name for name in ("appearance", "content", "labels") if mean.parts[name].verdict == "not measured"]
    words = f"{first}{scope} Statistically significant causes: {'; '.join(causes)}."
    return f"{words} Not measured: {listed(unknown)}." if unknown else words


def _largest_first(mean: Loss) -> list[tuple[PartName, Measured]]:
    """The significant parts, largest first."""
    return sorted(mean.shown.items(), key=lambda part: (part[1].value, part[0]), reverse=True)


def _share(part: LossPart) -> str:
    return f" ({part.share.value:.0%} of the loss [{part.share.low:.0%}, {part.share.high:.0%}])" if part.share is not None else ""


_CAUSES: dict[PartName, str] = {
    "appearance": "from appearance",
    "content": "from content",
    "labels": "from wrong labels",
    "interaction": "from appearance and content together, beyond the sum of both",
    "rest": "unexplained",
}
ADVICE: dict[Cause, str] = {
    "appearance": "Improve the generator: use a better one, or train it longer or on more real images. The loss comes from how the images "
    "look (appearance), and curation cannot repair that. You can also start from real images (`sampling.real_guidance`, low strength).",
    "content": "Curate (`synthforge curate`) from a larger pool. The loss comes from which variants of a class are shown, and how often "
    "(content). For more variety lower `sampling.guidance`, vary the prompts, or start from real images (`sampling.real_guidance`).",
    "labels": "Reduce wrong labels: keep the label filter on (`curation.gates.labels`) and raise `sampling.guidance`. Check the prompts of "
    "the affected classes. Too many images show another class than their label.",
    "interaction": "Curate first, then improve the generator. Appearance and content together cost more accuracy than the sum of both.",
    "rest": "Collect more real images. With them you can also train a better generator. The rest of the loss is not explained by "
    "appearance, content or wrong labels. Images between two variants of a class, or variants with too few real images, may cause it.",
    "none": "Use the synthetic images. Run `synthforge evaluate` to see whether adding them to real images helps.",
    "unclear": "Measure more precisely first: raise `evaluation.seeds` or `evaluation.draws`, or use more real images. "
    "No cause of the loss is significant yet.",
}
"""What to do next, by the cause of the loss."""


def advice_of(tables: Sequence[TableDiagnosis]) -> list[Advice]:
    """What to do next, the largest cause first."""
    if not tables:
        return []
    mean = tables[0].mean
    causes: list[Cause] = [name for name, _ in _largest_first(mean)]
    if "labels" not in causes and any(_many_doubts(one.facts) for one in tables[0].settings):
        causes.append("labels")
    if mean.whole.verdict in {"none", "gain"}:
        causes = ["none"]
    return [Advice(cause=cause, text=ADVICE[cause]) for cause in causes or ["unclear"]]
