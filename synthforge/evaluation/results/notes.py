"""Notes on figures: what intervals do not cover, whether the curve rises, whether training was long enough."""

from __future__ import annotations

import itertools

import numpy as np

from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.types import SettingResult
from synthforge.evaluation.results.words import number, points


def interval_notes(findings: Findings) -> list[str]:
    """What intervals do not cover, and what verdicts allow for."""
    return [*_uncovered(findings), *comparison_notes(findings)]


def comparison_notes(findings: Findings) -> list[str]:
    """That verdicts allow for the number of comparisons."""
    num = sum(len(setting.comparisons) for setting in findings.tables[0].settings) if findings.tables else 0
    return [f"intervals are not corrected for multiple comparisons; verdicts are, for all {num} of them (Holm)"] if num > 1 else []


def _uncovered(findings: Findings) -> list[str]:
    if findings.config.draws == 1 and findings.config.seeds == 1:
        return ["one draw and one seed: intervals cover only the test images, so a difference may be due to chance in one training run"]
    if findings.config.draws == 1:
        return ["one draw: intervals cover seeds and test images, not other real images, generators or pools; raise `draws` to cover these"]
    notes = []
    for amount in dict.fromkeys(draw.amount for draw in findings.draws):
        images_by_draw = [set(draw.fit.sha256_N) for draw in findings.draws if draw.amount == amount]
        num, where = len(set.union(*images_by_draw)), f"{len(images_by_draw[0]) / len(findings.classes):g} real images per class"
        if num == len(images_by_draw[0]):
            notes.append(f"{where}: all draws have the same real images, so intervals do not cover other real images")
        elif sum(map(len, images_by_draw)) > num:
            notes.append(f"{where}: draws overlap ({num:,} different real images in all); with others intervals would be wider")
    for group in findings.plan.groups:
        settings = [findings.plan.settings[index] for index in group]
        where = settings[0].where
        pools = [[setting.sources[name].sha256_N for setting in settings] for name in settings[0].sources if " by " not in name]
        if any(np.array_equal(pool, others[0]) for others in pools for pool in others[1:]):
            notes.append(f"{where}: all draws share one pool, so intervals do not cover other generators or pools")
        elif pools and findings.config.fit is None:
            notes.append(f"{where}: one generator made the pools of all draws, so intervals do not cover other generators")
    return notes


def curve_notes(findings: Findings) -> list[str]:
    """Where accuracy does not rise with more real images, so exchange rates are uncertain."""
    falls = [
        f"{number(point.real_per_class)} to {number(later.real_per_class)}"
        for point, later in itertools.pairwise(findings.curve)
        if later.real_per_class > point.real_per_class and later.accuracy.value <= point.accuracy.value
    ]
    if not falls:
        return []
    return [f"accuracy does not rise from {' and '.join(falls)} real images per class, so exchange rates are uncertain there"]


def step_notes(findings: Findings) -> list[str]:
    """Whether training was long enough."""
    settings = [setting for table in findings.tables for setting in table.settings]
    return [note for setting in settings if (note := _step_note(setting, findings.config.margin)) is not None]


def _step_note(setting: SettingResult, margin: float) -> str | None:
    mean, where = setting.steps_check_mean, f"{setting.real_per_class:g} real images per class"
    if mean is None:
        return None
    change = f"twice the steps change accuracy by {points(mean)} points on average over all arms"
    # A difference may change where the average does not. One of several may seem to, so it has to be by the margin.
    least = margin if setting.has_enough_steps else 0.0
    differences = [
        f"; {one.arm} minus {one.against} changes by {100 * one.steps_change.value:+.1f} points"
        for one in setting.comparisons
        if one.steps_change is not None and one.steps_change.is_beyond(least)
    ]
    if setting.has_enough_steps and not differences:
        if max(mean.high, -mean.low) <= margin:
            return None
        return f"{where}: {change}, so it is uncertain whether the steps were enough (margin {100 * margin:g} points)"
    moved = [name for name, one in setting.steps_check.items() if one.is_beyond(margin)]
    most = f"; arms that change most: {', '.join(moved)}" if moved else ""
    return f"{where}: {change}{most}{''.join(differences)}; raise `trainer.steps` before you rely on differences"
