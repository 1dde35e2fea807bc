"""The results in a run's folder: pool, curated set, decisions, gap, evaluation, diagnosis. Missing ones are None."""

from __future__ import annotations

import functools
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from synthforge.arrays import Ints
from synthforge.config import from_record
from synthforge.curation.result import CurateResult
from synthforge.data.folder import DatasetFolder
from synthforge.data.image_table import Table
from synthforge.data.layout import DECISIONS, DIAGNOSIS, EVALUATION, GAP, LOG, MANIFEST, RECIPE_LOG, RUN_RECIPE, ModelT, digest_of, parse
from synthforge.data.opening import open_collection
from synthforge.data.storage import Folder, resolve
from synthforge.errors import OutdatedError, RequestError, SynthforgeError
from synthforge.evaluation.results.types import DiagnoseResult, EvaluateResult
from synthforge.features.embed import features_of
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.load import RECIPES, load_recipe
from synthforge.recipe.recipe import Recipe


@dataclass(frozen=True)
class Decisions:
    """Columns of decisions.parquet: one row for each image of the pool, in its order."""

    kept: np.ndarray
    reason: np.ndarray
    """Why an image was dropped. None: it was kept."""
    nearest_real: np.ndarray | None = None
    """Key of the nearest real image. None: near-copies were not searched for."""
    nearest_real_distance: np.ndarray | None = None
    """nan: the image was not compared."""


@dataclass(frozen=True)
class Gathered:
    """One run, and its results; each is read when it is first used."""

    recipe: Recipe
    folder: Folder
    """The run's folder."""
    left_out: frozenset[str] = frozenset()
    """Stages whose results are ignored, even if their files are there."""

    @classmethod
    def of(cls, recipe: Recipe, left_out: Collection[str] = ()) -> Gathered:
        """The run that a recipe names."""
        return cls(recipe, Folder(recipe.run_path), frozenset(left_out))

    @classmethod
    def asked(cls, run: str, sets: Sequence[str] = ()) -> Gathered:
        """The run of a recipe's file or in a run's folder; raises RequestError or RecipeError."""
        if run.endswith(RECIPES):
            return cls.of(load_recipe(run, sets))
        if sets:
            raise RequestError(f"report: --set is for a recipe, and {run} is the folder of a run; leave --set out")
        return cls.at(run)

    @classmethod
    def at(cls, address: str) -> Gathered:
        """The run in a folder, by the recipe stored there; raises RequestError if there is none."""
        place = resolve(address)
        try:
            try:
                kept = Folder(place).read(RUN_RECIPE)
            except FileNotFoundError:
                kept = Folder(f"{place}/pool").within(LOG).read(RECIPE_LOG)
            recipe = from_record(Recipe, kept)
        except FileNotFoundError as error:
            raise RequestError(
                f"{address}: no run is there: it holds no recipe, and no pool that has one; give the recipe's file"
            ) from error
        except ValidationError as error:
            raise RequestError(f"{address}: the recipe stored there is of another version; give the recipe's file") from error
        return cls(recipe.model_copy(update={"output": recipe.output.model_copy(update={"path": place})}), Folder(place))

    @functools.cached_property
    def cache(self) -> Path:
        """Folder of cached features."""
        return cache_folder(self.recipe.curation)

    @functools.cached_property
    def evaluation(self) -> EvaluateResult | None:
        """evaluation.json; None if it is missing or too old."""
        return _read(EvaluateResult, self.folder, EVALUATION) if "evaluate" not in self.left_out else None

    @functools.cached_property
    def diagnosis(self) -> DiagnoseResult | None:
        """diagnosis.json; None if it is missing or too old."""
        return _read(DiagnoseResult, self.folder, DIAGNOSIS) if "diagnose" not in self.left_out else None

    @functools.cached_property
    def curation(self) -> CurateResult | None:
        """gap.json of the curated set; None if it is missing, or if the set was selected from another pool."""
        place = Folder(self.recipe.curated_path)
        found = _read(CurateResult, place, GAP) if "curate" not in self.left_out else None
        if found is None or self.pool is None or not place.exists(MANIFEST):
            return None
        chosen_from = DatasetFolder.open(place.address).manifest.recipe.get("pools")
        return found if chosen_from == [self.pool.collections[0].digest] else None

    @functools.cached_property
    def pool(self) -> Table | None:
        """The pool's images; None if there are none."""
        try:
            collection = open_collection(self.recipe.pool_path, self.cache, reading=self.recipe.curation.reading)
        except SynthforgeError:
            if self.has_records or Folder(self.recipe.pool_path).list():
                raise
            return None
        return Table.of([collection]) if collection.blocks else None

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """What dataset.json of the pool says about its generator; empty if it says nothing."""
        return dict(DatasetFolder.open(self.recipe.pool_path).manifest.generator or {}) if self.has_records else {}

    @property
    def has_records(self) -> bool:
        """Whether the pool was made by `generate` and records how."""
        return Folder(self.recipe.pool_path).exists(MANIFEST)

    @functools.cached_property
    def real(self) -> Table | None:
        """The real images; None if the recipe names none, or they are missing."""
        if self.recipe.reference is None:
            return None
        try:
            return Table.of([open_collection(self.recipe.reference, self.cache, reading=self.recipe.curation.reading)])
        except SynthforgeError:
            return None

    @functools.cached_property
    def decisions(self) -> Decisions | None:
        """Whether each image was kept, and why not; None if the decisions are about another pool."""
        if self.curation is None or self.pool is None:
            return None
        try:
            table = pq.read_table(io.BytesIO(Folder(self.recipe.curated_path).read(DECISIONS)))
        except FileNotFoundError:
            return None
        if table.column("key").to_pylist() != self.pool.strings("key").tolist():
            return None

        columns = {field.name: table.column(field.name).to_numpy() for field in fields(Decisions) if field.name in table.column_names}
        return Decisions(**columns)

    def kept(self) -> Ints:
        """Rows of the pool that were kept, int64 (n,)."""
        return np.flatnonzero(self.decisions.kept) if self.decisions is not None else np.zeros(0, np.int64)

    def features(self, of: Table, rows: Ints) -> np.ndarray | None:
        """The metric encoder's features of some images, float32 (n, D); None if the cache has lost them.

        Views are concatenated.
        """
        if self.curation is None:
            return None
        try:
            parts = [
                np.asarray(features_of(of.collections, digest_of(identity), self.cache)[rows]) for identity in self.curation.metric_encoder
            ]
        except (OSError, ValueError, KeyError):
            return None
        return np.concatenate(parts, axis=1).astype(np.float32) if parts else None


def _read(model: type[ModelT], folder: Folder, name: str) -> ModelT | None:
    """A result; None if it is missing or too old. Raises DatasetError if it can't be read."""
    try:
        return parse(model, folder.read(name), folder.where(name), "remove it and make it again")
    except (FileNotFoundError, OutdatedError):
        return None
