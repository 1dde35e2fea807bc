"""Which images the arms of an evaluation take from; `diagnosis/sources.py` is its counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from synthforge.curation.write import weights_of
from synthforge.data.image_table import Table
from synthforge.data.input_report import InputReport
from synthforge.evaluation.preparation.curated import Chooser, rules_of
from synthforge.evaluation.preparation.pool import DrawPool
from synthforge.evaluation.preparation.protocol import ArmSources, Pool, PreparedDraw
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Images, SetReader, classes_in, write_set
from synthforge.evaluation.settings import RealDraws, Setting
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.recipe import Recipe


class EvaluationSources:
    """Implements `ArmSources`: random images of the pool, and those that curation chooses."""

    def identity(self, draw_pool: DrawPool) -> list[Any]:  # noqa: ARG002
        return []

    def prepare(self, draw_pool: DrawPool, pool: Pool, recipe: Recipe, generator: str) -> PreparedDraw:  # noqa: ARG002
        folder, config, curation = draw_pool.request.folder, draw_pool.config, draw_pool.request.curation
        chooser = Chooser(draw_pool, pool.collection.address, curation, cache_folder(curation))
        sources, origin, notes = [], draw_pool.origin, list[str]()
        for ratio in config.synthetic_per_real:
            digests = {"random": write_set(folder, [pool.images])}
            for rule in rules_of(config):
                chosen = chooser.choose(rule, ratio)
                notes += chosen.notes
                if chosen.images is not None:
                    digests[rule.key] = write_set(folder, [chosen.images])
                if not chosen.is_own and rule.source == "curated":
                    origin = "elsewhere"
            sources.append(digests)
        return PreparedDraw(origin=origin, generator=generator, sources=sources, notes=notes)

    def read(self, digests: Mapping[str, str], reader: SetReader) -> dict[str, Images]:
        return {key: reader.images(digest) for key, digest in digests.items()}

    def given(
        self,
        request: MeasurementRequest,
        draws: RealDraws,
        sets: dict[str, Pool],
        reporter: Reporter,  # noqa: ARG002
    ) -> tuple[list[Setting], list[str]]:
        # What the generators have seen is not known.
        origin: Origin = "elsewhere" if sets else "own"
        images = {name: given.images for name, given in sets.items()}
        return draws.settings(request.config.synthetic_per_real, origin, images, ", ".join(sets)), []


def given_settings(
    request: MeasurementRequest, sources: ArmSources, draws: RealDraws, reporter: Reporter
) -> tuple[list[Setting], list[str], list[InputReport]]:
    """Settings, notes, and what was found, for the synthetic sets of a request without a recipe.

    Raises: RequestError or DatasetError.
    """
    notes, sets, classes = list[str](), dict[str, Pool](), draws.reference.classes
    for name, address in request.synthetic:
        table = Table.open(address, cache_folder(request.curation), reporter, request.curation.reading)
        classes_in(table, address, classes)
        images = Images.of(table, classes, is_real=False, weight=weights_of(address, table.strings("key")))
        sets[name] = Pool(table.collections[0], images)
        notes += table.collections[0].problems
        if num := len(table) - len(images):
            notes.append(f"{address}: {num:,} images of classes that the real images lack, or without a label, are left out")
    settings, more = sources.given(request, draws, sets, reporter)
    return settings, [*notes, *more], [pool.collection.report for pool in sets.values()]
