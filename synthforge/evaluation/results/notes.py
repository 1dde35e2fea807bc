"""Notes on figures: what intervals do not cover, whether the curve rises, whether training was long enough."""

from __future__ import annotations

import itertools

import numpy as np

from synthforge.evaluation.results.findings import Findings
from synthforge.evaluation.results.types import SettingResult
from synthforge.evaluation.results.words import number


def interval_notes(findings: Findings) -> list[str]:
    """What intervals do not cover, and what verdicts allow for."""
    return [*_uncovered(findings), *comparison_notes(findings)]


def comparison_notes(findings: Findings) -> list[str]:
    """That verdicts allow for the number of comparisons."""
    num = sum(len(setting.comparisons) for setting in findings.tables[0].settings) if findings.tables else 0
    return [f"intervals are of each figure by itself; verdicts of single comparisons allow for all {num} at once"] if num > 1 else []


def _uncovered(findings: Findings) -> list[str]:
    if findings.config.draws == 1 and findings.config.seeds == 1:
        return ["one draw and one seed: intervals cover holdout images only, so differences may be chance of a single training"]
    if findings.config.draws == 1:
        return ["one draw: intervals cover seeds and holdout images, not other real images, fits or pools; raise draws for these"]
    notes = []
    for amount in dict.fromkeys(draw.amount for draw in findings.draws):
        images_by_draw = [set(draw.fit.sha256_N) for draw in findings.draws if draw.amount == amount]
        num, where = len(set.union(*images_by_draw)), f"{len(images_by_draw[0]) / len(findings.classes):g} real per class"
        if num == len(images_by_draw[0]):
            notes.append(f"{where}: every draw has the same real images, so intervals do not cover other ones")
        elif sum(map(len, images_by_draw)) > num:
            notes.append(f"{where}: draws share real images, {num:,} in all; the interval is about these, and would be wider about others")
    for group in findings.plan.groups:
        settings = [findings.plan.settings[index] for index in group]
        where = settings[0].where
        pools = [[setting.sources[name].sha256_N for setting in settings] for name in settings[0].sources if " by " not in name]
        if any(np.array_equal(pool, others[0]) for others in pools for pool in others[1:]):
            notes.append(f"{where}: all draws share one pool, so intervals do not cover other fits or pools")
        elif pools and findings.config.fit is None:
            notes.append(f"{where}: one generator made the pools of all draws, so intervals do not cover other fits")
    return notes


def curve_notes(findings: Findings) -> list[str]:
    """Where more real images are no better, so the worth of synthetic images in real ones is uncertain."""
    falls = [
        f"{number(point.real_per_class)} to {number(later.real_per_class)}"
        for point, later in itertools.pairwise(findings.curve)
        if later.real_per_class > point.real_per_class and later.accuracy.value <= point.accuracy.value
    ]
    if not falls:
        return []
    return [f"accuracy does not rise from {' and '.join(falls)} real per class, so what images are worth in real ones is uncertain there"]


def step_notes(findings: Findings) -> list[str]:
    """Whether training was long enough."""
    settings = [setting for table in findings.tables for setting in table.settings]
    return [note for setting in settings if (note := _step_note(setting, findings.config.margin)) is not None]


def _step_note(setting: SettingResult, margin: float) -> str | None:
    mean, where = setting.steps_check_mean, f"{setting.real_per_class:g} real per class"
    if mean is None:
        return None
    change = f"twice the steps change accuracy by {100 * mean.value:+.1f} [{100 * mean.low:+.1f}, {100 * mean.high:+.1f}] points"
    if setting.has_enough_steps:
        if max(mean.high, -mean.low) <= margin:
            return None
        return f"{where}: {change} over all arms, so it can't be told to {100 * margin:g} points whether they were enough"
    moved = [name for name, one in setting.steps_check.items() if one.is_beyond(margin)]
    most = f", most of all {', '.join(moved)}" if moved else ""
    differences = [
        f", {one.arm} minus {one.against} by {100 * one.steps_change.value:+.1f}"
        for one in setting.comparisons
        if one.steps_change is not None and one.steps_change.leaves_out_0
    ]
    return f"{where}: {change} over all arms{most}{''.join(differences)}; raise trainer.steps before believing differences"
