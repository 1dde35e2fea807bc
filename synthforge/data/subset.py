"""Write some real images of a table as a dataset folder."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from synthforge.arrays import Ints
from synthforge.data.folder import import_shard
from synthforge.data.image_table import Table
from synthforge.data.images import EXTENSIONS, ImageFormat, encode
from synthforge.data.layout import COMPLETE, Manifest, Segment, digest_of, key_of
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar


def write_subset(
    table: Table, row_N: Ints, label_N: Ints, place: Path, *, classes: list[str], parts: dict[str, tuple[int, int]], origin: str
) -> None:
    """Write N images of a table in the order of `row_N`. A complete folder is left as it is.

    The images are copied byte by byte if all of them have the same format, and become png otherwise.

    Args:
        label_N: indices into `classes`.
        parts: first and end image of each part (`fit`, `validation`).
        origin: where the images come from, for the manifest.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(place.parent / f".{place.name}.lock"):  # several processes may want the same images
        if (place / COMPLETE).exists():
            return
        members_of = dict(table.samples(row_N))
        formats = set(table.strings("extension")[row_N].tolist())
        as_is = len(formats) == 1 and formats <= set(EXTENSIONS)
        extension: ImageFormat = formats.pop() if as_is else "png"
        samples = []
        for index, (row, label) in enumerate(zip(row_N.tolist(), label_N.tolist(), strict=True)):
            data = members_of[row].image if as_is else encode(members_of[row].pixels(), "png", 100, marking=False)
            samples.append(EncodedSample(key_of(index), data, extension, label, text=classes[label], record={"class": classes[label]}))
        recipe = {"reference": origin, "images": digest_of(table.strings("image_sha256")[row_N].tolist())}
        manifest = Manifest(
            kind="real",
            classes=classes,
            image_format=extension,
            plan_digest=digest_of(recipe),
            recipe=recipe,
            generator=None,
            segment=Segment(first_sample=0, num_samples=len(samples), first_shard=0, samples_per_shard=len(samples)),
            parts=parts,
        )
        folder = Folder(str(place.resolve()))
        for name in folder.list():  # from a run that was killed
            folder.remove(name)
        import_shard(folder, manifest, lambda path: write_tar(path, samples))
