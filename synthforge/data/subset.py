"""Some real images of a table as a dataset folder of their own."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from synthforge.data.folder import import_shard
from synthforge.data.images import ImageFormat, decode, encode
from synthforge.data.layout import COMPLETE, Manifest, Segment, digest_of, key_of
from synthforge.data.pools import Table
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar

Ints = NDArray[np.int64]


def write_subset(
    table: Table, row_N: Ints, label_N: Ints, place: Path, *, classes: list[str], parts: dict[str, tuple[int, int]], origin: str
) -> None:
    """Write N images of a table in their order, the bytes as they are if all have one format; what is there stays.

    Args:
        label_N: indices into `classes`.
        parts: name of a part (`fit`, `validation`) to first image and end.
        origin: where the images come from, for the record.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.parent / f".{place.name}.lock"):  # several processes may want the same images
        if (place / COMPLETE).exists():
            return
        found = dict(table.samples(row_N))
        formats = sorted({"jpg" if members.extension == "jpeg" else members.extension for members in found.values()})
        as_is = len(formats) == 1 and formats[0] in {"png", "jpg", "webp"}
        extension = formats[0] if as_is else "png"
        samples = []
        for index, (row, label) in enumerate(zip(row_N.tolist(), label_N.tolist(), strict=True)):
            data = found[row].image if as_is else encode(decode(found[row].image), "png", 100, marking=False)
            samples.append(EncodedSample(key_of(index), data, extension, label, text=classes[label], record={"class": classes[label]}))
        recipe = {"reference": origin, "images": digest_of(table.strings("image_sha256")[row_N].tolist())}
        manifest = Manifest(
            kind="real",
            classes=classes,
            image_format=cast("ImageFormat", extension),
            plan_digest=digest_of(recipe),
            recipe=recipe,
            generator=None,
            segment=Segment(first_sample=0, num_samples=len(samples), first_shard=0, samples_per_shard=len(samples)),
            parts=parts,
        )
        folder = Folder(str(place.resolve()))
        for name in folder.list():  # what a killed run left
            (place / name).unlink() if (place / name).is_file() else None
        import_shard(folder, manifest, lambda path: write_tar(path, samples))
