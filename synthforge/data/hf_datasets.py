"""Read tables of Hugging Face `datasets`: arrow files of `save_to_disk`, and parquet files with an image column.

An image column holds {bytes, path}, as `datasets` writes it, or bare bytes, or paths of files below the table's folder.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from synthforge.data import units
from synthforge.data.images import HEAD_BYTES, format_of
from synthforge.data.labels import KNOWN, LABELS, as_label, chosen_column, known_of
from synthforge.data.read_config import ColumnsConfig
from synthforge.data.splits import files_at, parted, split_word
from synthforge.data.units import bytes_of
from synthforge.errors import DatasetError

TABLE_BLOCK = 10_000
_DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError)
"""Errors of reading a table that is damaged or gone. Names of columns may be broken text."""
MAX_PATH = 1_000
"""Longer texts are not taken for paths."""


@dataclass(frozen=True)
class ImageTable(units.FileUnit):
    """One arrow or parquet file with an image column."""

    image: str
    """Name of the column of images."""
    label: str | None
    """Name of the column of labels. None: there is none."""
    names: list[str] | None
    """Class names by number. None: the labels are names."""
    is_path: bool = False
    """Whether the column of images holds paths of files."""
    block_samples: ClassVar[int] = TABLE_BLOCK

    @functools.cached_property
    def files(self) -> Sequence[Path]:
        """The table, and the image files that it names: if one changes, the index is made again."""
        if not self.is_path:
            return [self.path]
        with _TableFile(self.path) as file:
            batches = (batch for group in range(file.num_groups) for batch in file.batches(group, [self.image]))
            cells = [cell for batch in batches for cell in batch.column(0).to_pylist()]
        found = [_path_below(self.path.parent, path) for path in map(_path_in, cells) if path is not None]
        return [self.path, *(path for path in found if path is not None)]

    @property
    def identity(self) -> list[object]:
        return ["table", self.name, self.image, self.label, self.names, self.is_path]

    def walk(self, problems: list[units.SourceProblem]) -> Iterator[units.FoundSample]:
        stem = self.name.rpartition(".")[0]
        number, without_image, first = 0, 0, 0
        try:
            with _TableFile(self.path) as file:
                others = [name for name in KNOWN if name in file.schema.names]
                wanted = list(dict.fromkeys([self.image, *([self.label] if self.label else []), *others]))
                for group in range(file.num_groups):
                    rows = (row for batch in file.batches(group, wanted) for row in batch.to_pylist())
                    for within, row in enumerate(rows):
                        data = self._image_in(row[self.image])
                        if data is not None:
                            yield units.FoundSample(
                                name=f"{stem}/{number}",
                                image=data,
                                extension=units.extension_of(data, ""),
                                label=self._label(row[self.label]) if self.label else None,
                                record=known_of(row),
                                place={"name": str(number), "group": group, "row": within},
                            )
                        else:
                            first = first if without_image else number
                            without_image += 1
                        number += 1
                if file.damage:
                    raise OSError(file.damage)
        except _DAMAGE as error:
            damage = f"{self.path}: damaged ({str(error).splitlines()[0]})"
            problems.append(units.SourceProblem(damage, f"the {number} rows before that are used", "fetch or make it again"))
        if without_image:
            problems.append(units.left_out(str(self.path), units.Unused(units.NO_IMAGE, without_image, f"row {first}")))

    def location(self, name: str) -> units.Location:
        return units.Location(f"{self.path}:{name}", f"{self.name}:{name}")

    def _image_in(self, cell: object) -> bytes | None:
        """The image file in a cell. None: there is none."""
        if (path := _path_in(cell)) is not None:
            return _file_at(self.path.parent, path)
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        return data if isinstance(data, bytes) else None

    def _label(self, value: object) -> str | None:
        if self.names is not None and isinstance(value, int):
            return self.names[value] if 0 <= value < len(self.names) else None  # `datasets` writes -1 for "no label"
        return as_label(value)

    def read(self, rows: pa.Table, whole: bool) -> Iterator[units.Members]:
        """The samples of some rows. Rows of one row group are best asked for in order: going back decodes it again."""
        try:
            with _TableFile(self.path) as file:
                batches: Iterator[Any] = iter(())
                batch: Any = []
                group, start = -1, 0
                for row in rows.select(["group", "row", "extension", "prompt"]).to_pylist():
                    if row["group"] != group or row["row"] < start:
                        batches, group, start, batch = file.batches(row["group"], [self.image]), row["group"], 0, []
                    while row["row"] >= start + len(batch):
                        start, batch = start + len(batch), next(batches).column(0)
                    data = self._image_in(batch[row["row"] - start].as_py())
                    if data is None:  # rows without an image are not in the index
                        raise OSError(f"the image of row {row['row']} is gone")
                    yield units.Members(data, row["extension"], txt=row["prompt"].encode() if whole and row["prompt"] else None)
        except _DAMAGE as error:
            raise DatasetError(f"{self.path}: can't be read any more ({str(error).splitlines()[0]}); fetch or make it again") from error


class _TableFile:
    """An arrow or parquet file as groups of rows. It is memory-mapped, so only what is used is read.

    One row group of a parquet file is in memory, since pages can't be read in part. `datasets` puts 100 images in one.
    """

    def __init__(self, path: Path) -> None:
        self.map = pa.memory_map(str(path))
        self.parquet = pq.ParquetFile(self.map) if path.suffix == ".parquet" else None
        self.stream: list[Any] = []
        self.damage = ""
        """Why the rest of the file can't be read. Empty: it is whole."""
        if self.parquet is not None:
            self.schema, self.num_groups = self.parquet.schema_arrow, self.parquet.num_row_groups
            return
        reader = pyarrow.ipc.open_stream(self.map)
        self.schema = reader.schema
        try:
            self.stream.extend(reader)
        except _DAMAGE as error:
            self.damage = str(error)
        self.num_groups = len(self.stream)

    def __enter__(self) -> _TableFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.map.close()

    def batches(self, group: int, columns: list[str], rows: int = 16) -> Iterator[Any]:
        """Record batches of at most `rows` rows of one group."""
        if self.parquet is not None:
            return iter(self.parquet.iter_batches(batch_size=rows, row_groups=[group], columns=columns, use_threads=False))
        whole = self.stream[group].select(columns)
        return (whole.slice(start, rows) for start in range(0, whole.num_rows, rows))


