"""Small sets of labelled images in several forms, and what holds for a collection of any form."""

from __future__ import annotations

import hashlib
import io
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from synthforge.data.collection import ROWS_SCHEMA, Collection
from synthforge.data.images import encode


def image(value: int, kind: Any = "png") -> bytes:
    ramp = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    return encode(ramp + np.uint8(value), kind, 95, marking=False)


IMAGES = [image(value) for value in range(60)]


def raw_tar(path: Path, entries: Mapping[str, bytes] | list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in entries.items() if isinstance(entries, Mapping) else entries:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def labelled(numbers: range, prefix: str = "") -> dict[str, bytes]:
    return {f"{prefix}{i:03d}.{ext}": data for i in numbers for ext, data in (("png", IMAGES[i]), ("cls", b"%d" % (i % 2)))}


def keys_of(collection: Collection) -> list[str]:
    return [key for block in collection.blocks for key in collection.rows(block)["key"].to_pylist()]


def column(collection: Collection, name: str) -> list[Any]:
    return [value for block in collection.blocks for value in collection.rows(block)[name].to_pylist()]


def images_of(collection: Collection) -> list[bytes]:
    return [data for block in collection.blocks for data in collection.images(block)]


def check_contract(collection: Collection) -> None:
    """What holds for a collection of any kind."""
    names = [block.name for block in collection.blocks]
    assert len(set(names)) == len(names)
    assert pickle.loads(pickle.dumps(collection.blocks)) == collection.blocks
    parts = collection.part()
    assert list(parts) == names
    for block in collection.blocks:
        rows = collection.rows(block)
        assert rows.schema.equals(ROWS_SCHEMA)
        assert rows.num_rows == block.num_samples == len(parts[block.name]) > 0
        assert set(parts[block.name]) <= {"fit", "validation"}
        images = list(collection.images(block))
        assert [hashlib.sha256(data).hexdigest() for data in images] == rows["image_sha256"].to_pylist()
        asked = [block.num_samples - 1, *range(block.num_samples), 0]
        found = list(collection.samples(block, asked))
        assert [row for row, _ in found] == asked
        assert [members.image for _, members in found] == [images[row] for row in asked]
        assert [members.extension for _, members in found] == rows["extension"].take(asked).to_pylist()
        assert list(collection.samples(block, [])) == []
        assert {name for name in rows["class"].to_pylist() if name is not None} <= set(collection.classes)
    keys = keys_of(collection)
    assert len(set(keys)) == len(keys) == collection.num_samples
    assert all(key and len(key) <= 90 and not set(key) & set("./\\ \0\n") for key in keys)


def image_folder(place: Path, per_class: int, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for index in range(per_class):
            (place / name / f"{index:03d}.png").write_bytes(IMAGES[10 * number + index])
    return place


BIG = 1 << 20


def is_marked(data: bytes) -> bool:
    """Whether the metadata of an image file says that a trained algorithm made it."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    return "digitalsourcetype/trainedAlgorithmicMedia" in text
