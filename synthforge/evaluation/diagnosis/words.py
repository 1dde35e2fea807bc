"""Results of a diagnosis: the loss decomposition in figures and sentences, and the advice that follows from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from synthforge.evaluation.conditions import Setting
from synthforge.evaluation.diagnosis.contrasts import MOST_TAKEN, losses
from synthforge.evaluation.diagnosis.labels import DOUBTED_BY_CHANCE
from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.scores import Outcomes
from synthforge.evaluation.results.types import (
    ORIGINS,
    PARTS,
    Advice,
    Cause,
    ImageFacts,
    Loss,
    LossPart,
    PartName,
    SettingDiagnosis,
    TableDiagnosis,
)
from synthforge.evaluation.results.words import listed, lost
from synthforge.statistics import Measured, estimate

RECOGNISED = 0.9
"""Image-to-image kept the content if at least this share of rendered images is nearest to its own source image."""
MANY_DOUBTS = 0.02
"""Doubted labels are mentioned if their share in the pool exceeds that in the real images by this much."""


def tables_of(findings: Findings) -> list[TableDiagnosis]:
    """The loss decomposition of every setting, one table per origin; `own` first."""
    tables = []
    for origin in ORIGINS:
        groups = [group for group in findings.groups if findings.settings[group[0]].origin == origin]
        outcomes = [findings.arms_of(group) for group in groups]
        known = [(group, found) for group, found in zip(groups, outcomes, strict=True) if {"real", "random"} <= found.keys()]
        if not known:
            continue
        unshown = [_unshown([findings.settings[index] for index in group]) for group, _ in known]
        correct = [{name: one.correct_DSV for name, one in found.items()} for _, found in known]
        taken = [float(np.mean([_taken(findings, index) for index in group])) for group, _ in known]
        *each, mean = losses(correct, findings.config.margin, unshown, taken)
        settings = [_setting(findings, group, found, loss) for (group, found), loss in zip(known, each, strict=True)]
        generators = list(dict.fromkeys(findings.settings[group[0]].generator for group, _ in known))
        varied = [_has_other_real_images(findings, group) for group, _ in known]
        is_covered = all(varied) or (findings.config.draws == 1 < findings.config.seeds and max(taken) <= MOST_TAKEN)
        tables.append(
            TableDiagnosis(
                origin=origin,
                generator="; ".join(filter(None, generators)),
                settings=settings,
                mean=mean,
                covers_real_images=is_covered,
            )
        )
    return tables


def _setting(findings: Findings, group: Sequence[int], found: Mapping[str, Outcomes], loss: Loss) -> SettingDiagnosis:
    of_group = [findings.settings[index] for index in group]
    per_class = round(float(np.mean([setting.draw.per_class for setting in of_group])), 2)
    facts = _facts(of_group)
    return SettingDiagnosis(
        amount=str(of_group[0].draw.amount),
        real_per_class=per_class,
        loss=loss,
        facts=facts,
        accuracy={name: Measured.share(estimate(one.correct_DSV)) for name, one in found.items()},
        missing={name: why for (index, name), why in findings.missing.items() if index in group},
        sentence=f"{per_class:g} real images per class: {_in_words(loss)}.{_facts_in_words(facts)}",
    )


def _has_other_real_images(findings: Findings, group: Sequence[int]) -> bool:
    """Whether the draws of a group have different real images."""
    return len({tuple(findings.settings[index].draw.fit.sha256_N) for index in group}) > 1


def _taken(findings: Findings, index: int) -> float:
    """Share of its pool that an arm takes.

    It is 1 for a generator that was fitted on just these real images: the pool then varies with them.
    """
    setting = findings.settings[index]
    if setting.origin == "own":
        return 1.0
    num_classes = len(findings.classes)
    wanted_C = setting.wanted(num_classes, findings.is_copy)
    there_C = setting.sources["random"].usable(findings.is_copy).per_class(num_classes)
    return float(np.average(wanted_C / np.maximum(there_C, 1), weights=wanted_C)) if wanted_C.any() else 1.0


def _unshown(of_group: Sequence[Setting]) -> set[str]:
    """Parts in which no draw shows a difference. Their arms hold the same images, so there is nothing to train."""
    facts = [setting.facts for setting in of_group]
    found = set()
    if all(one and not one.get("differing") for one in facts):  # none, or too few images to ask
        found |= {"content", "interaction"}
    if all(one.get("doubted") == 0 for one in facts):
        found.add("labels")
    return found


def _facts(of_group: Sequence[Setting]) -> ImageFacts | None:
    found = [setting.facts for setting in of_group if setting.facts]
    if not found:
        return None
    mean = {name: round(sum(one[name] for one in found) / len(found), 4) for name in found[0] if all(name in one for one in found)}
    return ImageFacts(
        doubted=mean["doubted"],
        doubted_real=mean["doubted_real"],
        p_value=max(one["doubted_p"] for one in found),
        variety=mean["variety"],
        differing=mean.get("differing"),
        compared=mean["compared"],
        recognised=mean.get("recognised"),
    )


def _many_doubts(facts: ImageFacts | None) -> bool:
    return facts is not None and facts.p_value <= DOUBTED_BY_CHANCE and facts.doubted - facts.doubted_real >= MANY_DOUBTS


def _facts_in_words(facts: ImageFacts | None) -> str:
    if facts is None:
        return ""
    look = "" if facts.recognised is not None else " (including how they look)"
    words = f" Spread of the pool's images: {facts.variety:.2f} times that of as many real images{look}."
    if facts.differing:
        words += f" Content differs from the real images in {facts.differing:.0%} of the classes{look}; 5% are expected by chance."
    else:
        words += " No class differs measurably in content from so few real images, so no classifier was trained for content."
    if _many_doubts(facts):
        words += f" {facts.doubted:.0%} of the pool's images look like another class; of the real images {facts.doubted_real:.0%} do."
    if facts.compared < 1:
        words += f" Only {facts.compared:.0%} of the real images could be compared; they stand for all."
    if facts.recognised is not None and facts.recognised < RECOGNISED:
        words += (
            f" Only {facts.recognised:.0%} of the rendered images are nearest to their own source image, so part of the loss by "
            "appearance is really due to content. Lower `diagnosis.strength`."
        )
    return words


def _in_words(loss: Loss) -> str:
    whole = loss.whole
    assert whole.loss is not None
    remark = {"none": " (no relevant loss)", "gain": " (so synthetic images are better)", "cannot tell": " (not significant)"}
    words = f"random synthetic images lose {lost(whole.loss)}{remark.get(whole.verdict, '')}"
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


def of_intervals(findings: Findings, tables: Sequence[TableDiagnosis]) -> list[str]:
    """Notes on what the intervals do not cover."""
    config = findings.config
    if config.draws > 1 or config.seeds == 1 or all(table.origin == "own" for table in tables):
        return findings.of_intervals
    if all(table.covers_real_images for table in tables if table.origin == "elsewhere"):
        covered = "also cover other real images, assumed to vary as much as the choice of pool images"
    else:
        covered = "do not cover them everywhere either, since some arms take too much of the pool to estimate that"
    first = (
        "one draw: intervals cover seeds and test images, not other real images; those of the whole loss and of the rest, for a pool from "
    )
    return [f"{first}elsewhere, {covered}", *findings.of_many]


def verdict_of(tables: Sequence[TableDiagnosis]) -> str:
    """The loss and its significant parts, over all settings of the first table."""
    if not tables:
        return "Nothing could be compared: there is no arm of real images, or none of synthetic images."
    mean = tables[0].mean
    assert mean.whole.loss is not None
    loss = lost(mean.whole.loss)
    amounts = [f"{one.real_per_class:g}" for one in tables[0].settings]
    scope = " This holds for the given real images; others were not tried." * (not tables[0].covers_real_images)
    if mean.whole.verdict == "none":
        return f"Random synthetic images lose no relevant accuracy compared with as many real images: {loss}.{scope}"
    if mean.whole.verdict == "gain":
        return f"Random synthetic images are better than as many real images: their loss is {loss}.{scope}"
    mean_over = "on average over" if len(amounts) > 1 else "with"
    first = f"Random synthetic images lose {loss} compared with as many real images, {mean_over} {listed(amounts)} real images per class."
    is_sure, shown = mean.whole.verdict == "loss", _largest_first(mean)
    if not is_sure:
        first += " This loss is not significant."
    if not shown:
        unclear = "Its causes cannot be separated with so few trainings." if is_sure else ""
        return f"{first}{scope} {unclear or 'Use more draws, seeds or real images to decide.'}"
    causes = [f"{lost(part, 'points')} {_CAUSES[name]}{_share(mean.parts[name])}" for name, part in shown]
    unknown = [name for name in ("appearance", "content", "labels") if mean.parts[name].verdict == "not measured"]
    words = f"{first}{scope} Statistically significant causes: {'; '.join(causes)}."
    return words + f" Not measured: {listed(unknown)}." * bool(unknown)


def _largest_first(mean: Loss) -> list[tuple[PartName, Measured]]:
    """The significant parts."""
    return sorted(mean.shown.items(), key=lambda part: (part[1].value, part[0]), reverse=True)


def _share(part: LossPart) -> str:
    return f" ({part.share.value:.0%} of the loss [{part.share.low:.0%}, {part.share.high:.0%}])" if part.share is not None else ""


_CAUSES: dict[PartName, str] = {
    "appearance": "from appearance",
    "content": "from content",
    "labels": "from wrong labels",
    "interaction": "from appearance and content together, beyond the sum of both",
    "rest": "from no measured cause",
}
ADVICE: dict[Cause, str] = {
    "appearance": "Improve the generator: use a better one, or train it longer or on more real images. The loss comes from how the images "
    "look (appearance), and curation cannot repair that. You can also start from real images (`sampling.real_guidance`, low strength).",
    "content": "Curate (`synthforge curate`) from a larger pool. The loss comes from which variants of a class are shown, and how often "
    "(content). For more variety lower `sampling.guidance`, vary the prompts, or start from real images (`sampling.real_guidance`).",
    "labels": "Reduce wrong labels: keep `curation.gates.labels` on and raise `sampling.guidance`. Check the prompts of the affected "
    "classes. Too many images show another class than their label.",
    "interaction": "Curate first, then improve the generator. Appearance and content together lose more accuracy than the sum of both.",
    "rest": "Collect more real images. With them you can also train a better generator. The rest of the loss comes from neither "
    "appearance, content nor wrong labels. Possible causes: images between two variants of a class, or variants with too few real images.",
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