def _path_below(folder: Path, path: str) -> Path | None:
    """The file at a path that stands in a table. None: there is none, or it is not below the table's folder."""
    try:
        file = (folder / path).resolve()
        return file if file.is_relative_to(folder.resolve()) and file.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None


def _file_at(folder: Path, path: str) -> bytes | None:
    """The content of that file."""
    return bytes_of(file) if (file := _path_below(folder, path)) is not None else None


def tables_at(place: str, columns: ColumnsConfig) -> units.ForeignSet | None:
    """The tables in a folder of `datasets` or of parquet files, or of a pattern. None: there are no images."""
    folder = Path(place)
    splits = units.json_object(folder / "dataset_dict.json").get("splits")
    problems: list[units.SourceProblem] = []
    if isinstance(splits, list):
        paths = {path: str(split) for split in splits for path in _arrow_files(folder / Path(str(split)).name)}
    elif (folder / "state.json").is_file():
        paths = dict.fromkeys(_arrow_files(folder), "")
    else:
        # As on the Hub: train-00000-of-00002.parquet, at the top or one folder below, or a folder for each split.
        files, problems = files_at(place, (".parquet",))
        files = files or ([path for path in sorted(folder.glob("*/*.parquet")) if path.is_file()] if folder.is_dir() else [])
        paths = {path: path.parent.name if split_word(path.parent.name) else path.stem.partition("-")[0] for path in files}
    if not paths:
        return None
    root = Path(os.path.commonpath([path.parent for path in paths]))
    found = [table for path in paths if (table := _table(path, root, columns, problems)) is not None]
    parts = dict.fromkeys(paths) if columns.splits is False else parted({table.path: paths[table.path] for table in found}, problems)
    tables = [replace(table, part=parts[table.path]) for table in found if table.path in parts]
    names = next((table.names for table in tables if table.names), None)
    return units.ForeignSet("datasets", list(tables), names, list(dict.fromkeys(problems))) if tables else None


def _arrow_files(folder: Path) -> list[Path]:
    """The data files of a folder of `datasets`, in their order; raises DatasetError."""
    listed = units.json_object(folder / "state.json").get("_data_files")
    if not isinstance(listed, list):
        raise DatasetError(f"{folder}: has no state.json that lists data files; save it again with save_to_disk")
    return [folder / Path(str(entry["filename"])).name for entry in listed]


def _table(path: Path, root: Path, columns: ColumnsConfig, problems: list[units.SourceProblem]) -> ImageTable | None:
    """The table in a file. None: it has no images."""
    try:
        with _TableFile(path) as file:
            schema = file.schema
            batches = file.batches(0, schema.names, 1) if file.num_groups else iter(())
            first: dict[str, Any] = next((batch.to_pylist()[0] for batch in batches if len(batch)), {})
    except _DAMAGE as error:
        damage = f"{path}: not a whole {path.suffix[1:]} file ({str(error).splitlines()[0]})"
        problems.append(units.SourceProblem(damage, "none of it is used", "fetch or make it again"))
        return None
    features = _features(schema, path.parent)
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    images += [entry.name for entry in schema if pa.types.is_struct(entry.type) and entry.type.get_field_index("bytes") >= 0]
    images += [name for name, value in first.items() if isinstance(value, bytes) and format_of(value[:HEAD_BYTES])]
    paths = [name for name, value in first.items() if (at := _path_in(value)) and _is_image_at(path.parent, at)]
    if not (images := list(dict.fromkeys(images)) or paths):
        return None
    image = chosen_column(images, columns.image, str(path), "image")
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = labels or [name for name in LABELS if name in schema.names]
    if columns.label in schema.names:
        labels = [str(columns.label)]
    label = chosen_column([name for name in labels if name in LABELS] or labels, None, str(path), "label") if labels else None
    names = features.get(label, {}).get("names") if label else None
    return ImageTable(
        path=path, root=root, part=None, image=image, label=label, names=list(map(str, names)) if names else None, is_path=image in paths
    )


def _is_image_at(folder: Path, path: str) -> bool:
    return len(path) < MAX_PATH and path.lower().endswith(units.IMAGE_SUFFIXES) and _path_below(folder, path) is not None


def _path_in(cell: object) -> str | None:
    """The path in a cell that holds no image itself."""
    if isinstance(cell, dict):
        cell = cell.get("path") if not cell.get("bytes") else None
    return cell if isinstance(cell, str) else None


def _features(schema: pa.Schema, folder: Path) -> dict[str, dict[str, Any]]:
    """The columns as `datasets` describes them: in the file itself, or else in dataset_info.json beside it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = units.json_object(folder / "dataset_info.json").get("features")
    if not isinstance(features, dict):
        return {}
    return {name: entry for name, entry in features.items() if isinstance(entry, dict)}
