"""Names and contents of the files in a dataset folder, and the base classes of all JSON files that are read again.

All JSON is canonical, so equal contents are equal bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from synthforge.errors import DatasetError, OutdatedError

SCHEMA = 2
MANIFEST = "dataset.json"
COMPLETE = "complete.json"
SIDE_FILES = ("README.md", "_info.json", "sizes.json", "croissant.json")
"""Files for the loaders of other libraries, written at completion; see `sidefiles`."""
LOG = "_log"
RECIPE_LOG = "recipe.json"
"""Below `_log`: the whole recipe of the last run with its paths, so that samples can be made again."""
RUN_RECIPE, NOTES = "recipe.json", "run.json"
"""In the folder of a run: the last recipe, and the inputs of each stage."""
DECISIONS, GAP = "decisions.parquet", "gap.json"
"""In a curated folder: one row per pool image, and the result of `curate`."""
EVALUATION, DIAGNOSIS, PAGE = "evaluation.json", "diagnosis.json", "report.html"
"""In the folder of a run: the results of `evaluate`, `diagnose` and `report`."""

ModelT = TypeVar("ModelT", bound="Document")


class Record(BaseModel):
    """A part of a JSON file."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True, validate_by_name=True, serialize_by_alias=True
    )


class Document(Record):
    """A whole JSON file.

    If you add, remove or rename a field: raise the version, and read files of the version before.
    """

    oldest: ClassVar[int] = 1
    """The oldest version that can be read. A file that names no version has version 1."""

    schema_version: int
    """Version of the file's form."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, one newline at the end."""
        return canonical_json(self.model_dump(mode="json"))


