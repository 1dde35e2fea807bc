"""Read labelled real images by part, from a collection in any form.

A reference has a *fit* part and a *validation* part; `Collection.part` says which image is in which.
Images that are files of their own are read when they are needed.
Images of tars, tables and dataset folders are kept in memory, still encoded.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from synthforge.data.images import Uint8, decode, resize
from synthforge.data.input_report import InputReport
from synthforge.data.opening import open_collection
from synthforge.data.read_config import Reading
from synthforge.data.storage import user_cache
from synthforge.data.units import WHERE_LABELS_STAND, Part, bytes_of
from synthforge.errors import DatasetError, some
from synthforge.progress import Reporter


@dataclass(frozen=True)
class Example:
    """One labelled image, still encoded."""

    name: str
    """Its place, for messages."""
    key: str
    """Its place inside its set; the same on every machine."""
    class_name: str
    content: bytes | Path
    """The encoded image, or the path it is read from when it is needed."""
    reading: Reading = field(default_factory=Reading)

    @property
    def data(self) -> bytes:
        """The encoded image; raises DatasetError if it can't be read."""
        return self.content if isinstance(self.content, bytes) else bytes_of(self.content)

    def pixels(self, channels: int | None = None) -> Uint8:
        """The decoded image; see `images.decode`."""
        return decode(self.data, channels, self.reading.background)

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the image file as it is stored."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class Labelled:
    """The images of one part, in order."""

    classes: list[str]
    examples: list[Example]
    notes: list[str] = field(default_factory=list)
    """What of the set is not used, and why."""
    report: InputReport | None = None
    """What the whole set holds. None: it was not read from an address."""

    def first_of_each(self, per_class: int) -> Labelled:
        """The first images of each class, in order; raises DatasetError if a class has too few.

        Args:
            per_class: number of images of each class.
        """
        count: Counter[str] = Counter()
        kept = []
        for example in self.examples:
            count[example.class_name] += 1
            if count[example.class_name] <= per_class:
                kept.append(example)
        if short := next((name for name in self.classes if count[name] < per_class), None):
            raise DatasetError(f"class {short!r} has {count[short]} images, fewer than per_class={per_class}; lower it or add images")
        return Labelled(self.classes, kept, self.notes, self.report)

    def arrays(self, resolution: int, channels: Literal[1, 3]) -> tuple[Uint8, NDArray[np.int64]]:
        """Decoded and resized images, uint8 (N, C, H, W), and labels, int64 (N,).

        Raises: DatasetError that names the images that can't be read.
        """
        images, problems = [], []
        for example in self.examples:
            try:
                images.append(resize(example.pixels(channels), resolution).transpose(2, 0, 1))
            except DatasetError as error:
                problems.append(f"{example.name}: {error}")
        _require_none(problems)
        number = {name: index for index, name in enumerate(self.classes)}
        return np.ascontiguousarray(np.stack(images)), np.array([number[example.class_name] for example in self.examples], dtype=np.int64)


@dataclass(frozen=True)
class Sources:
    """The images of a reference's fit part, from which image-to-image generation may start."""

    by_class: dict[str, list[Example]]
    sha256: str
    """SHA-256 over class, key and content of all images."""

    @classmethod
    def read(cls, address: str, known_sha256: str | None = None, cache: Path | None = None, reading: Reading | None = None) -> Sources:
        """Read the images and decode each once; raises DatasetError that names those that can't be decoded.

        Args:
            known_sha256: `sha256` from another process, which has decoded them. None: decode them here.
            cache, reading: as for `read_labelled`.
        """
        labelled = read_labelled(address, cache, reading=reading)["fit"]
        by_class: dict[str, list[Example]] = defaultdict(list)
        for example in labelled.examples:
            by_class[example.class_name].append(example)
        return cls(dict(by_class), known_sha256 or _digest_of(labelled.examples))

    def find(self, key: str) -> Example:
        """The image with the key that a record names as its source; raises DatasetError."""
        examples = itertools.chain.from_iterable(self.by_class.values())
        if (source := next((example for example in examples if example.key == key), None)) is None:
            raise DatasetError(f"{key}: is not among the real images any more, so images that were started from it can't be made again")
        return source


def _digest_of(examples: list[Example]) -> str:
    """SHA-256 over the images. Each is decoded, since a broken image would otherwise stop the work hours later."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "decode") as pool:
        problems = [problem for problem in pool.map(_problem_with, examples) if problem]
    _require_none(problems)
    lines = [f"{example.class_name}\0{example.key}\0{example.sha256}\n" for example in examples]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _require_none(problems: list[str]) -> None:
    if problems:
        raise DatasetError(f"{some(problems, 12)}; remove or replace {'them' if len(problems) > 1 else 'it'}")


def _problem_with(example: Example) -> str | None:
    try:
        example.pixels()
    except DatasetError as error:
        return str(error) if example.name in str(error) else f"{example.name}: {error}"
    return None


def read_labelled(
    address: str, cache: Path | None = None, reporter: Reporter | None = None, reading: Reading | None = None
) -> dict[Part, Labelled]:
    """Both parts of a set of labelled real images, in any form that `open_collection` reads.

    Args:
        cache: folder for indices of foreign sets. None: the cache of synthforge.
        reading: how the images are read.
    Raises: DatasetError, also for an image without a label and for a file that is torn or missing.
    """
    collection = open_collection(address, cache or user_cache(), reading=reading, reporter=reporter)
    if collection.losses:
        raise DatasetError(collection.losses[0])
    examples: dict[Part, list[Example]] = {"fit": [], "validation": []}
    parts = collection.part()
    for block in collection.blocks:
        locations, names = list(collection.locations(block)), collection.rows(block)["class"].to_pylist()
        if None in names:
            unlabelled = locations[names.index(None)].name
            raise DatasetError(f"{unlabelled}: has no label; {WHERE_LABELS_STAND[collection.kind]}")
        files = [location.file for location in locations if location.file is not None]
        contents: Iterable[bytes | Path] = files or collection.images(block)
        for location, class_name, part, content in zip(locations, names, parts[block.name].tolist(), contents, strict=True):
            examples[part].append(Example(location.name, location.key, class_name, content, collection.reading))
    return {part: Labelled(collection.classes, images, collection.problems, collection.report) for part, images in examples.items()}
