"""Side files for the loaders of other libraries, written when a dataset is complete. The shards are read as they are.

README.md       dataset card of Hugging Face: `datasets` takes the columns and the class names from it
_info.json      timm: the shards and their numbers of samples
sizes.json      open_clip: the same as a flat mapping
croissant.json  Croissant 1.0: files with their SHA-256, and one record for each sample, from tars and tables

All four are pure functions of `DatasetFacts`: they hold no time, host or path.
Not covered: splits other than train.
"""

from __future__ import annotations

import importlib.resources
import io
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jinja2
from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import DoubleQuotedScalarString as Quoted

from synthforge.data.croissant import croissant
from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import SIDE_FILES, Completion, DatasetFacts, Shard, canonical_json

CARD, TIMM, OPEN_CLIP, CROISSANT = SIDE_FILES

_KEEP = "<!-- synthforge writes this card anew when the dataset grows; remove this line to keep yours -->"
_GENERATOR_FACTS = ("class", "model", "revision", "sha256", "scheduler", "steps", "dtype")
"""Facts about the generator in the card."""
MAX_LISTED_CLASSES = 50
"""The card lists the classes if there are at most this many. Otherwise it has the smallest and the largest count."""


def write_side_files(
    dataset: DatasetFolder, completion: Completion, *, name: str, licence: str | None, tags: Sequence[str], only_missing: bool = False
) -> list[str]:
    """Write the side files that are missing or outdated. Returns their names; none if no shard is sealed.

    Args:
        completion: the totals to describe. Shards beyond them are left out.
        licence: for the card and Croissant, best a name that the Hub knows (`cc-by-4.0`). None: leave it open.
        tags: added to the tags of every dataset from synthforge.
        only_missing: keep the files that are there, even if they are outdated.
    Raises: DatasetError if a seal or the first table is damaged.
    """
    if only_missing and all(dataset.folder.exists(file) for file in SIDE_FILES):
        return []
    planned = zip(dataset.shards(), completion.shard_samples, strict=False)  # without an extension that has just begun
    sealed = [shard for shard, num_samples in planned if num_samples]
    if not sealed:
        return []
    shards = list(zip(sealed, dataset.seals(sealed), strict=True))
    _, members = dataset.sample(shards[0][1].first_key)
    own_tags = {"synthforge", "webdataset"} | ({"synthetic"} if dataset.manifest.kind != "real" else set())
    facts = DatasetFacts(
        name=name,
        licence=licence,
        tags=sorted(own_tags | set(tags)),
        manifest=dataset.manifest,
        completion=completion,
        shards=shards,
        record=json.loads(members["json"]),
    )
    contents = {
        CARD: _card(facts),
        TIMM: canonical_json(_timm_info(facts)),
        OPEN_CLIP: canonical_json({shard.tar: seal.samples for shard, seal in shards}),
        CROISSANT: canonical_json(croissant(facts)),
    }
    present = {file: dataset.folder.read_or_none(file) for file in contents}
    changed = [file for file, content in contents.items() if present[file] is None or (present[file] != content and not only_missing)]
    if (card := present[CARD]) is not None and _KEEP.encode() not in card:
        changed = [file for file in changed if file != CARD]  # the user has taken the card over
    for file in changed:
        dataset.folder.replace(file, contents[file])
    return changed


def _timm_info(facts: DatasetFacts) -> dict[str, Any]:
    """timm has no place for class names; the manifest has them."""
    names, lengths = [shard.tar for shard, _ in facts.shards], [seal.samples for _, seal in facts.shards]
    return {"splits": {"train": {"name": "train", "num_samples": facts.completion.samples, "filenames": names, "shard_lengths": lengths}}}


