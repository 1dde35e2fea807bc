"""The generator and the pool of one draw, in a folder that is named by all they depend on, so they are used again."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from synthforge.config import identity_of
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import COMPLETE, digest_of
from synthforge.evaluation.reference import RealDraw, Reference
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.results.types import Origin
from synthforge.generation.plan import Plan
from synthforge.generation.run import generate
from synthforge.progress import Reporter
from synthforge.recipe.evaluation import EvaluationConfig
from synthforge.recipe.recipe import Recipe

VERSION = 2
"""To be raised when equal images and settings give another pool or other choices."""
_MODEL = "model_index.json"
"""The file that is written last when a model is saved."""


@dataclass(frozen=True)
class DrawPool:
    """One draw's generator and pool, made or still to be made."""

    reference: Reference
    draw: RealDraw
    origin: Origin
    request: MeasurementRequest
    """Its `recipe` is never None."""

    @property
    def config(self) -> EvaluationConfig:
        """What is evaluated."""
        return self.request.config

    @property
    def recipe(self) -> Recipe:
        """The request's recipe."""
        assert self.request.recipe is not None
        return self.request.recipe

    @property
    def threads(self) -> int:
        """CPU threads of generation; pixels may depend on their number."""
        return self.recipe.execution.threads or self.config.trainer.threads

    @functools.cached_property
    def folder(self) -> Path:
        """The folder for everything that depends on the draw's images alone."""
        real = [
            [part.sha256_N.tolist(), [str(label) for label in part.label_N.tolist()]]
            for part in (self.draw.fit, self.draw.validation, self.draw.rest)
            if part is not None
        ]
        fitting = identity_of(self.config.fit, lambda path, value: value) if self.config.fit is not None else None
        depends = [VERSION, self.request.curation.reading.decoder, self.reference.classes, real, self.draw.number, fitting, self.threads]
        return self.request.folder / f"{self.draw.name}-{digest_of(depends)[:12]}"

    def left(self) -> Recipe | None:
        """The recipe of the pool. None: generator or pool is missing or not whole."""
        is_guided = self.recipe.sampling.real_guidance is not None and not self.draw.is_whole
        needed = {self._model / _MODEL: self._is_fitted_here, self.folder / "reference" / COMPLETE: is_guided}
        if not all(path.exists() for path, is_needed in needed.items() if is_needed):
            return None
        recipe, _ = self._pool_recipe()
        return recipe if recipe is self.recipe or (Path(recipe.pool_path) / COMPLETE).exists() else None

    def make(self) -> tuple[Recipe, str]:
        """Fit the generator and make the pool if missing; returns the pool's recipe and the generator's name."""
        if self._is_fitted_here:
            self._fit()
        recipe, generator = self._pool_recipe()
        if recipe is not self.recipe:
            generate(recipe, Reporter())
        return recipe, generator

    def _pool_recipe(self) -> tuple[Recipe, str]:
        """The recipe of the pool, which need not be made yet, and a name for its generator, which exists already."""
        recipe, draw = self.recipe, self.draw
        model = name = str(recipe.generator.model)
        if self.origin == "elsewhere" or (draw.is_whole and self.config.fit is None and draw.number == 0):
            generator = DatasetFolder.open(recipe.pool_path).manifest.generator or {}  # the recipe may have changed since
            return recipe, str(generator.get("model", name))
        if self._is_fitted_here:
            model, name = str(self._model), "fitted on these images"
        elif not draw.is_whole:
            assert self.config.generators is not None
            model = name = self.config.generators.replace("{amount}", str(draw.amount))
        sampling = recipe.sampling.model_copy(update={"seed": recipe.sampling.seed + draw.number})
        if sampling.real_guidance is not None:
            guided = sampling.real_guidance.model_copy(update={"reference": self.real_address()})
            sampling = sampling.model_copy(update={"real_guidance": guided})
        of_draw = recipe.model_copy(
            update={
                "generator": recipe.generator.model_copy(update={"model": model}),
                "sampling": sampling,
                "execution": recipe.execution.model_copy(update={"workers": 1, "threads": self.threads}),
            }
        )
        # A plan has no length, but a pool has.
        place = self.folder / f"pool-{digest_of([Plan.of(of_draw).digest, of_draw.num_samples])[:12]}"
        return of_draw.model_copy(update={"output": recipe.output.model_copy(update={"path": str(place)})}), name

    def real_address(self) -> str:
        """Address of the draw's images as a set of their own, written if it is missing."""
        if self.draw.is_whole:
            return self.reference.address
        place = self.folder / "reference"
        self.reference.write(self.draw.fit, place, {"fit": (0, len(self.draw.fit))})
        return str(place)

    @property
    def _is_fitted_here(self) -> bool:
        return self.config.fit is not None and self.origin == "own"

    @property
    def _model(self) -> Path:
        return self.folder / "generator"

    def _fit(self) -> None:
        config = self.config.fit
        assert config is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / ".generator.lock"):  # another evaluation may want the same
            if not (self._model / _MODEL).exists():
                from synthforge.generators.pixel.fit import fit  # takes seconds to import

                seeded = config.loop.model_copy(update={"seed": config.loop.seed + self.draw.number})
                curation = self.request.curation
                as_here = {"loop": seeded, "per_class": None, "columns": curation.columns, "background": curation.background}
                fit(self.real_address(), self._model, config.model_copy(update=as_here))
