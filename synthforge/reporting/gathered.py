"""What a run's folder holds, as far as it is there: pool, curated set, decisions, gap, evaluation, diagnosis."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from pydantic import ValidationError

from synthforge.config import from_record
from synthforge.data.collection import open_collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import LOG, MANIFEST, RECIPE_LOG, RUN_RECIPE, digest_of
from synthforge.data.pools import Ints, Table
from synthforge.data.storage import Folder, resolve
from synthforge.errors import DatasetError, RequestError, SynthforgeError
from synthforge.features.embed import features_of
from synthforge.recipe.curation import DECISIONS, GAP, cache_folder
from synthforge.recipe.evaluation import DIAGNOSIS_VERSION, EVALUATION_VERSION
from synthforge.recipe.load import RECIPES, load_recipe
from synthforge.recipe.recipe import Recipe

EVALUATION, DIAGNOSIS = "evaluation.json", "diagnosis.json"
SCHEMAS = {EVALUATION: EVALUATION_VERSION, DIAGNOSIS: DIAGNOSIS_VERSION}
"""Of the results that are read here."""


@dataclass(frozen=True)
class Gathered:
    """One run."""

    recipe: Recipe
    folder: Folder
    """The run's."""
    left_out: frozenset[str] = frozenset()
    """Stages whose results don't belong to it, whatever lies there."""

    @classmethod
    def of(cls, recipe: Recipe, left_out: Collection[str] = ()) -> Gathered:
        """The run that a recipe names."""
        return cls(recipe, Folder(recipe.run_path), frozenset(left_out))

    @classmethod
    def asked(cls, run: str, sets: Sequence[str] = ()) -> Gathered:
        """By a recipe's file or a run's folder; raises RequestError or RecipeError."""
        if run.endswith(RECIPES):
            return cls.of(load_recipe(run, sets))
        if sets:
            raise RequestError(f"report: --set is for a recipe, and {run} is a run's folder; leave it out")
        return cls.at(run)

    @classmethod
    def at(cls, address: str) -> Gathered:
        """The run in a folder, by the recipe that `run` left there, or that its pool keeps; raises RequestError if there is none."""
        place = resolve(address)
        try:
            try:
                kept = Folder(place).read(RUN_RECIPE)
            except FileNotFoundError:
                kept = Folder(f"{place}/pool").within(LOG).read(RECIPE_LOG)
            recipe = from_record(Recipe, kept)
        except FileNotFoundError as error:
            raise RequestError(
                f"{address}: no run is there, since it has no pool with the recipe it was made by; give the recipe"
            ) from error
        except ValidationError as error:
            raise RequestError(f"{address}: the recipe that it keeps is of another version; give the recipe itself") from error
        return cls(recipe.model_copy(update={"output": recipe.output.model_copy(update={"path": place})}), Folder(place))

    @property
    def name(self) -> str:
        """The recipe's."""
        return self.recipe.name

    @functools.cached_property
    def cache(self) -> Path:
        """Where features are kept."""
        return cache_folder(self.recipe.curation)

    def json(self, name: str, folder: Folder | None = None) -> dict[str, Any] | None:
        """A result; None if it is not there. Raises DatasetError if it can't be read."""
        folder = folder or self.folder
        try:
            found = json.loads(folder.read(name))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise DatasetError(f"{folder.where(name)}: can't be read ({error}); remove it and make it again") from error
        return found if isinstance(found, dict) else None

    @functools.cached_property
    def evaluation(self) -> dict[str, Any] | None:
        """evaluation.json; None if it is of another version."""
        return self._of_schema(EVALUATION) if "evaluate" not in self.left_out else None

    @functools.cached_property
    def diagnosis(self) -> dict[str, Any] | None:
        """diagnosis.json; None if it is of another version."""
        return self._of_schema(DIAGNOSIS) if "diagnose" not in self.left_out else None

    def _of_schema(self, name: str) -> dict[str, Any] | None:
        found = self.json(name)
        return found if found is not None and found.get("schema") == SCHEMAS[name] else None

    @functools.cached_property
    def gap(self) -> dict[str, Any] | None:
        """gap.json of the curated set; None where that was chosen from another pool than the one that is there."""
        place = Folder(self.recipe.curated_path)
        found = self.json(GAP, place) if "curate" not in self.left_out else None
        if found is None or self.pool is None or not place.exists(MANIFEST):
            return None
        if "judge" in found:  # as it was called before
            found["metric_encoder"] = found.pop("judge")
        chosen_from = DatasetFolder.open(place.address).manifest.recipe.get("pools")
        return found if chosen_from == [self.pool.collections[0].digest] else None

    @functools.cached_property
    def pool(self) -> Table | None:
        """The pool's images; None if there are none yet."""
        try:
            collection = open_collection(self.recipe.pool_path, self.cache)
        except SynthforgeError:
            if self.has_records or Folder(self.recipe.pool_path).list():
                raise
            return None
        return Table.of([collection]) if collection.blocks else None

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """What dataset.json of the pool says of its generator."""
        return dict(DatasetFolder.open(self.recipe.pool_path).manifest.generator or {}) if self.has_records else {}

    @property
    def has_records(self) -> bool:
        """Whether the pool was made by `generate`, and says how."""
        return Folder(self.recipe.pool_path).exists(MANIFEST)

    @functools.cached_property
    def real(self) -> Table | None:
        """The real images; None if the recipe names none, or they are not there any more."""
        if self.recipe.reference is None:
            return None
        try:
            return Table.of([open_collection(self.recipe.reference, self.cache)])
        except SynthforgeError:
            return None

    @functools.cached_property
    def decisions(self) -> dict[str, Any] | None:
        """Columns of decisions.parquet as arrays, in the order of the pool; None where pool and decisions don't belong together."""
        if self.gap is None or self.pool is None:
            return None
        try:
            table = pq.read_table(io.BytesIO(Folder(self.recipe.curated_path).read(DECISIONS)))
        except FileNotFoundError:
            return None
        keys = table.column("key").to_pylist()
        if keys != self.pool.strings("key").tolist():
            return None
        wanted = [name for name in ("kept", "reason", "nearest_real", "nearest_real_distance") if name in table.column_names]
        return {name: np.array(table.column(name).to_pylist(), None if name == "kept" else object) for name in wanted}

    def kept(self) -> Ints:
        """Rows of the pool that were kept."""
        return np.flatnonzero(self.decisions["kept"]) if self.decisions is not None else np.zeros(0, np.int64)

    def features(self, of: Table, rows: Ints, who: str = "metric_encoder") -> np.ndarray | None:
        """Features of some images, views side by side, float32 (n, D); None if the cache has lost them."""
        if self.gap is None:
            return None
        try:
            parts = [np.asarray(features_of(of.collections, digest_of(identity), self.cache)[rows]) for identity in self.gap[who]]
        except (OSError, ValueError, KeyError):
            return None
        return np.concatenate(parts, axis=1).astype(np.float32) if parts else None
