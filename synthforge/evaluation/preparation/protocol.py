"""What an evaluation and a diagnosis each bring: which images the arms of a draw take from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import Field, field_validator

from synthforge.data.collection import Collection
from synthforge.data.layout import Record
from synthforge.evaluation.preparation.pool import DrawPool
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.results.types import ImageFacts, Origin
from synthforge.evaluation.sets import Images, SetReader
from synthforge.evaluation.settings import RealDraws, Setting
from synthforge.progress import Reporter
from synthforge.recipe.recipe import Recipe


class PreparedDraw(Record):
    """What was prepared for one draw. It is written to a file as it is, so its field names must stay."""

    origin: Origin
    generator: str
    sources: list[dict[str, str]]
    """For each ratio: key of a source to the digest of its set of images."""
    notes: list[str] = Field(default_factory=list)
    rendered: str | None = None
    """Diagnosis only: address of the real images as the generator renders them."""
    facts: ImageFacts | None = None
    """Diagnosis only."""

    @field_validator("facts", mode="before")
    @classmethod
    def _upgraded(cls, facts: Any) -> Any:
        """Earlier files of an evaluation have {}. Those of a diagnosis are not valid, so the draw is prepared again."""
        return facts or None


@dataclass(frozen=True)
class Pool:
    """A synthetic set, opened."""

    collection: Collection
    images: Images
    """Its images of the real images' classes."""


class ArmSources(Protocol):
    """Finds the images that arms take from; picklable."""

    def identity(self, draw_pool: DrawPool) -> list[Any]:
        """What the prepared images depend on beside draw, pool and curation; a part of their digest."""

    def prepare(self, draw_pool: DrawPool, pool: Pool, recipe: Recipe, generator: str) -> PreparedDraw:
        """Sources from the pool that a recipe made for a draw."""

    def read(self, digests: Mapping[str, str], reader: SetReader) -> dict[str, Images]:
        """Prepared sources, by their keys."""

    def given(
        self, request: MeasurementRequest, draws: RealDraws, sets: dict[str, Pool], reporter: Reporter
    ) -> tuple[list[Setting], list[str]]:
        """Settings and notes for sets that were given in place of a recipe."""
