"""The two sides of a curation, pools and reference: reads them, aligns their classes, and computes features.

A *view* is the feature space of one model. A cross-fitted encoder consists of several models, so it gives several
views.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from synthforge.arrays import Bools, Ints
from synthforge.config import identity_of
from synthforge.curation.default_encoders import encoders_for
from synthforge.curation.evidence import NEEDS_TEXTS, EncodedView, Evidence, Texts
from synthforge.curation.gap.gap import MetricView
from synthforge.curation.gates import LabelGate, in_order
from synthforge.data.image_table import Table
from synthforge.data.images import EXTENSIONS, Uint8
from synthforge.data.layout import digest_of
from synthforge.data.opening import open_collection
from synthforge.devices import pick_device
from synthforge.errors import DatasetError, PlaceError, RequestError, some
from synthforge.features.embed import EmbedWork, embed, facts_of, features_of, loaded
from synthforge.features.encoders.config import EncoderConfig
from synthforge.features.encoders.protocol import SEEN_DIGITS, Encoder
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder

VERSION = 3
"""Version of the procedure. It is raised when the same inputs and settings choose other images."""


@dataclass
class Sides:
    """Pools and reference, with the same class indices, and the features of all their images on disk."""

    config: CurationConfig
    cache: Path
    reference_address: str
    pool: Table
    real: Table
    encoder: EncoderConfig
    metric_encoder: EncoderConfig
    notes: list[str]
    classes: list[str] = field(default_factory=list)
    """Class names that both sides have, by class index."""
    encoders: list[Encoder] = field(default_factory=list)
    """The loaded models of the encoder."""
    metric_encoders: list[Encoder] = field(default_factory=list)

    @classmethod
    def read(cls, pools: Sequence[str], reference: str, config: CurationConfig, reporter: Reporter) -> Sides:
        """Open both sides. Raises RequestError if the request can't be met, and DatasetError if an input can't be
        used."""
        cache = cache_folder(config)
        _require_writable(cache)
        reporter.note("reading pool and reference")
        *opened, real = (
            open_collection(address, cache, classes=config.classes, reading=config.reading, reporter=reporter)
            for address in [*pools, reference]
        )
        encoder, metric_encoder = encoders_for(config, reference, real)
        sides = cls(
            config=config,
            cache=cache,
            reference_address=reference,
            pool=Table.of(opened),
            real=Table.of([real]),
            encoder=encoder,
            metric_encoder=metric_encoder,
            notes=[problem for collection in [*opened, real] for problem in collection.problems],
        )
        if config.orientation == "kept":
            sides.notes.append("orientation: all images keep their bytes; loaders that ignore EXIF data see turned photographs lying")
        sides._align()
        sides._require_possible()
        return sides

    def choosing_by(self, config: CurationConfig) -> Sides:
        """The same sides with another `selection` and `regime`; raises RequestError if these can't be met."""
        assert config.model_copy(update={"selection": self.config.selection, "regime": self.config.regime}) == self.config
        sides = replace(self, config=config, notes=[])
        sides._require_possible()
        return sides

    def load(self, reporter: Reporter, with_metric_encoder: bool = True) -> None:
        """Load encoder and metric encoder. Those of kind `fitted` are fitted now.

        Args:
            with_metric_encoder: needed to measure the gap.
        """
        measuring = f" and metric encoder {_name(self.metric_encoder)}" if with_metric_encoder else ""
        reporter.note(f"loading encoder {_name(self.encoder)}{measuring}")
        config, reference = self.config, self.reference_address
        self.encoders = loaded((self.encoder,), config.device, reference, self.cache, config.reading, reporter=reporter)
        if with_metric_encoder:
            self.metric_encoders = loaded((self.metric_encoder,), config.device, reference, self.cache, config.reading, reporter=reporter)
        if set(_digests(self.encoders)) & set(_digests(self.metric_encoders)):
            raise RequestError(
                "metric_encoder: is the same model as the encoder, so it would measure its own selection; name another model"
            )
        if any(gate.needs_texts for gate in in_order(self.config)) and any(encoder.logit_scale is None for encoder in self.encoders):
            raise RequestError(NEEDS_TEXTS)

    def embed_reference(self, reporter: Reporter) -> None:
        """Compute features of real images that are not in the cache yet; raises DatasetError if an image can't be
        read."""
        self._embed(self.real, reporter)
        by_row = facts_of(self.real.collections[0], self.cache).column("problem").to_pylist()
        problems = [f"{self.real.location(row)}: {problem}" for row, problem in enumerate(by_row) if problem is not None]
        if problems:
            raise DatasetError(f"{self.reference_address}: {some(problems, 12)}; remove or replace {'them' if len(problems) > 1 else 'it'}")

    def embed_pool(self, reporter: Reporter) -> None:
        """Compute features of pool images that are not in the cache yet."""
        self._embed(self.pool, reporter)

    def _embed(self, side: Table, reporter: Reporter) -> None:
        config = self.config
        for collection in side.collections:
            work = EmbedWork(
                address=collection.address,
                classes=config.classes,
                reading=config.reading,
                encoders=(self.encoder, self.metric_encoder) if self.metric_encoders else (self.encoder,),
                cache=self.cache,
                device=config.device,
                batch=config.batch,
                decoders=config.decoders,
                reference=self.reference_address,
                ready=[*self.encoders, *self.metric_encoders],
            )
            embed(collection, _digests([*self.encoders, *self.metric_encoders]), work, config.workers, reporter)

    def _align(self) -> None:
        """Set the classes to those that both sides have, in the order of the pools."""
        real_names = {name for name in self.real.strings("class") if name is not None}
        in_pools = [name for collection in self.pool.collections for name in collection.classes]
        self.classes = [name for name in dict.fromkeys([*in_pools, *self.real.collections[0].classes]) if name in real_names]
        if unknown := sorted(set(in_pools) - real_names):
            self.notes.append(f"{some(unknown)}: in the pool, but not in the reference; such images are not kept")
        pool_order = self.pool.collections[0].classes
        if pool_order != self.output_classes[: len(pool_order)]:
            first = ", ".join(f"{number} {name}" for number, name in enumerate(self.output_classes[:3]))
            self.notes.append(f"labels are numbered in the order of the reference ({first}, ...), which is not that of the pool")
        if not set(in_pools) & real_names:
            raise RequestError(
                f"pool and reference have no class in common: the pool has {some(sorted(set(in_pools)))}, "
                f"the reference {some(sorted(real_names))}; give names to numbered labels with --set classes=[...]"
            )
        pool_names = set(self.pool.strings("class"))
        if missing := [name for name in self.classes if name not in pool_names]:
            self.notes.append(f"{some(missing)}: no images in the pool")

    def _require_possible(self) -> None:
        """Raise now the errors that would otherwise come after hours of work."""
        pick_device(self.config.device, "device")
        self.real.require_labels(self.reference_address)
        usable = self.pool_class >= 0
        rows_of = {
            name: np.flatnonzero(usable & (self.pool.strings("extension") == name)) for name in set(self.pool.strings("extension")[usable])
        }
        formats = sorted(rows_of, key=lambda name: (-len(rows_of[name]), name))
        if len(formats) > 1:
            found = " and ".join(f"{len(rows_of[name]):,} {name} (first: {self.pool.location(int(rows_of[name][0]))})" for name in formats)
            raise RequestError(f"the pools' images are {found}; a curated set has one format: convert some, or curate them apart")
        if unfit := [name for name in formats if name not in EXTENSIONS]:
            raise RequestError(f"the pools' images are {unfit[0]}; shards hold {', '.join(EXTENSIONS)}, so convert them first")
        size = self.config.selection.size
        if unknown := set(size.quota or {}) - set(self.classes):
            names = ", ".join(self.classes)
            raise RequestError(f"selection.size.quota: class {min(unknown)!r} is not in pool and reference; they have {names}")
        if not any(self.asked.values()):
            raise RequestError("selection.size: asks for no image; raise it")
        if self.fit.all():
            if self.config.selection.method == "auto":
                raise RequestError(
                    f"{self.reference_address}: has no validation part, on which auto tests rules; name a selection.method, or add images"
                )
            self.notes.append(
                "the reference has no validation part: gates are set by its fit images, each left out in turn, and no classifier is "
                "trained as a check"
            )

    @functools.cached_property
    def asked(self) -> dict[str, int]:
        """Images to keep of each class, by the settings."""
        size = self.config.selection.size
        return {name: size.of(name, int((self.fit & (self.real_class == number)).sum())) for number, name in enumerate(self.classes)}

    # Facts about each image

    @functools.cached_property
    def _pool_facts(self) -> Any:
        import pyarrow as pa

        return pa.concat_tables([facts_of(collection, self.cache) for collection in self.pool.collections])

    @functools.cached_property
    def pool_class(self) -> Ints:
        """Index into `classes` of each pool image; -1 for none."""
        return self.pool.class_indices(self.classes)

    @functools.cached_property
    def real_class(self) -> Ints:
        """Index into `classes` of each real image."""
        return self.real.class_indices(self.classes)

    @functools.cached_property
    def output_classes(self) -> list[str]:
        """Class names of the curated set, by label number: in the order of the reference, then those of the pools
        alone."""
        in_pools = [name for collection in self.pool.collections for name in collection.classes]
        return list(dict.fromkeys([*(name for name in self.real.collections[0].classes if name in self.classes), *in_pools]))

    @functools.cached_property
    def output_class_N(self) -> Ints:
        """Label number of each pool image in the curated set; -1 for none."""
        return self.pool.class_indices(self.output_classes)

    @functools.cached_property
    def problem(self) -> NDArray[np.object_]:
        """Why each pool image can't be used; None if it can."""
        names = self.pool.strings("class")
        problems = np.array(self._pool_facts.column("problem").to_pylist(), object)
        problems[(self.pool_class < 0) & (problems == None)] = "class unknown to the reference"  # noqa: E711 - elementwise
        problems[names == None] = "no label"  # noqa: E711
        return problems

    @functools.cached_property
    def transparent(self) -> Bools:
        """Pool images that are transparent somewhere."""
        return np.asarray(self._pool_facts.column("transparent").to_numpy(), np.bool_)

    @functools.cached_property
    def usable(self) -> Bools:
        """Pool images that can be used."""
        return np.asarray(self.problem == None)  # noqa: E711

    @property
    def fit(self) -> Bools:
        """Real images of the fit part. The others are the validation part."""
        return self.real.fit

    # Features

    @functools.cached_property
    def device(self) -> str:
        """The device of selection and trials."""
        return str(pick_device(self.config.device, "device"))

    def _view(self, encoder: Encoder) -> EncodedView:
        (digest,) = _digests([encoder])
        return EncodedView(
            pool=features_of(self.pool.collections, digest, self.cache),
            real=features_of(self.real.collections, digest, self.cache),
            unseen_M=np.array([sha256[:SEEN_DIGITS] not in encoder.seen for sha256 in self.real.strings("image_sha256")]),
        )

    @functools.cached_property
    def views(self) -> list[EncodedView]:
        """The views of the encoder."""
        return [self._view(encoder) for encoder in self.encoders]

    @functools.cached_property
    def evidence(self) -> Evidence:
        """Comparisons of pool and reference, for the gates."""
        row_of = {sha256: row for row, sha256 in enumerate(self.real.strings("image_sha256"))}
        return Evidence(
            self.views,
            self.classes,
            class_N=self.pool_class,
            usable_N=self.usable,
            pixels_N=self._pool_facts.column("pixels").to_numpy(),
            strength_N=self.pool.numbers("strength"),
            source_N=np.array([row_of.get(sha256, -1) for sha256 in self.pool.strings("source_sha256")], np.int64),
            real_class_M=self.real_class,
            real_key_M=self.real.strings("key").tolist(),
            fit_M=self.fit,
            neighbours=cast("LabelGate", self.config.gates["labels"]).neighbours,
            index=self.config.index,
            embed_texts=self._embed_texts,
            images=self._images,
            real_images=lambda: ((row, members.pixels(3)) for row, members in self.real.samples(np.arange(len(self.real)))),
        )

    def _images(self) -> Iterator[tuple[int, Uint8]]:
        for row, members in self.pool.samples(np.flatnonzero(self.usable)):
            yield row, members.pixels(3)

    def _embed_texts(self, texts: list[str]) -> list[Texts]:
        encoded = [(encoder.embed_texts(texts), encoder.logit_scale) for encoder in self.encoders]
        return [Texts(features, scale) for features, scale in encoded if features is not None and scale is not None]

    @functools.cached_property
    def metric_views(self) -> list[MetricView]:
        """The views of the metric encoder: all pool images, and the real images of both parts that its model has not
        seen."""
        return self._metric_views(np.ones(len(self.fit), bool))

    @functools.cached_property
    def held_out_views(self) -> list[MetricView]:
        """The same views with real images of the validation part alone, which the selection was not matched to."""
        return self._metric_views(~self.fit)

    def _metric_views(self, among_M: Bools) -> list[MetricView]:
        views = []
        for view in map(self._view, self.metric_encoders):
            rows = np.flatnonzero(view.unseen_M & among_M)
            keys = self.real.strings("key")[rows].tolist()
            views.append(MetricView(view.pool, self.pool_class, view.real[rows], self.real_class[rows], keys))
        return views

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """Everything that the curated set depends on, as its digest sees it."""
        settings = identity_of(self.config, lambda path, value: "")
        return {
            "curation_version": VERSION,
            "decoder": self.config.reading.decoder,
            **settings,
            "encoder": identities(self.encoders),
            "judge": identities(self.metric_encoders),  # its name before; kept so that old digests stay valid
            "pools": [collection.digest for collection in self.pool.collections],
            "reference": self.real.collections[0].digest,
        }


def identities(encoders: Iterable[Encoder]) -> list[dict[str, Any]]:
    """The identity of each encoder. Its features are cached under the digest of its identity."""
    return [encoder.identity() for encoder in encoders]


def _digests(encoders: Iterable[Encoder]) -> list[str]:
    return [digest_of(identity) for identity in identities(encoders)]


def _require_writable(cache: Path) -> None:
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            pass
    except OSError as error:
        raise PlaceError(
            f"{cache}: features can't be cached there ({error.strerror}); choose another folder with the setting `cache`"
        ) from error


def _name(config: EncoderConfig) -> str:
    model = getattr(config, "model", None)
    return f"{config.kind} {model}" if model else config.kind
