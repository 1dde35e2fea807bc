"""Curate for the arms of one draw, with an encoder that has seen only the draw's real images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from synthforge.curation.choice import Gated
from synthforge.curation.run import choose, gate
from synthforge.curation.sides import Sides
from synthforge.data.image_table import Table
from synthforge.errors import NothingLeftError
from synthforge.evaluation.preparation.pool import DrawPool
from synthforge.evaluation.reference import RealDraw
from synthforge.evaluation.sets import Images
from synthforge.evaluation.settings import Setting
from synthforge.features.encoders.config import FittedConfig
from synthforge.features.encoders.protocol import SEEN_DIGITS
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, SizeConfig
from synthforge.recipe.evaluation import ArmConfig, EvaluationConfig


@dataclass(frozen=True, order=True)
class ChoiceRule:
    """How curation chooses for some arms."""

    key: str
    """The source's key, `ArmConfig.key_of`."""
    source: str
    method: str
    """The selection method; empty for the recipe's."""
    regime: str


def rules_of(config: EvaluationConfig) -> list[ChoiceRule]:
    """The different rules of all arms, sorted."""
    return sorted({ChoiceRule(arm.key_of(source), source, arm.selection or "", arm.regime) for arm, source in curated_sources(config)})


def curated_sources(config: EvaluationConfig) -> list[tuple[ArmConfig, str]]:
    """Each arm with each of its sources that curation chooses."""
    return [(arm, source) for arm in config.arms for source in arm.of if source.endswith("curated")]


@dataclass(frozen=True)
class Chosen:
    """Images that one rule chose."""

    images: Images | None
    """None: there are too few images to choose from, or none passes the gates."""
    is_own: bool
    """Whether the encoder has seen only the draw's real images."""
    notes: list[str]


class Chooser:
    """Curation for one draw. Each set passes the gates once, however many rules choose from it."""

    def __init__(self, draw_pool: DrawPool, pool: str, curation: CurationConfig, cache: Path) -> None:
        self._draw_pool, self._pool, self._curation, self._cache = draw_pool, pool, curation, cache
        self._gated: dict[str, Gated] = {}

    def choose(self, rule: ChoiceRule, ratio: float) -> Chosen:
        """Choose `ratio` images for each real image of the draw."""
        draw, classes = self._draw_pool.draw, self._draw_pool.reference.classes
        wanted_C = Setting(draw, ratio, self._draw_pool.origin, {}).asked(len(classes))
        is_real = rule.source == "more-curated"
        if is_real and (draw.rest.per_class(len(classes)) < wanted_C).any():
            return Chosen(None, is_own=True, notes=[])  # not enough other real images
        address = str(self._draw_pool.folder / "others") if is_real else self._pool
        if is_real:
            self._draw_pool.reference.write(draw.rest, Path(address), {})
        present = set(Table.open(address, self._cache).strings("class"))
        quota = {name: int(num) for name, num in zip(classes, wanted_C, strict=True) if name in present}
        config, notes = self._config(rule, quota)
        try:
            if address not in self._gated:
                self._gated[address] = gate([address], self._draw_pool.real_address(), config, Reporter())
            choice = choose(self._gated[address], config, Reporter())
        except NothingLeftError as error:
            return Chosen(None, is_own=True, notes=[*notes, f"{draw.name}: {error}"])
        if len(choice.kept) == 0:
            return Chosen(None, is_own=True, notes=notes)
        sides, kept = self._gated[address].sides, np.sort(choice.kept)
        if is_real:
            images = replace(draw.rest.take(kept), weight_N=choice.weight_N[kept])
            return Chosen(images, _is_own(sides, draw), notes)
        images = Images.of(sides.pool, classes, kept, is_real=False, weight=choice.weight_N[kept])
        return Chosen(images, _is_own(sides, draw), [*notes, *(f"{draw.name}: {note}" for note in choice.notes)])

    def _config(self, rule: ChoiceRule, quota: dict[str, int]) -> tuple[CurationConfig, list[str]]:
        """The recipe's curation with this rule, and notes on its encoder."""
        draw, encoder, selection = self._draw_pool.draw, self._curation.encoder, self._curation.selection
        selection = selection.model_copy(update={"seed": selection.seed + draw.number})
        if rule.method:
            selection = selection.model_copy(update={"method": rule.method, "weights": False})
        if not selection.weights:
            selection = selection.model_copy(update={"size": SizeConfig(quota=quota)})
        notes = []
        if not draw.is_whole and self._draw_pool.origin == "own":
            if encoder is not None and not encoder.knows_reference_alone:
                notes.append(f"{draw.name}: the recipe's encoder has seen other images; one that was fitted on these alone is used")
                encoder = None
            encoder = encoder or FittedConfig()
        update = {"regime": rule.regime, "selection": selection, "encoder": encoder, "metric_encoder": None, "cache": str(self._cache)}
        return self._curation.model_copy(update=update), notes


def _is_own(sides: Sides, draw: RealDraw) -> bool:
    if sides.encoder.knows_reference_alone:
        return True
    seen = frozenset().union(*(encoder.seen for encoder in sides.encoders))
    budget = {sha256[:SEEN_DIGITS] for part in (draw.fit, draw.validation) if part is not None for sha256 in part.sha256_N}
    return bool(seen) and seen <= budget
