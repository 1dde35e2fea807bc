"""What became of a diagnosis: how much of the loss is appearance, content, labels, and what to do about it, in words."""

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
from synthforge.evaluation.results.words import points
from synthforge.statistics import Measured, estimate

RECOGNISED = 0.9
"""If fewer of the rendered images are nearest to the real one that they started from, content was not kept."""
MANY_DOUBTS = 0.02
"""So large a share of the pool, beyond that of the real images, is worth naming."""


def tables_of(findings: Findings) -> list[TableDiagnosis]:
    """The parts of the loss in every setting, `own` first."""
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
    """Whether draws differ in them."""
    return len({tuple(findings.settings[index].draw.fit.sha256_N) for index in group}) > 1


def _taken(findings: Findings, index: int) -> float:
    """Share of its pool that an arm takes. 1 for a generator that was fitted on just these real images: if they are lucky ones, so may
    be its pool, so that they do not vary apart."""
    setting = findings.settings[index]
    if setting.origin == "own":
        return 1.0
    num_classes = len(findings.classes)
    wanted_C = setting.wanted(num_classes, findings.is_copy)
    there_C = setting.sources["random"].usable(findings.is_copy).per_class(num_classes)
    return float(np.average(wanted_C / np.maximum(there_C, 1), weights=wanted_C)) if wanted_C.any() else 1.0


def _unshown(of_group: Sequence[Setting]) -> set[str]:
    """Parts in which no image of any draw can be shown to differ, so that their arms are the same."""
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
    look = "" if facts.recognised is not None else ", looks included"
    told = f" The pool's images lie {facts.variety:.2f} times as far apart as the same number of real ones{look}."
    if facts.differing:
        told += f" In {facts.differing:.0%} of the classes they are distributed otherwise than the real ones{look} (5% by chance alone)."
    else:
        told += " In no class can they be shown to be distributed otherwise than so few real ones, so nothing was trained for content."
    if _many_doubts(facts):
        told += f" {facts.doubted:.0%} of them look like another class than theirs, and {facts.doubted_real:.0%} of the real ones."
    if facts.compared < 1:
        told += f" Only {facts.compared:.0%} of the real images could be compared, and stand for all."
    if facts.recognised is not None and facts.recognised < RECOGNISED:
        told += (
            f" Only {facts.recognised:.0%} of the rendered images are nearest to their own real one, so some of what is called appearance "
            "is content; lower diagnosis.strength."
        )
    return told


def _in_words(loss: Loss) -> str:
    whole = loss.whole
    assert whole.loss is not None
    told = f"synthetic images cost {points(whole.loss)} points of accuracy"
    if whole.verdict != "loss":
        words = {"none": ", no loss worth naming", "gain": ", so they are the better ones"}
        told += words.get(whole.verdict, ", which may be chance")
    parts = [f"{name} {_part_in_words(loss.parts[name])}" for name in PARTS]
    return f"{told}; {', '.join(parts)}"


def _part_in_words(part: LossPart) -> str:
    if part.loss is None:
        return "not measurable" if part.verdict == "not measured" else "not shown to differ"
    return points(part.loss) + ("" if part.verdict in {"loss", "gain"} else ", none" if part.verdict == "none" else " (may be chance)")


def notes_of(tables: Sequence[TableDiagnosis]) -> list[str]:
    """What is to be known of the means."""
    notes = []
    for table in tables:
        for name in PARTS if table.mean.whole.loss is not None else ():
            lacking = [f"{one.real_per_class:g}" for one in table.settings if one.loss.parts[name].verdict == "not shown"]
            if lacking and table.mean.parts[name].loss is not None:
                notes.append(f"{name}: with {', '.join(lacking)} real images per class none is shown, which counts as 0 in the mean")
    return notes


def of_intervals(findings: Findings, tables: Sequence[TableDiagnosis]) -> list[str]:
    """What they do not cover, as notes."""
    config = findings.config
    if config.draws > 1 or config.seeds == 1 or all(table.origin == "own" for table in tables):
        return findings.of_intervals
    if all(table.covers_real_images for table in tables if table.origin == "elsewhere"):
        told = "allow for others too, as if these varied like the choice of pool images"
    else:
        told = "do not all allow for others either: arms take too much of the pool for it to tell how these would vary"
    first = (
        "one draw: intervals cover seeds and holdout images, not other real images; those of the whole loss and of the rest by a pool from "
    )
    return [f"{first}elsewhere {told}", *findings.of_many]


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
        return f"{first}; of which part they come can't be told from so few trainings."
    if not shown:
        return f"{first}; more draws or seeds, or more real images, would tell."
    told = [f"{_lost(loss)} {_CAUSES[name]}{_share(mean.parts[name])}" for name, loss in shown]
    measurable: tuple[PartName, ...] = ("appearance", "content", "labels")
    unknown = [f"{name} could not be measured" for name in measurable if mean.parts[name].verdict == "not measured"]
    return f"{first}: {', '.join([*told, *unknown])}."


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
"""By part, and where there is no loss, or no part of it is proven."""


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
