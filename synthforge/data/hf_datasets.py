"""Read tables of Hugging Face `datasets`: arrow files of `save_to_disk`, and parquet files with an image column.

Not covered: tables that only hold paths of images.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from synthforge.data import units
from synthforge.errors import DatasetError

TABLE_BLOCK = 10_000


@dataclass(frozen=True)
class ImageTable(units.FileUnit):
    """One arrow or parquet file with an image column."""

    image: str
    """Name of the column of images."""
    label: str | None
    """Name of the column of labels. None: there is none."""
    names: list[str] | None
    """Class names by number. None: the labels are names."""
    block_samples: ClassVar[int] = TABLE_BLOCK

    @property
    def identity(self) -> list[object]:
        return ["table", self.name, self.image, self.label, self.names]

    def walk(self, problems: list[units.SourceProblem]) -> Iterator[units.FoundSample]:
        stem = self.name.rpartition(".")[0]
        number, without_image = 0, 0
        try:
            with _TableFile(self.path) as file:
                others = [name for name in units.KNOWN if name in file.schema.names]
                wanted = list(dict.fromkeys([self.image, *([self.label] if self.label else []), *others]))
                for group in range(file.num_groups):
                    rows = (row for batch in file.batches(group, wanted) for row in batch.to_pylist())
                    for within, row in enumerate(rows):
                        data, path = _image_in(row[self.image])
                        if data:
                            yield units.FoundSample(
                                name=f"{stem}/{number}",
                                image=data,
                                extension=units.extension_of(data, path),
                                label=self._label(row[self.label]) if self.label else None,
                                record=units.known_of(row),
                                place={"name": str(number), "group": group, "row": within},
                            )
                        else:
                            without_image += 1
                        number += 1
                if file.damage:
                    raise OSError(file.damage)
        except (pa.ArrowException, OSError) as error:
            damage = f"{self.path}: damaged ({str(error).splitlines()[0]})"
            problems.append(units.SourceProblem(damage, f"the {number} rows before that are used", "fetch or make it again"))
        if without_image:
            problems.append(units.SourceProblem(f"{self.path}: {without_image} of {number} rows hold no image and are left out"))

    def location(self, name: str) -> units.Location:
        return units.Location(f"{self.path}:{name}", f"{self.name}:{name}")

    def _label(self, value: object) -> str | None:
        if self.names is not None and isinstance(value, int):
            return self.names[value] if 0 <= value < len(self.names) else None  # `datasets` writes -1 for "no label"
        return units.as_label(value)

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
                    data, _ = _image_in(batch[row["row"] - start].as_py())
                    assert data is not None  # rows without an image are not in the index
                    yield units.Members(data, row["extension"], txt=row["prompt"].encode() if whole and row["prompt"] else None)
        except (pa.ArrowException, OSError) as error:
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
        except (pa.ArrowException, OSError) as error:
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


def _image_in(cell: object) -> tuple[bytes | None, str]:
    """Content and path of the image in a cell. A cell of `datasets` is {bytes, path}; others hold bare bytes."""
    if isinstance(cell, dict):
        return cell.get("bytes"), str(cell.get("path") or "")
    return (cell, "") if isinstance(cell, bytes) else (None, "")


def tables_at(place: str) -> units.ForeignSet | None:
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
        files, problems = units.files_at(place, ".parquet")
        files = files or (sorted(folder.glob("*/*.parquet")) if folder.is_dir() else [])
        splits_of_folders = {name for names in units.PART_FOLDERS.values() for name in names}
        paths = {path: path.parent.name if path.parent.name in splits_of_folders else path.stem.partition("-")[0] for path in files}
    if not paths:
        return None
    root = Path(os.path.commonpath([path.parent for path in paths]))
    tables = _with_parts([table for path in paths if (table := _table(path, root, problems)) is not None], paths)
    names = next((table.names for table in tables if table.names), None)
    return units.ForeignSet("datasets", list(tables), names, list(dict.fromkeys(problems))) if tables else None


def _arrow_files(folder: Path) -> list[Path]:
    """The data files of a folder of `datasets`, in their order; raises DatasetError."""
    listed = units.json_object(folder / "state.json").get("_data_files")
    if not isinstance(listed, list):
        raise DatasetError(f"{folder}: has no state.json that lists data files; save it again with save_to_disk")
    return [folder / Path(str(entry["filename"])).name for entry in listed]


def _with_parts(tables: list[ImageTable], splits: Mapping[Path, str]) -> list[ImageTable]:
    """The tables of the two splits that are the parts. Without a split to fit on, all tables, without parts."""
    present = {splits[table.path] for table in tables}
    part_of = {split: part for part, names in units.PART_FOLDERS.items() for split in [name for name in names if name in present][:1]}
    if "fit" not in part_of.values():
        return tables
    used = [(table, part_of[splits[table.path]]) for table in tables if splits[table.path] in part_of]
    return [replace(table, part=part if len(part_of) > 1 else None) for table, part in used]


def _table(path: Path, root: Path, problems: list[units.SourceProblem]) -> ImageTable | None:
    """The table in a file. None: it has no images."""
    try:
        with _TableFile(path) as file:
            schema = file.schema
    except (pa.ArrowException, OSError) as error:
        damage = f"{path}: not a whole {path.suffix[1:]} file ({str(error).splitlines()[0]})"
        problems.append(units.SourceProblem(damage, "none of it is used", "fetch or make it again"))
        return None
    features = _features(schema, path.parent)
    images = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    images += [entry.name for entry in schema if pa.types.is_struct(entry.type) and entry.type.get_field_index("bytes") >= 0]
    if not images:
        return None
    labels = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    labels = sorted(labels, key=lambda name: name not in units.LABELS) or [name for name in units.LABELS if name in schema.names]
    label = labels[0] if labels else None
    if len(labels) > 1:
        problems.append(units.SourceProblem(f"{root}: has label columns {', '.join(labels)}", f"{label} is used"))
    names = features.get(label, {}).get("names") if label else None
    return ImageTable(path=path, root=root, part=None, image=images[0], label=label, names=list(map(str, names)) if names else None)


def _features(schema: pa.Schema, folder: Path) -> dict[str, dict[str, Any]]:
    """The columns as `datasets` describes them: in the file itself, or else in dataset_info.json beside it."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        features = units.json_object(folder / "dataset_info.json").get("features")
    if not isinstance(features, dict):
        return {}
    return {name: entry for name, entry in features.items() if isinstance(entry, dict)}
