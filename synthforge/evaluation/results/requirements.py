"""Requirements such as "curated > random", and whether an evaluation meets them. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from synthforge.errors import RequestError
from synthforge.evaluation.results.types import TableResult

_REQUIREMENT = re.compile(r"^\s*([^<>=@]+?)\s*(>=|>)\s*([^<>=@]+?)\s*(?:@\s*(\w+)\s*)?$")


@dataclass(frozen=True)
class Requirement:
    """A comparison that must hold; otherwise the command's exit status is 1."""

    text: str
    arm: str
    is_strict: bool
    """Whether it is `>`; otherwise `>=`."""
    other: str
    """The other arm; empty if `arm` is compared with an accuracy."""
    level: float | None
    """An accuracy from 0 to 1. None: `arm` is compared with `other`."""
    amount: str | None
    """Amount of real data. None: all amounts together."""

    @property
    def pair(self) -> tuple[str, str, str | None]:
        """Both arms and the amount."""
        return self.arm, self.other, self.amount


def parsed(text: str, arms: Sequence[str], amounts: Sequence[str]) -> Requirement:
    """A requirement from the command line; raises RequestError."""
    match = _REQUIREMENT.match(text)
    if match is None:
        raise RequestError(f'--require {text!r}: write it like "curated > random", "real+curated >= real" or "curated > 0.9 @ 20"')
    arm, relation, other, amount = match.groups()
    level = _as_accuracy(other) if other not in arms else None
    for name in (arm, other):
        if name not in arms and not (name == other and level is not None):
            raise RequestError(f"--require {text!r}: there is no arm {name!r}; there are {', '.join(arms)}")
    if amount is not None and amount not in amounts:
        raise RequestError(f"--require {text!r}: {amount} is not one of the amounts of real data; there are {', '.join(amounts)}")
    return Requirement(text=text, arm=arm, is_strict=relation == ">", other="" if level is not None else other, level=level, amount=amount)


def title_of(arm: str, other: str, amount: str | None) -> str:
    """What is compared, such as "curated minus random with 20 real images per class"."""
    return f"{arm} minus {other}" + (f" with {amount} real images per class" if amount is not None else "")


def _as_accuracy(text: str) -> float | None:
    try:
        value = float(text.rstrip("% ")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None


def holds(requirement: Requirement, tables: Sequence[TableResult]) -> bool:
    """Whether a requirement holds in the first table, for all settings of its amount.

    `a > b`: a helped over b on average, and is not proven to hurt in any setting.
    `a >= b`: a is proven to hurt neither on average nor in any setting.
    `a > 0.9`: the whole interval lies above 0.9 in every setting. `a >= 0.9`: it does not lie wholly below 0.9 in any
    setting.
    """
    table = tables[0] if tables else None
    settings = [setting for setting in (table.settings if table else []) if requirement.amount in {None, setting.amount}]
    if table is None or not settings or any(requirement.arm not in setting.arms for setting in settings):
        return False
    if requirement.level is not None:
        level, accuracies = requirement.level, [setting.arms[requirement.arm].accuracy for setting in settings]
        return all(accuracy.low > level if requirement.is_strict else accuracy.high >= level for accuracy in accuracies)
    answer = next((one for one in table.required if (one.arm, one.against, one.amount) == requirement.pair), None)
    if answer is None or answer.claim.comparisons < len(settings) or answer.hurts_at:
        return False
    return answer.claim.verdict == "helped" if requirement.is_strict else answer.claim.verdict != "hurt"
