"""Build the arms of a diagnosis from a draw of real images and a pool: render, embed, compare.

Shapes: N real images of the draw, K of these that can be compared, M pool images, D features.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from synthforge.arrays import Bools, Floats, Ints
from synthforge.config import identity_of
from synthforge.curation.default_encoders import CLIP, SMALL
from synthforge.data.collection import Collection
from synthforge.data.image_table import Table
from synthforge.data.read_config import Reading
from synthforge.data.storage import content_of
from synthforge.errors import RequestError
from synthforge.evaluation.diagnosis.arms import arm_images, as_source
from synthforge.evaluation.diagnosis.content import SIGNIFICANT, content_weights, variety
from synthforge.evaluation.diagnosis.labels import doubts, label_filter
from synthforge.evaluation.preparation.pool import DrawPool
from synthforge.evaluation.preparation.protocol import Pool, PreparedDraw
from synthforge.evaluation.reference import RealDraw, Reference
from synthforge.evaluation.request import MeasurementRequest
from synthforge.evaluation.results.types import ImageFacts, Origin, in_new_names
from synthforge.evaluation.sets import Images, SetReader, write_set
from synthforge.evaluation.settings import RealDraws, Setting
from synthforge.features.config import IndexConfig
from synthforge.features.embed import Features, embedded
from synthforge.features.encoders.config import PixelsConfig
from synthforge.features.neighbours import Neighbours
from synthforge.generation import render
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import DIAGNOSIS_VERSION, DiagnosisConfig
from synthforge.recipe.recipe import Recipe

FEWEST_PAIRED = 0.5
"""Smallest share of real images with a rendering; below it, the set is refused."""
_Embed = Callable[[Collection], tuple[Features, Bools]]


@dataclass(frozen=True)
class Renderings:
    """A set of renderings: the real images as the generator makes them again. N real images of a draw."""

    address: str
    row_N: Ints
    """Row of each real image's rendering; -1 if it has none."""

    @classmethod
    def given(cls, address: str, reference: Reference, draw: RealDraw, cache: Path, reading: Reading) -> Renderings:
        """A set from elsewhere, matched by the images' names; raises RequestError if too few match."""
        keys = Table.open(address, cache, reading=reading).strings("key")
        names = reference.table.strings("key")[draw.fit.row_N]
        renderings = cls(address, _rows(keys, names))
        if (paired := float((renderings.row_N >= 0).mean())) < FEWEST_PAIRED:
            raise RequestError(
                f"{address}: only {paired:.0%} of the real images have a rendering of the same name in it (one real image is called "
                f"{names[0]!r}); render all of them"
            )
        return renderings

    @classmethod
    def made(cls, address: str, draw: RealDraw, real: str, cache: Path) -> Renderings:
        """A set that `render` made from the set `real`, which holds the draw's images."""
        # A draw's images may have been encoded anew when they were written.
        sha256_N = draw.fit.sha256_N if draw.is_whole else Table.open(real, cache).strings("image_sha256")
        return cls(address, _rows(Table.open(address, cache).strings("source_sha256"), sha256_N))


@dataclass(frozen=True)
class ArmImages:
    """The images that the arms of a diagnosis take from, and figures that need no training."""

    images: dict[str, Images]
    """Name of the arm to its images."""
    facts: ImageFacts
    """Of this draw."""
    notes: list[str]


@dataclass(frozen=True)
class DiagnosisSources:
    """Implements `sources.ArmSources`: arms that differ in one thing."""

    config: DiagnosisConfig
    rendered: str | None
    """Without a recipe: address of the real images as the generator renders them."""

    def identity(self, draw_pool: DrawPool) -> list[Any]:
        config = with_encoder(self.config, draw_pool.request.curation, draw_pool.reference.image_size, draw_pool.origin)
        return [DIAGNOSIS_VERSION, render.VERSION, identity_of(config, lambda path, value: content_of(value))]

    def prepare(self, draw_pool: DrawPool, pool: Pool, recipe: Recipe, generator: str) -> PreparedDraw:
        draw, origin, curation, renderings, notes = draw_pool.draw, draw_pool.origin, draw_pool.request.curation, None, []
        config = with_encoder(self.config, curation, draw_pool.reference.image_size, origin)
        if (reason := render.why_not(recipe, config.strength)) is not None:
            notes.append(f"{draw.name}: appearance can't be measured: {reason}")
        else:
            real = draw_pool.real_address()
            address = render.render(recipe, real, config.strength, draw_pool.folder, draw_pool.threads)
            renderings = Renderings.made(address, draw, real, cache_folder(curation))
        arms = arm_images_of(draw_pool.reference, draw, pool, renderings, config=config, curation=curation)
        notes += [f"{draw.name}: {note}" for note in arms.notes]
        digests = {name: write_set(draw_pool.request.folder, [images]) for name, images in arms.images.items()}
        rendered = renderings.address if renderings is not None else None
        return PreparedDraw(origin=origin, generator=generator, sources=[digests], notes=notes, rendered=rendered, facts=arms.facts)

    def read(self, digests: Mapping[str, str], reader: SetReader) -> dict[str, Images]:
        return {key: as_source(key, reader.images(digest)) for key, digest in in_new_names(digests).items()}

    def given(
        self, request: MeasurementRequest, draws: RealDraws, sets: dict[str, Pool], reporter: Reporter
    ) -> tuple[list[Setting], list[str]]:
        ((name, address),), reference = request.synthetic, draws.reference
        config = with_encoder(self.config, request.curation, reference.image_size, "elsewhere")
        cache, images, settings, notes = cache_folder(request.curation), sets[name].images, [], []
        if (images.weight_N != 1).any():
            notes.append(f"{address}: importance weights are not used in a diagnosis, where every image counts alike")
        if self.rendered is None:
            notes.append("appearance can't be measured without the generator; give --rendered, the real images as it renders them")
        pool = replace(sets[name], images=replace(images, weight_N=np.ones(len(images))))
        for draw in itertools.chain(*draws.by_amount.values()):
            reporter.note(f"comparing {address} with {draw.per_class:g} real images per class")
            renderings = (
                Renderings.given(self.rendered, reference, draw, cache, request.curation.reading) if self.rendered is not None else None
            )
            arms = arm_images_of(reference, draw, pool, renderings, config=config, curation=request.curation)
            settings.append(Setting(draw, 1.0, "elsewhere", arms.images, generator=name, facts=arms.facts))
            notes += arms.notes
        return settings, notes


