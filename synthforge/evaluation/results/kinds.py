"""What a comparison of two arms is about, as a code, and whether to use the synthetic images."""

from __future__ import annotations

from collections.abc import Mapping

from synthforge.evaluation.results.types import Kind, TableResult, Use
from synthforge.recipe.evaluation import MORE, REAL, REAL_SOURCES, ArmConfig

_WHAT: dict[Kind, str] = {
    "adding": "Adding synthetic images to real ones",
    "instead": "Training on synthetic images instead of real ones",
    "curated-instead": "Training on curated synthetic images instead of real ones",
    "curation": "Curation compared with random selection",
    "curation-beside-real": "Curation compared with random selection, added to real images",
    "more-real": "Adding more real images",
    "other-real": "Other real images instead of the given ones",
    "rule-on-real": "Curation of real images compared with random real images",
}


def kind_of(arm: ArmConfig, against: ArmConfig) -> tuple[Kind, str]:
    """What a comparison is about, as a code and in words."""
    kind = _kind(arm, against)
    return kind, _WHAT.get(kind, f"{arm.name} minus {against.name}")


def _kind(arm: ArmConfig, against: ArmConfig) -> Kind:
    others = [source for source in arm.of if source not in REAL_SOURCES]
    if against.of == [REAL]:
        if others:
            return "adding" if REAL in arm.of else "curated-instead" if others == ["curated"] else "instead"
        return "more-real" if REAL in arm.of else "other-real"
    if "curated" in arm.of and against.of == ["random" if source == "curated" else source for source in arm.of]:
        return "curation-beside-real" if REAL in arm.of else "curation"
    if "more-curated" in arm.of and against.of == [MORE if source == "more-curated" else source for source in arm.of]:
        return "rule-on-real"
    return "pair"


def use_of(table: TableResult, arms: Mapping[str, ArmConfig]) -> Use:
    """Where synthetic images are worth adding to real ones."""
    comparisons = [one for setting in table.settings for one in setting.comparisons]
    adding = [one for one in comparisons if kind_of(arms[one.arm], arms[one.against])[0] == "adding"]
    claim = table.claim("adding")
    if claim is None or not adding:
        return "not measured"
    has_hurt = any(one.verdict == "hurt" for one in adding)
    if all(one.verdict == "helped" for one in adding) or (claim.verdict == "helped" and not has_hurt):
        return "everywhere"
    if any(one.verdict == "helped" for one in adding):
        return "where they helped"
    return "nowhere" if claim.verdict in {"hurt", "did not help"} else "no proof"
