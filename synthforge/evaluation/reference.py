"""The real images of an evaluation: what draws are made of, and what arms are compared with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from filelock import FileLock

from synthforge.data.collection import open_collection
from synthforge.data.folder import import_shard
from synthforge.data.images import ImageFormat, decode, encode
from synthforge.data.layout import COMPLETE, Manifest, Segment, digest_of, key_of
from synthforge.data.pools import Table
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.errors import DatasetError, RequestError
from synthforge.evaluation.conditions import RealDraw, real_draws
from synthforge.evaluation.sets import Bools, Images
from synthforge.progress import Reporter
from synthforge.recipe.evaluation import Amount, EvaluationConfig


@dataclass(frozen=True)
class Reference:
    """All real images, of which draws are some."""

    address: str
    table: Table
    fit: Bools
    """Rows of the fit part."""
    classes: list[str]
    image_size: int
    """Shorter side of the first image."""
    notes: list[str]

    @classmethod
    def open(cls, address: str, cache: Path, reporter: Reporter) -> Reference:
        """Raises DatasetError or RequestError."""
        collection = open_collection(address, cache, reporter=reporter)
        table = Table.of([collection])
        names = table.strings("class")
        if num := sum(name is None for name in names):
            raise RequestError(f"{address}: {num} of {len(table)} images have no label; give them one, or remove them")
        parts = collection.part()
        fit_M = np.asarray(np.concatenate([parts[block.name] for block in collection.blocks]) == "fit")
        present = set(names)
        if len(present) == 1:
            raise RequestError(f"{address}: holds one class only, {present.pop()!r}; a classifier needs two or more to tell apart")
        first = next(members.image for _, members in table.samples(np.zeros(1, np.int64)))
        try:
            size = min(decode(first).shape[:2])
        except DatasetError as error:
            raise DatasetError(f"{address}, image {table.strings('key')[0]}: {error}; remove or replace it") from error
        notes = [f"{address}: {problem}" for problem in collection.problems]
        return cls(address, table, fit_M, [name for name in collection.classes if name in present], size, notes)

    def draws(self, amount: Amount, config: EvaluationConfig, where: str = "real_per_class") -> list[RealDraw]:
        """The draws of one amount. Generators that are there were fitted on the first images, so each draw has these and another pool."""
        return real_draws(self.table, self.fit, self.classes, amount, config.draws, only_first=config.generators is not None, where=where)

    def write(self, images: Images, place: Path, parts: dict[str, tuple[int, int]]) -> None:
        """Some of them as a dataset folder, their bytes as they are; what is there stays."""
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent / f".{place.name}.lock"):  # units of both origins want the same images
            if not (place / COMPLETE).exists():
                self._write(images, place, parts)

    def _write(self, images: Images, place: Path, parts: dict[str, tuple[int, int]]) -> None:
        found = dict(self.table.samples(images.row_N))
        formats = sorted({"jpg" if members.extension == "jpeg" else members.extension for members in found.values()})
        as_is = len(formats) == 1 and formats[0] in {"png", "jpg", "webp"}
        samples = []
        for index, (row, label) in enumerate(zip(images.row_N.tolist(), images.label_N.tolist(), strict=True)):
            data = found[row].image if as_is else encode(decode(found[row].image), "png", 100, marking=False)
            name = self.classes[label]
            samples.append(EncodedSample(key_of(index), data, formats[0] if as_is else "png", label, name, {"class": name}))
        origin = {"reference": self.address, "images": digest_of(images.sha256_N.tolist())}
        manifest = Manifest(
            kind="real",
            classes=self.classes,
            image_format=cast("ImageFormat", formats[0] if as_is else "png"),
            plan_digest=digest_of(origin),
            recipe=origin,
            generator=None,
            segment=Segment(first_sample=0, num_samples=len(samples), first_shard=0, samples_per_shard=len(samples)),
            parts=parts,
        )
        folder = Folder(str(place.resolve()))
        for name in folder.list():  # what a killed run left
            (place / name).unlink() if (place / name).is_file() else None
        import_shard(folder, manifest, lambda path: write_tar(path, samples))
