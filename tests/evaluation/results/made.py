"""Small results, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from synthforge.evaluation.results.types import (
    ArmScore,
    Claim,
    Comparison,
    EvaluateResult,
    Kind,
    Origin,
    RequiredClaim,
    SettingResult,
    TableResult,
    Use,
    Worth,
)
from synthforge.statistics import Measured, Over, Word


def measured(value: float, low: float | None = None, high: float | None = None) -> Measured:
    """With an interval of a point on either side unless another is given."""
    return Measured(value=value, low=value - 0.01 if low is None else low, high=value + 0.01 if high is None else high)


def comparison(arm: str, against: str, verdict: Word = "cannot tell", value: float = 0.0, over: Over = "draws and images") -> Comparison:
    return Comparison(
        arm=arm,
        against=against,
        difference=measured(value),
        p_adjusted=0.5,
        verdict=verdict,
        draws_needed=12,
        interval_over=over,
        by_class={},
    )


def claim(kind: Kind, what: str, *values: float, verdict: Word | None = None, over: Over = "draws and images") -> Claim:
    """The mean of differences; the verdict says whether that is a point from 0 unless it is given."""
    mean = sum(values) / len(values)
    return Claim(
        kind=kind,
        what=what,
        comparisons=len(values),
        difference=measured(mean),
        lowest=min(values),
        highest=max(values),
        p_adjusted=0.5,
        verdict=verdict or ("helped" if mean > 0.01 else "hurt" if mean < -0.01 else "cannot tell"),
        draws_needed=12,
        interval_over=over,
    )


def score(arm: str, accuracy: Measured) -> ArmScore:
    return ArmScore(
        arm=arm,
        images=100,
        accuracy=accuracy,
        interval_over="draws and images",
        recall={},
        calibration_error=0.1,
        log_loss=0.5,
        draws=2,
        seeds=2,
    )


def worth(arm: str, rate: float) -> Worth:
    return Worth(
        arm=arm,
        equivalent=measured(20.0),
        low_is_end=False,
        high_is_end=False,
        at_least=False,
        at_most=False,
        more_real=measured(5.0),
        others_per_real=measured(rate, rate / 2, 2 * rate),
        recovered=None,
    )


def setting(
    comparisons: Sequence[Comparison] = (),
    arms: Mapping[str, Measured] | None = None,
    *,
    per_class: float = 20,
    ratio: float = 1.0,
    steps_check: Mapping[str, Measured] | None = None,
    steps_check_mean: Measured | None = None,
    has_enough_steps: bool = True,
    **rates: float,
) -> SettingResult:
    """Args: rates: others per real image, by arm."""
    return SettingResult(
        amount=f"{per_class:g}",
        real_per_class=float(per_class),
        synthetic_per_real=float(ratio),
        budget=200,
        arms={name: score(name, accuracy) for name, accuracy in (arms or {}).items()},
        comparisons=list(comparisons),
        worth={name: worth(name, rate) for name, rate in rates.items()},
        steps_check=dict(steps_check or {}),
        steps_check_mean=steps_check_mean,
        has_enough_steps=has_enough_steps,
        sentence="",
        missing={},
    )


def table(
    settings: Sequence[SettingResult], claims: Sequence[Claim] = (), origin: Origin = "own", required: Sequence[RequiredClaim] = ()
) -> TableResult:
    return TableResult(origin=origin, generator="", settings=list(settings), claims=list(claims), required=list(required))


def evaluation(*tables: TableResult, use: Use = "no proof") -> EvaluateResult:
    return EvaluateResult(
        holdout="holdout",
        holdout_images=100,
        classes=["a", "b"],
        verdict="",
        tables=list(tables),
        curve=[],
        tuned=[],
        trainer={},
        steps=10,
        copies_removed={},
        notes=[],
        trainings=4,
        device="cpu",
        seconds=1.0,
        use=use,
    )