@dataclass(frozen=True)
class _Looks:
    """Real images as they are compared with the pool: rendered by the generator, or else as they are."""

    features_KD: Floats
    class_K: Ints
    has_N: Bools
    """Which real images can be compared, and are among the K."""
    real_KD: Floats
    """Features of the same images, not rendered."""
    renderings: Images | None


def with_encoder(config: DiagnosisConfig, curation: CurationConfig, image_size: int, origin: Origin) -> DiagnosisConfig:
    """The config with the encoder that compares images: one that has seen no more images than the arms may see."""
    encoder = config.encoder
    if encoder is None and (image_size <= SMALL or origin == "own"):
        encoder = PixelsConfig()
    elif encoder is None:
        encoder = curation.encoder
        if encoder is None or encoder.fits or encoder.knows_reference_alone:
            encoder = CLIP
    return config.model_copy(update={"encoder": encoder})


def arm_images_of(
    reference: Reference, draw: RealDraw, pool: Pool, renderings: Renderings | None, *, config: DiagnosisConfig, curation: CurationConfig
) -> ArmImages:
    """Compare a pool with the real images of a draw, and build the arms.

    Raises RequestError if fewer than two classes can be compared.

    Args:
        pool: the synthetic images, all of weight 1.
        config: with its encoder (`with_encoder`).
        curation: where features are kept, and how images are embedded.
    """
    assert config.encoder is not None
    cache = cache_folder(curation)
    embed = functools.partial(
        embedded,
        config=config.encoder,
        classes=curation.classes,
        cache=cache,
        device=curation.device,
        batch=curation.batch,
        decoders=curation.decoders,
    )
    looks = _looks(reference, draw.fit, renderings, embed, cache)
    if len(np.unique(looks.class_K)) < 2:
        raise RequestError(f"{reference.address}: images of fewer than two classes can be compared; a diagnosis needs two or more")

    features, is_usable = embed(pool.collection)
    usable_M = is_usable[pool.images.row_N]
    pool_MD, class_M = features[pool.images.row_N[usable_M]], pool.images.label_N[usable_M]

    doubtful = doubts(looks.features_KD, looks.class_K, pool_MD, class_M, neighbours=config.neighbours, loss=config.loss)
    passes_M = usable_M.copy()
    passes_M[usable_M], wholly_doubted = label_filter(doubtful.doubted_M, class_M)
    trusted_M = ~doubtful.doubted_M
    weight_N = np.ones(len(draw.fit))
    weight_N[looks.has_N], p_values = content_weights(looks.features_KD, looks.class_K, pool_MD[trusted_M], class_M[trusted_M])
    images = arm_images(draw.fit, pool.images, passes_M=passes_M, weight_N=weight_N, renderings=looks.renderings, is_rendered_N=looks.has_N)

    facts = ImageFacts(
        doubted=doubtful.share,
        doubted_real=doubtful.share_of_real,
        p_value=doubtful.p_value,
        variety=variety(looks.features_KD, looks.class_K, pool_MD, class_M),
        differing=float(np.mean([p_value <= SIGNIFICANT for p_value in p_values.values()])) if p_values else None,
        compared=float(looks.has_N.mean()),
        recognised=_recognised(looks) if looks.renderings is not None else None,
    )
    names = [reference.classes[number] for number in wholly_doubted]
    notes = [f"no image of class {name} in {pool.collection.address} looks like it; its wrong labels count as the rest" for name in names]
    return ArmImages(images, facts, notes)


def _looks(reference: Reference, real: Images, renderings: Renderings | None, embed: _Embed, cache: Path) -> _Looks:
    features, is_usable = embed(reference.table.collections[0])
    has_N = is_usable[real.row_N]
    if renderings is None:
        real_KD = features[real.row_N[has_N]]
        return _Looks(real_KD, real.label_N[has_N], has_N, real_KD, renderings=None)
    table = Table.open(renderings.address, cache, reading=reference.table.collections[0].reading)
    of_looks, is_usable = embed(table.collections[0])
    is_usable &= table.class_indices(reference.classes) >= 0
    has_N &= (renderings.row_N >= 0) & is_usable[renderings.row_N]
    images = Images.of(table, reference.classes, renderings.row_N[has_N], is_real=False)
    return _Looks(of_looks[images.row_N], images.label_N, has_N, features[real.row_N[has_N]], images)


def _recognised(looks: _Looks) -> float:
    """Share of the renderings that are nearest to their own real image."""
    nearest_K = Neighbours(looks.real_KD, IndexConfig()).search(looks.features_KD, 1)[1][:, 0]
    return float(np.mean(nearest_K == np.arange(len(nearest_K))))


def _rows(names: Iterable[str], wanted: Iterable[str]) -> Ints:
    row_of = {name: row for row, name in enumerate(names)}
    return np.array([row_of.get(name, -1) for name in wanted], np.int64)