class Segment(Record):
    """Consecutive samples that are cut into shards of one size. Extending a finished dataset adds a segment."""

    first_sample: int = Field(ge=0, le=10**9)
    num_samples: int = Field(ge=1, le=10**9)
    first_shard: int = Field(ge=0, le=10**6)
    samples_per_shard: int = Field(ge=1, le=10**6)

    @model_validator(mode="after")
    def _has_room(self) -> Segment:
        if self.first_shard + self.num_shards > 10**6:
            raise ValueError("more than 1,000,000 shards")
        return self

    @property
    def end_sample(self) -> int:
        return self.first_sample + self.num_samples

    @property
    def num_shards(self) -> int:
        return -(-self.num_samples // self.samples_per_shard)

    def shards(self) -> Iterator[Shard]:
        """The shards of this segment in order."""
        return map(self.shard, range(self.first_shard, self.first_shard + self.num_shards))

    def shard(self, index: int) -> Shard:
        """The shard with this number, which must be in this segment."""
        start = self.first_sample + (index - self.first_shard) * self.samples_per_shard
        return Shard(index=index, first_sample=start, num_samples=min(self.samples_per_shard, self.end_sample - start))


class Shard(Record):
    """One unit of work: some consecutive samples and the names of their files."""

    index: int
    first_sample: int
    num_samples: int

    @property
    def stem(self) -> str:
        return f"train-{self.index:06d}"

    @property
    def tar(self) -> str:
        return f"{self.stem}.tar"

    @property
    def table(self) -> str:
        return f"{self.stem}.parquet"

    @property
    def seal(self) -> str:
        return f"{self.stem}.json"

    @property
    def failures(self) -> str:
        """Table of the samples that were left out. The file is there only if there are some."""
        return f"{self.stem}.failures.parquet"

    @property
    def quarantine(self) -> str:
        return f"{self.stem}.quarantined.json"

    @property
    def samples(self) -> range:
        return range(self.first_sample, self.first_sample + self.num_samples)


class Manifest(Document):
    """dataset.json: written once at the start and never changed."""

    schema_version: int = SCHEMA
    kind: Literal["pool", "curated", "real"]
    classes: list[str]
    image_format: Literal["png", "jpg", "webp"]
    plan_digest: str
    """SHA-256 of the recipe's identity fields, or of the source of real images. It decides what the samples are."""
    recipe: dict[str, Any]
    """The identity fields of the resolved recipe, or the known origin of real images."""
    generator: dict[str, Any] | None
    """Class, model and sha256 of the weights of the model that made the images. None: the images are real."""
    segment: Segment
    """The first segment. Later ones are in `extension-NNN.json`."""
    parts: dict[str, tuple[int, int]] = {}
    """For real references: first and end sample of each part (`fit`, `validation`)."""
    parents: list[str] = []
    """Digests of the datasets that this one was made from."""


class _OfPlan(Document):
    """The common part of files that belong to one plan."""

    schema_version: int = SCHEMA
    plan_digest: str


class Extension(_OfPlan):
    """extension-NNN.json: one more segment of a dataset."""

    segment: Segment


class Seal(_OfPlan):
    """The file of a shard that is written last. A shard without a seal counts as missing."""

    samples: int
    """Number of samples in the tar."""
    bytes: int
    """Size of the tar."""
    first_key: str
    last_key: str
    left_out: list[str] = Field(validation_alias="missing", serialization_alias="missing")
    """Keys of samples that were left out because every attempt was rejected."""
    tar_sha256: str
    table_sha256: str


class Quarantine(_OfPlan):
    """train-NNNNNN.quarantined.json: the shard failed in every try, and why."""

    tries: int
    reason: str


class Completion(_OfPlan):
    """complete.json: the totals, written when every shard is sealed or quarantined."""

    digest: str
    """SHA-256 over the seals in order."""
    segments: int
    """Number of segments."""
    samples: int
    """Number of samples in all shards."""
    left_out: int = Field(validation_alias="missing", serialization_alias="missing")
    """Number of samples that were left out because every attempt was rejected."""
    bytes: int
    """Size of all tars."""
    shard_samples: list[int]
    """Number of samples in each shard, in order. A quarantined shard has 0."""
    quarantined: dict[str, str]
    """Reason for each quarantined shard, by the stem of its files. Not empty: the dataset has holes."""
    class_samples: dict[str, int] = {}
    """Number of samples of each class. Empty: they were not counted."""


def key_of(index: int) -> str:
    """The key of sample `index`: nine digits."""
    return f"{index:09d}"


def extension_name(number: int) -> str:
    """The file of segment `number`. Segment 0 is in the manifest."""
    return f"extension-{number:03d}.json"


@dataclass(frozen=True)
class DatasetFacts:
    """Everything that the side files are made from."""

    name: str
    licence: str | None
    """None: the licence is left open."""
    tags: list[str]
    manifest: Manifest
    completion: Completion
    shards: list[tuple[Shard, Seal]]
    """The sealed shards."""
    record: dict[str, Any]
    """The record of the first sample."""

    @property
    def is_synthetic(self) -> bool:
        return self.manifest.kind != "real"


def canonical_json(value: object) -> bytes:
    """JSON with sorted keys, so that equal values give equal bytes."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False) + "\n").encode()


def digest_of(value: object) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def parse(model: type[ModelT], data: bytes, where: str, remedy: str = "restore it, or use another folder") -> ModelT:
    """Read a JSON file of this version or an earlier one.

    Args:
        where: its address, for messages.
        remedy: what to do about a file that can't be read, for messages.
    Raises: DatasetError for a newer version and for damaged files; OutdatedError for a version that is too old.
    """
    newest = model.model_fields["schema_version"].default
    try:
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        version = content.get("schema_version", content.get("schema", 1))
        if isinstance(version, int) and version > newest:
            raise DatasetError(
                f"{where}: written by a newer synthforge (schema {version}, this one reads up to {newest}); "
                "upgrade with pip install -U synthforge"
            )
        if isinstance(version, int) and version < model.oldest:
            raise OutdatedError(f"{where}: has schema {version}, and this synthforge reads {model.oldest} and later; {remedy}")
        return model.model_validate_json(data)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # validators that update old files raise the last three
        reason = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise DatasetError(f"{where}: damaged or not a synthforge file ({reason}); {remedy}") from error
