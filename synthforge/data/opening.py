"""Open a pool or reference at any address as a collection. Not covered: remote sets of other programs."""

from __future__ import annotations

from pathlib import Path

from synthforge.data.collection import Collection
from synthforge.data.folder import DatasetFolder
from synthforge.data.foreign import find_foreign
from synthforge.data.foreign_collection import ForeignCollection
from synthforge.data.layout import MANIFEST
from synthforge.data.read_config import Reading
from synthforge.data.sealed_collection import SealedCollection
from synthforge.data.storage import Folder, resolve
from synthforge.errors import DatasetError
from synthforge.progress import Reporter


def open_collection(
    address: str,
    cache: Path,
    *,
    classes: list[str] | None = None,
    reading: Reading | None = None,
    reporter: Reporter | None = None,
) -> Collection:
    """Open a pool or reference; raises DatasetError if there is nothing that can be read, or no label.

    Args:
        address: one of: a dataset folder (local or remote), a WebDataset tar, a folder or pattern of tars, a folder of
            images by class, a folder of `datasets` (arrow or parquet).
        cache: folder for indices of foreign sets. An index has some 60 bytes for each image, and the captions.
        classes: class names by number, for foreign sets whose labels are numbers. A dataset folder has its own.
        reading: which columns foreign sets have image and label in, and the background of transparent images.
    """
    place, reading = resolve(address), reading or Reading()
    if Folder(place).exists(MANIFEST):
        return SealedCollection(DatasetFolder.open(place), cache, reading)
    if "://" in place:
        raise DatasetError(
            f"{place}: no {MANIFEST} there, and sets of other programs are read from disk only; download it, or check the address"
        )
    if Folder(place).exists(f"pool/{MANIFEST}"):
        raise DatasetError(f"{place}: is the folder of a run, not a dataset folder; did you mean {place}/pool?")
    if (foreign := find_foreign(place, reading.columns)) is None:
        hint = "images need a sub-folder for each class" if Path(place).is_dir() else "check the path"
        raise DatasetError(f"{place}: no dataset folder, WebDataset tars, folder of images by class or `datasets` there; {hint}")
    return ForeignCollection(place, foreign, cache, classes, reading=reading, reporter=reporter or Reporter())
