"""From a draw of real images and a pool to the images that the arms of a diagnosis take from: embed, compare, build the arms.

Shapes: N real images of the draw, K of these that can be compared, M pool images, D features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from synthforge.curation.sides import CLIP, SMALL
from synthforge.data.collection import Collection
from synthforge.data.pools import Table
from synthforge.errors import RequestError
from synthforge.evaluation.conditions import RealDraw
from synthforge.evaluation.diagnosis.arms import arm_images
from synthforge.evaluation.diagnosis.content import BY_CHANCE, content_weights, variety
from synthforge.evaluation.diagnosis.labels import doubts, label_filter
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.results.types import Origin
from synthforge.evaluation.sets import Bools, Images, Ints
from synthforge.features.config import IndexConfig
from synthforge.features.embed import Features, Floats, embedded
from synthforge.features.encoders.config import PixelsConfig
from synthforge.features.neighbours import Neighbours
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import DiagnosisConfig

FEWEST_PAIRED = 0.5
"""Share of the real images that must have a rendering for these to stand for all."""
_Embed = Callable[[Collection], tuple[Features, Bools]]


@dataclass(frozen=True)
class Renderings:
    """A set of renderings, and which real image each is of. Shapes: N real images of a draw."""

    address: str
    row_N: Ints
    """Row of each real image's rendering in the set; -1 if it has none."""

    @classmethod
    def given(cls, address: str, reference: Reference, draw: RealDraw, cache: Path) -> Renderings:
        """A set made elsewhere, whose images have the real ones' names; raises RequestError if too few have."""
        keys = Table.open(address, cache).strings("key")
        names = reference.table.strings("key")[draw.fit.row_N]
        found = cls(address, _rows(keys, names))
        if (paired := float((found.row_N >= 0).mean())) < FEWEST_PAIRED:
            raise RequestError(
                f"{address}: {paired:.0%} of the real images have one of the same name in it ({names[0]!r} is one of theirs); "
                "render all of them"
            )
        return found

    @classmethod
    def made(cls, address: str, draw: RealDraw, real: str, cache: Path) -> Renderings:
        """A set that `render` made of the set `real`, which holds the draw's images."""
        # A draw's images may have been encoded anew when they were written.
        sha256_N = draw.fit.sha256_N if draw.is_whole else Table.open(real, cache).strings("image_sha256")
        return cls(address, _rows(Table.open(address, cache).strings("source_sha256"), sha256_N))


@dataclass(frozen=True)
class DiagnosisSources:
    """The images that the arms of a diagnosis take from, and figures that are known without training."""

    images: dict[str, Images]
    """Name of the arm to its images."""
    facts: dict[str, float]
    """`doubted`, `doubted_real`, `doubted_p`: the shares of doubtful labels and their p-value (`Doubts`).
    `variety`: see there.
    `differing`: share of the classes that are distributed otherwise than the real ones; missing if none could be tested.
    `compared`: share of the real images that could be compared; with renderings, those that have one.
    `recognised`: share of the renderings that are nearest to their own real image; it falls if the strength is too high to keep content.
    """
    notes: list[str]


@dataclass(frozen=True)
class _Looks:
    """Real images as they are compared with the pool: as the generator renders them, or else as they are."""

    features_KD: Floats
    class_K: Ints
    has_N: Bools
    """Which real images can be compared, and so are among the K."""
    real_KD: Floats
    """Features of the same images as they are."""
    renderings: Images | None


def with_encoder(config: DiagnosisConfig, curation: CurationConfig, image_size: int, origin: Origin) -> DiagnosisConfig:
    """The config with the encoder by whose features images are alike: one that has seen no more than the arms may have."""
    encoder = config.encoder
    if encoder is None and (image_size <= SMALL or origin == "own"):
        encoder = PixelsConfig()
    elif encoder is None:
        encoder = curation.encoder
        if encoder is None or encoder.fits or encoder.knows_reference_alone:
            encoder = CLIP
    return config.model_copy(update={"encoder": encoder})


def sources_of(
    reference: Reference, draw: RealDraw, pool: str, renderings: Renderings | None, *, config: DiagnosisConfig, curation: CurationConfig
) -> DiagnosisSources:
    """Compare a pool with the real images of a draw, and build the arms.

    Raises RequestError if images of less than two classes can be compared.

    Args:
        pool: address of the synthetic images.
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
        raise RequestError(f"{reference.address}: too few images can be compared; a diagnosis needs two classes or more")

    table = Table.open(pool, cache)
    everything = Images.of(table, reference.classes, is_real=False)
    features, is_usable = embed(table.collections[0])
    usable_M = is_usable[everything.row_N]
    pool_MD, class_M = features[everything.row_N[usable_M]], everything.label_N[usable_M]

    found = doubts(looks.features_KD, looks.class_K, pool_MD, class_M, neighbours=config.neighbours, loss=config.loss)
    passes_M = usable_M.copy()
    passes_M[usable_M], wholly_doubted = label_filter(found.doubted_M, class_M)
    trusted_M = ~found.doubted_M
    weight_N = np.ones(len(draw.fit))
    weight_N[looks.has_N], by_chance = content_weights(looks.features_KD, looks.class_K, pool_MD[trusted_M], class_M[trusted_M])
    images = arm_images(draw.fit, everything, passes_M=passes_M, weight_N=weight_N, renderings=looks.renderings, is_rendered_N=looks.has_N)

    facts = {
        "doubted": found.share,
        "doubted_real": found.share_of_real,
        "doubted_p": found.p_value,
        "variety": variety(looks.features_KD, looks.class_K, pool_MD, class_M),
        "compared": float(looks.has_N.mean()),
    }
    if by_chance:
        facts["differing"] = float(np.mean([p_value <= BY_CHANCE for p_value in by_chance.values()]))
    if looks.renderings is not None:
        facts["recognised"] = _recognised(looks)
    names = [reference.classes[number] for number in wholly_doubted]
    notes = [f"no image of class {name} in {pool} looks like it; its wrong labels count as the rest" for name in names]
    return DiagnosisSources(images, facts, notes)


def _looks(reference: Reference, real: Images, renderings: Renderings | None, embed: _Embed, cache: Path) -> _Looks:
    features, is_usable = embed(reference.table.collections[0])
    has_N = is_usable[real.row_N]
    if renderings is None:
        real_KD = features[real.row_N[has_N]]
        return _Looks(real_KD, real.label_N[has_N], has_N, real_KD, renderings=None)
    table = Table.open(renderings.address, cache)
    of_looks, is_usable = embed(table.collections[0])
    is_usable &= table.class_indices(reference.classes) >= 0
    has_N &= (renderings.row_N >= 0) & is_usable[renderings.row_N]
    images = Images.of(table, reference.classes, renderings.row_N[has_N], is_real=False)
    return _Looks(of_looks[images.row_N], images.label_N, has_N, features[real.row_N[has_N]], images)


def _recognised(looks: _Looks) -> float:
    """Share of the renderings that are nearest to the real image that they are of."""
    nearest_K = Neighbours(looks.real_KD, IndexConfig()).search(looks.features_KD, 1)[1][:, 0]
    return float(np.mean(nearest_K == np.arange(len(nearest_K))))


def _rows(names: Iterable[str], wanted: Iterable[str]) -> Ints:
    row_of = {name: row for row, name in enumerate(names)}
    return np.array([row_of.get(name, -1) for name in wanted], np.int64)
