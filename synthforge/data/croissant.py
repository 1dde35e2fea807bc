"""croissant.json: describe a dataset folder in Croissant 1.0 (http://mlcommons.org/croissant/1.0), for mlcroissant.

Every tar and table is listed with its SHA-256.
The record set `samples` has one record for each sample: key, image, class, text, seed and so on.
Not covered: webp, which mlcroissant 1.1 validates but can't decode.
"""

from __future__ import annotations

from typing import Any

from synthforge.data.layout import DatasetFacts

_IMAGE_TYPES = {"png": "image/png", "jpg": "image/jpeg", "webp": "image/webp"}
_TERMS = """
    citeAs column equivalentProperty extract field fileObject fileProperty fileSet format includes isLiveDataset jsonPath key md5
    parentField path recordSet references regex repeated replace samplingRate separator source subField transform
"""

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "dct": "http://purl.org/dc/terms/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}


def croissant(facts: DatasetFacts) -> dict[str, Any]:
    """The content of croissant.json: one record for each sample, with its image from a tar and its row from a table.

    Tables are found by a pattern, because the reader can't join listed tables. They are listed for their SHA-256 only.
    """
    kind = "synthetic" if facts.is_synthetic else "real"
    mime = _IMAGE_TYPES[facts.manifest.image_format]
    tars = [_file(shard.tar, "application/x-tar", seal.tar_sha256, f"{seal.bytes} B") for shard, seal in facts.shards]
    tables = [_file(shard.table, "application/x-parquet", seal.table_sha256) for shard, seal in facts.shards]
    images: dict[str, Any] = {"@type": "cr:FileSet", "@id": "images", "name": "images", "encodingFormat": mime}
    images |= {"containedIn": [{"@id": tar["@id"]} for tar in tars], "includes": f"*.{facts.manifest.image_format}"}
    beside = {"@type": "cr:FileSet", "@id": "tables", "name": "tables", "encodingFormat": "application/x-parquet"}
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.name,
        "description": f"{facts.completion.samples:,} {kind} images of {len(facts.manifest.classes):,} classes, with label and text.",
        "citeAs": f"{facts.name}, a dataset made with synthforge, sha256 {facts.completion.digest}",
        # Every extension of the dataset is a new minor version. The digest names the content.
        "version": f"1.{facts.completion.segments - 1}.0+{facts.completion.digest[:12]}",
        "keywords": facts.tags,
        **({"license": facts.licence} if facts.licence is not None else {}),
        "distribution": [*tars, *tables, images, {**beside, "includes": "train-[0-9][0-9][0-9][0-9][0-9][0-9].parquet"}],
        "recordSet": [_class_records(facts.manifest.classes), _sample_records()],
    }


def _file(name: str, mime: str, sha256: str, size: str | None = None) -> dict[str, Any]:
    file = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "encodingFormat": mime, "sha256": sha256}
    return file if size is None else {**file, "contentSize": size}


def _field(name: str, kind: str | list[str], source: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": name, "name": name.partition("/")[2], "dataType": kind, **more}
    return field if source is None else {**field, "source": source}


def _class_records(classes: list[str]) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/index"},
        "field": [_field("classes/index", "sc:Integer"), _field("classes/name", "sc:Text")],
        "data": [{"classes/index": number, "classes/name": name} for number, name in enumerate(classes)],
    }


def _sample_records() -> dict[str, Any]:
    def image(file_property: str, **more: Any) -> dict[str, Any]:
        return {"fileSet": {"@id": "images"}, "extract": {"fileProperty": file_property}, **more}

    def column(name: str) -> dict[str, Any]:
        return {"fileSet": {"@id": "tables"}, "extract": {"column": name}}

    # The reader applies the expression twice, so it must also match a bare key.
    key = image("filename", transform={"regex": "^([^.]+)"})
    columns: dict[str, str | list[str]] = {
        "class": "sc:Text",
        "class_index": ["sc:Integer", "cr:Label"],
        "prompt": "sc:Text",
        "seed": "sc:Integer",
        "guidance": "sc:Float",
        "strength": "sc:Float",
        "source": "sc:Text",
        "image_sha256": "sc:Text",
    }
    return {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "key": {"@id": "samples/key"},
        "field": [
            _field("samples/key", "sc:Text", key, references=column("key")),
            _field("samples/image", "sc:ImageObject", image("content")),
            *(_field(f"samples/{name}", kind, column(name)) for name, kind in columns.items()),
        ],
    }
