"""A foreign set as a collection. It has no seals, so it is read by the indices of its units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from synthforge.data.collection import ROWS_SCHEMA, Block, Collection
from synthforge.data.images import EXTENSIONS
from synthforge.data.labels import as_name, natural_order
from synthforge.data.layout import digest_of
from synthforge.data.read_config import Reading
from synthforge.data.unit_index import UnitIndex, index_key, indices_of
from synthforge.data.units import WHERE_LABELS_STAND, ForeignSet, Location, Members, Unused
from synthforge.errors import DatasetError, some
from synthforge.progress import Reporter


class ForeignCollection(Collection):
    """A set that another program wrote. Its indices are in the cache."""

    def __init__(
        self, place: str, foreign: ForeignSet, cache: Path, classes: list[str] | None, *, reading: Reading, reporter: Reporter
    ) -> None:
        self.address, self.kind, self.reading = place, foreign.kind, reading
        indices = indices_of(foreign.units, cache, reporter)
        problems = foreign.problems + [problem for index in indices for problem in index.facts.problems]
        self.problems = list(map(str, problems))
        self.unused = _by_reason(problem.unused for problem in problems if problem.unused is not None)
        losses = [f"{problem.what}; {problem.remedy}" for problem in problems if problem.remedy]
        self.losses = [loss if loss.startswith(place) else f"{place}: {loss}" for loss in losses]
        num_samples = sum(index.facts.num_samples for index in indices)
        labels = {label for index in indices for label in index.facts.labels}
        if num_samples == 0:
            raise DatasetError(f"{place}: {self.kind} without a single image ({(self.problems or ['nothing in it'])[0]}); check the path")
        self._require_every_class(labels)
        if not labels:
            raise DatasetError(f"{place}: {num_samples} images and no label; {WHERE_LABELS_STAND[self.kind]}")
        named = classes or foreign.classes
        self._name_of = _names_of_labels(place, natural_order(labels), named and [as_name(name) for name in named])
        self.classes = [as_name(name) for name in named] if named else list(self._name_of.values())
        self._places: dict[str, tuple[UnitIndex, int]] = {}
        self.blocks = list(self._cut(indices))
        self._require_fit_images()
        contents = [[block.digest, block.labels_sha256, index.unit.part] for index in indices for block in index.facts.blocks]
        self.digest = digest_of([self.classes, contents, self._name_of])

    def _cut(self, indices: list[UnitIndex]) -> Iterator[Block]:
        for index in indices:
            start = 0
            for group, block in enumerate(index.facts.blocks):
                name = index.unit.name if len(index.facts.blocks) == 1 else f"{index.unit.name} {start}-{start + block.num_samples - 1}"
                start += block.num_samples
                self._places[name] = (index, group)
                yield Block(name, block.digest, block.num_samples, self.reading.decoder)

    def _require_every_class(self, labels: Set[str]) -> None:
        """Raise DatasetError if nothing in a class folder is an image."""
        for unused in self.unused:
            if lost := sorted(unused.by_class.keys() - labels):
                raise DatasetError(
                    f"{self.address}: class {some(lost)} has files, but none that is used ({unused}); "
                    f"convert them to {', '.join(EXTENSIONS)}, or remove the folder"
                )

    def _require_fit_images(self) -> None:
        """Raise DatasetError if a class of the validation part has no images in the fit part."""
        pairs = {(index.unit.part, self._name_of[label]) for index, _ in self._places.values() for label in index.facts.labels}
        if lacking := {name for part, name in pairs if part == "validation" and ("fit", name) not in pairs}:
            raise DatasetError(
                f"{self.address}: class {min(lacking)!r} of the validation part has no images in the fit part; add some or remove it"
            )

    def rows(self, block: Block) -> pa.Table:
        table = self._indexed(block)
        names = pa.array([self._name_of.get(label) for label in table["class"].to_pylist()], pa.string())
        return table.set_column(1, "class", names).select(ROWS_SCHEMA.names).cast(ROWS_SCHEMA)

    def locations(self, block: Block) -> Iterator[Location]:
        return map(self._places[block.name][0].unit.location, self._indexed(block)["name"].to_pylist())

    def _indexed(self, block: Block) -> pa.Table:
        index, group = self._places[block.name]
        if index.facts.blocks[group].digest != block.digest or index_key(index.unit) != index.path.stem:
            raise DatasetError(f"{self.address}: {block.name} has changed meanwhile; run again")
        try:
            return pq.ParquetFile(index.path).read_row_group(group)
        except (OSError, pa.ArrowException) as error:
            raise DatasetError(f"{index.path}: the index of {block.name} is gone or damaged; remove it and run again") from error

    def _read(self, block: Block, rows: Sequence[int] | None, whole: bool) -> Iterator[Members]:
        table = self._indexed(block)
        return self._places[block.name][0].unit.read(table if rows is None else table.take(pa.array(rows, pa.int64())), whole)

    def _named_parts(self) -> dict[str, NDArray[np.str_]] | None:
        parts = [self._places[block.name][0].unit.part for block in self.blocks]
        if None in parts:
            return None
        return {block.name: np.full(block.num_samples, part) for block, part in zip(self.blocks, parts, strict=True)}


def _by_reason(parts: Iterable[Unused]) -> list[Unused]:
    """One entry for each reason."""
    total: dict[str, Unused] = {}
    for part in parts:
        total[part.reason] = total[part.reason] + part if part.reason in total else part
    return list(total.values())


def _names_of_labels(place: str, labels: list[str], classes: list[str] | None) -> dict[str, str]:
    """Class name of each label. A label is a class name, or a number among the classes.

    Names are compared in NFC: one program writes é as one character, another as two.
    """
    names = {label: as_name(label) for label in labels}
    by_name = Counter(names.values())
    if double := next((name for name, num in by_name.items() if num > 1), None):
        raise DatasetError(f"{place}: class {double!r} is there in two spellings (Unicode NFC and NFD); rename one of them")
    if classes is None:
        return names
    known = set(classes)
    if double := next((name for name, num in Counter(classes).items() if num > 1), None):
        raise DatasetError(f"{place}: class {double!r} is named twice, for two label numbers; give each class a name of its own")
    names = {
        label: name if name in known else classes[int(name)]
        for label, name in names.items()
        if name in known or (name.isdecimal() and int(name) < len(classes))
    }
    if unknown := natural_order(set(labels) - names.keys()):
        raise DatasetError(
            f"{place}: there is a label {unknown[0]!r}, but the {len(classes)} classes that are named (by classes.txt, _info.json or the "
            "setting classes) have neither that name nor that number; name all classes there"
        )
    return names