def _card(facts: DatasetFacts) -> bytes:
    front = io.StringIO()
    yaml = YAML()
    yaml.width = 2**16
    yaml.dump(_front_matter(facts), front)
    source = (importlib.resources.files("synthforge.data") / "card.md.j2").read_text(encoding="utf-8")
    template = jinja2.Template(source, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    counts = [facts.completion.class_samples.get(name, 0) for name in facts.manifest.classes] if facts.completion.class_samples else []
    generator = facts.manifest.generator or {}
    text: str = template.render(
        front_matter=front.getvalue(),
        facts=facts,
        plain=_plain,
        generator={name: generator[name] for name in _GENERATOR_FACTS if generator.get(name) is not None},
        is_marked=facts.is_synthetic and bool(facts.manifest.recipe.get("output", {}).get("marking")),
        counts=counts,
        is_listed=len(facts.manifest.classes) <= MAX_LISTED_CLASSES,
        shards=_braces([shard for shard, _ in facts.shards]),
        keep=_KEEP,
    )
    return text.encode()


def _front_matter(facts: DatasetFacts) -> dict[str, Any]:
    """The YAML header of the card. Names are quoted, so that `no`, `1e3` and `12:30` stay text in YAML 1.1 and 1.2."""
    return {
        "pretty_name": Quoted(facts.name),
        **({"license": Quoted(facts.licence)} if facts.licence is not None else {}),
        "task_categories": ["image-classification"],
        "size_categories": [_size_category(facts.completion.samples)],
        "tags": [Quoted(tag) for tag in facts.tags],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train-*.tar"}]}],
        "dataset_info": {"features": _features(facts)},
    }


def _size_category(samples: int) -> str:
    """The category of the Hub for a number of samples, which is at most 10^9 in a dataset folder."""
    bounds = ["1K", "10K", "100K", "1M", "10M", "100M", "1B"]
    place = next((number for number in range(len(bounds)) if samples < 1000 * 10**number), len(bounds) - 1)
    return "n<1K" if place == 0 else f"{bounds[place - 1]}<n<{bounds[place]}"


def _features(facts: DatasetFacts) -> list[dict[str, Any]]:
    """The columns, as `datasets` writes them. It fills missing values with None, and drops undeclared ones."""
    names = {str(number): Quoted(name) for number, name in enumerate(facts.manifest.classes)}
    text, real, integer = {"dtype": "string"}, {"dtype": "float64"}, {"dtype": "int64"}
    record: dict[str, dict[str, Any] | None] = {
        "class": text,
        "prompt": text,
        "negative": text,
        "seed": integer,
        "guidance": real,
        "strength": real,
        "source": text,
        "source_sha256": text,
        "attempts": {"list": [{"name": "seed", **integer}, {"name": "reason", **text}]},
    }
    others = {key: feature_of([value]) for key, value in sorted(facts.record.items()) if key not in record}
    return [
        {"name": facts.manifest.image_format, "dtype": "image"},
        {"name": "cls", "dtype": {"class_label": {"names": names}}},
        {"name": "txt", **text},
        {"name": "json", "struct": [{"name": key, **kind} for key, kind in (record | others).items() if kind is not None]},
        {"name": "__key__", **text},
        {"name": "__url__", **text},
    ]


def feature_of(values: Sequence[Any]) -> dict[str, Any] | None:
    """The feature of some JSON values of one field, as `datasets` writes it in YAML. None: Arrow has no type for them.

    null and empty lists count as text: unlike the type "null", text fits the values of other records.
    """
    present = [value for value in values if value is not None]
    kinds = {type(value) for value in present}
    is_int64 = kinds == {int} and all(-(2**63) <= value < 2**63 for value in present)
    for dtype, fits in (("string", kinds <= {str}), ("bool", kinds == {bool}), ("int64", is_int64), ("float64", kinds <= {int, float})):
        if fits:
            return {"dtype": dtype}
    if kinds == {list}:
        inner = feature_of(list(itertools.chain.from_iterable(present)))
        # `datasets` writes lists of scalars and of records without a level in between.
        return None if inner is None else {"list": inner.get("dtype") or inner.get("struct") or inner}
    if kinds == {dict}:
        keys = sorted(set(itertools.chain.from_iterable(present)))
        members = {key: feature_of([value.get(key) for value in present]) for key in keys}
        struct = [{"name": Quoted(key), **kind} for key, kind in members.items() if kind is not None]
        return {"struct": struct} if struct else None
    return None


def _braces(shards: Iterable[Shard]) -> str:
    """The shards as one address for webdataset and open_clip: runs of numbers in braces, joined by `::`."""
    addresses = []
    for _, neighbours in itertools.groupby(enumerate(shards), key=lambda item: item[1].index - item[0]):
        run = [shard for _, shard in neighbours]
        braces = f"train-{{{run[0].index:06d}..{run[-1].index:06d}}}.tar"
        addresses.append(f"FOLDER/{braces if len(run) > 1 else run[0].tar}")
    return "::".join(addresses)


def _plain(text: object) -> str:
    """A text for one line of Markdown, with markup and line breaks escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", re.sub(r"\s+", " ", str(text)))
