"""Names and contents of the files of a dataset folder, and what every file of JSON shares that is written and read again.

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
"""What other people's loaders need; written at completion (see sidefiles)."""
LOG = "_log"
RECIPE_LOG = "recipe.json"
"""Below `_log`: the whole recipe of the last run, paths included, so that samples can be made again."""
RUN_RECIPE, NOTES = "recipe.json", "run.json"
"""What `run` leaves in the folder of a run: the recipe as it was last asked for, and what each stage was made from."""

ModelT = TypeVar("ModelT", bound="Document")


class Record(BaseModel):
    """A part of what is written as JSON, and read again."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)


class Document(Record):
    """A whole file of JSON. Whoever adds, removes or renames a field raises the version, and reads files of the one before."""

    oldest: ClassVar[int] = 1
    """The oldest version that is still read; files without any version are of the first."""

    schema_version: int
    """Of the file's form."""

    def to_bytes(self) -> bytes:
        """Canonical JSON: sorted keys, two spaces, one newline at the end."""
        return canonical_json(self.model_dump(mode="json"))


class Segment(Record):
    """A run of samples that was cut into shards in one way; extending a finished dataset appends one."""

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
        for number in range(self.num_shards):
            yield self.shard(self.first_shard + number)

    def shard(self, index: int) -> Shard:
        """The shard with this number, which must be of this segment."""
        start = self.first_sample + (index - self.first_shard) * self.samples_per_shard
        return Shard(index=index, first_sample=start, num_samples=min(self.samples_per_shard, self.end_sample - start))


class Shard(Record):
    """One unit of work: which samples stand in which tar."""

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
        """Table of the samples that were left out; only where there are some."""
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
    """Names what the samples are: digest of the recipe's identity fields, or of the source of real images."""
    recipe: dict[str, Any]
    """The identity fields of the resolved recipe, or what is known of the origin of real images."""
    generator: dict[str, Any] | None
    """Class, model and weights' sha256 of the model that made the images; None for real ones."""
    segment: Segment
    """The first segment; later ones are in `extension-NNN.json`."""
    parts: dict[str, tuple[int, int]] = {}
    """Real references only: name of a part (`fit`, `validation`) to first sample and end."""
    parents: list[str] = []
    """Digests of the datasets that this one was made from."""


class Extension(Document):
    """extension-NNN.json: one more segment, published create-only like everything else."""

    schema_version: int = SCHEMA
    plan_digest: str
    segment: Segment


class Seal(Document):
    """The small file written last: a shard without it does not exist."""

    schema_version: int = SCHEMA
    plan_digest: str
    samples: int
    bytes: int
    first_key: str
    last_key: str
    missing: list[str]
    """Keys of the shard's range that are not in the tar, because every attempt was rejected."""
    tar_sha256: str
    table_sha256: str


class Quarantine(Document):
    """train-NNNNNN.quarantined.json: the shard failed as often as is tried, and why."""

    schema_version: int = SCHEMA
    plan_digest: str
    tries: int
    reason: str


class Completion(Document):
    """complete.json: the totals, once every shard is sealed or quarantined."""

    schema_version: int = SCHEMA
    plan_digest: str
    digest: str
    """SHA-256 over the seals in order."""
    segments: int
    samples: int
    missing: int
    bytes: int
    shard_samples: list[int]
    """Samples in each shard in order; a quarantined shard has 0."""
    quarantined: dict[str, str]
    """Stem to reason. Not empty: the dataset is complete with holes."""
    class_samples: dict[str, int] = {}
    """Class to the number of its samples that are there; empty where nobody said how to tell."""


def key_of(index: int) -> str:
    """The key of sample `index`."""
    return f"{index:09d}"


def extension_name(number: int) -> str:
    """The file that records segment `number` (the manifest holds segment 0)."""
    return f"extension-{number:03d}.json"


@dataclass(frozen=True)
class DatasetFacts:
    """Everything that the side files say; `shards` are the sealed ones."""

    name: str
    licence: str | None
    tags: list[str]
    manifest: Manifest
    completion: Completion
    shards: list[tuple[Shard, Seal]]
    record: dict[str, Any]

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
    """Read one of our files, also of earlier versions.

    Args:
        remedy: what to do about a file that can't be read.
    Raises: DatasetError for a newer version and anything malformed; OutdatedError for a version that is too old.
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
            raise OutdatedError(f"{where}: is of schema {version}, and this synthforge reads from {model.oldest} on; {remedy}")
        return model.model_validate_json(data)
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # the last three from what brings old files up to date
        first = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            first = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:1])
        raise DatasetError(f"{where}: damaged or not a synthforge file ({first}); {remedy}") from error
