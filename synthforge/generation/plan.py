"""The plan: a recipe unrolled into samples by computation alone, with random access.

`plan[i]` depends only on the recipe and `i`: not on batch size, worker, order or restarts. Memory is constant at
any length. Every prefix holds each class within one sample of its share (see `order`). So a longer run begins with
exactly the samples of a shorter one. Seeds, guidance levels and source images come from Philox (Salmon et al. 2011,
"Parallel random numbers: as easy as 1, 2, 3"), keyed by blake2b(recipe seed, i, attempt, purpose).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from synthforge.config import identity_of, walk
from synthforge.data.layout import Manifest, Segment, Shard, digest_of, key_of
from synthforge.data.model_files import GeneratorFiles, ModelFiles
from synthforge.data.reading import Example, Sources
from synthforge.data.text_files import lines_of
from synthforge.errors import DatasetError, RequestError, some
from synthforge.generation.order import Apportionment, permute
from synthforge.generators.config import GeneratorConfig
from synthforge.generators.protocol import ImageRequest, TextLimit
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.recipe import LATER_STAGES, PromptsConfig, Recipe, file_digest

TEXTS_CHECKED = 20_000
"""Most distinct prompts of a recipe whose length is checked."""
PLAN_VERSION = 1
"""Part of every plan digest. Raised when the same recipe would give other samples."""
_REFERENCE = "sampling.real_guidance.reference"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image to be made, with everything about it decided."""

    index: int
    attempt: int
    class_name: str
    class_index: int
    label: str
    """The generator's name for the class."""
    prompt: str
    negative: str | None
    seed: int
    guidance: float
    strength: float | None
    source: Example | None
    """The real image to start from; None: start from noise."""

    @property
    def key(self) -> str:
        return key_of(self.index)

    @property
    def level(self) -> tuple[float, float, bool]:
        """Guidance, strength, and whether there is a negative prompt. Only samples of one level share a batch."""
        return self.guidance, self.strength or 0.0, self.negative is not None

    def request(self) -> ImageRequest:
        """The part of a sample that a generator needs."""
        return ImageRequest(
            self.seed, self.label, self.prompt, self.negative, guidance=self.guidance, strength=self.strength, source=self.source
        )

    def record(self, rejected: Sequence[dict[str, Any]], generator: dict[str, Any]) -> dict[str, Any]:
        """The sample's KEY.json: its settings, and the attempts that were rejected before this one."""
        return {
            "class": self.class_name,
            "label": self.label,
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": self.seed,
            "guidance": self.guidance,
            "strength": self.strength,
            "source": self.source and self.source.key,
            "source_sha256": self.source and self.source.sha256,
            "attempt": self.attempt,
            "attempts": list(rejected),
            "generator": generator,
        }


class Plan:
    """A recipe unrolled. `len(plan)` is the recipe's count; later indices are defined too, for extensions."""

    def __init__(self, recipe: Recipe, files: GeneratorFiles, sources: Sources | None) -> None:
        self.recipe = recipe
        self.files = files
        self._sources = sources
        self.digests = files.digests()
        """SHA-256 of every file or folder that the recipe names, by field. Other processes reuse them."""
        if sources is not None:
            self.digests[_REFERENCE] = sources.sha256
        self.identity = identity_of(recipe, lambda path, value: self.digests.get(".".join(path)) or file_digest(value), LATER_STAGES)
        if sources is not None and recipe.curation.background is not None:  # part of the pixels that generation starts from
            self.identity["sampling"]["real_guidance"]["background"] = recipe.curation.background
        if files.model.revision is not None:
            self.identity["generator"]["revision"] = files.model.revision
        for number, name in enumerate(recipe.classes):
            self.identity["classes"].setdefault(name, {})["index"] = number
        self.digest = digest_of({"plan_version": PLAN_VERSION, **self.identity})
        self.classes = list(recipe.classes)
        """Class names in the order of their indices; `labels` are the generator's names for them."""
        self._order = Apportionment([spec.weight for spec in recipe.classes.values()])
        self._texts = [_Texts(name, recipe.prompts_of(name), recipe.sampling.seed) for name in recipe.classes]
        self.labels = [str(name if spec.label is None else spec.label) for name, spec in recipe.classes.items()]

    @classmethod
    def of(cls, recipe: Recipe, known: Mapping[str, str] | None = None) -> Plan:
        """Unroll a recipe. Its files are found, checked and digested, but no weights are loaded.

        Args:
            known: `digests` of the same plan from another process; files in it are not read and digested again.
        Raises: ModelError, DatasetError or RequestError, if the model or the real images don't fit the recipe.
        """
        files = recipe.generator.files(known)
        plan = cls(recipe, files, _sources_of(recipe, known or {}))
        recipe.generator.check(files, recipe.sampling, plan.labels)
        return plan

    @classmethod
    def without_model(cls, recipe: Recipe) -> Plan:
        """Unroll a recipe whose model is out of reach. Its samples are the right ones; its digest means nothing."""
        missing = {
            ".".join(path): ModelFiles(value, Path(), None, "missing")
            for path, role, value in walk(recipe.generator, ("generator",))
            if role == "location" and value is not None
        }
        return cls(recipe, GeneratorFiles(missing.pop("generator.model"), missing), _sources_of(recipe, {}))

    def __len__(self) -> int:
        return self.recipe.num_samples

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(index) for index in range(len(self)))

    def sample(self, index: int, attempt: int = 0) -> Sample:
        """Attempt number `attempt` at sample `index`. All attempts have the same class and prompt."""
        if index < 0:
            raise IndexError(index)
        class_index, ordinal = self._order.at(index)
        texts, sampling = self._texts[class_index], self.recipe.sampling
        levels = sampling.guidance
        level = levels[0] if len(levels) == 1 else levels[_draw(sampling.seed, index, attempt, "guidance") % len(levels)]
        strength = source = None
        if sampling.real_guidance is not None and self._sources is not None:
            strengths, images = sampling.real_guidance.strength, self._sources.by_class[self.classes[class_index]]
            strength = strengths[_draw(sampling.seed, index, attempt, "strength") % len(strengths)]
            source = images[_draw(sampling.seed, index, attempt, "source") % len(images)]
        return Sample(
            index=index,
            attempt=attempt,
            class_name=self.classes[class_index],
            class_index=class_index,
            label=self.labels[class_index],
            prompt=texts.at(ordinal),
            negative=texts.negative,
            seed=_draw(sampling.seed, index, attempt, "noise") >> 1,
            guidance=level,
            strength=strength,
            source=source,
        )

    def source(self, key: str) -> Example:
        """The real image with the key that a record names; raises DatasetError."""
        if self._sources is None:
            raise RequestError("this recipe starts from no real images; name the one that made the dataset")
        return self._sources.find(key)

    def texts(self, num_samples: int, most: int = 20_000) -> list[tuple[str, str | None]] | None:
        """Distinct (prompt, negative prompt) of the first `num_samples`; None if there may be more than `most`."""
        if sum(texts.num_distinct for texts in self._texts) <= min(most, num_samples):
            return sorted({(text, texts.negative) for texts in self._texts for text in texts.distinct()}, key=repr)
        if num_samples > most:
            return None
        return sorted({(sample.prompt, sample.negative) for sample in map(self.sample, range(num_samples))}, key=repr)

    @functools.cached_property
    def distinct_texts(self) -> tuple[list[str], bool]:
        """Distinct prompts and negative prompts of the recipe, whatever its count, and whether these are all.

        If there are too many, they are those of the first samples.
        """
        is_whole = sum(texts.num_distinct for texts in self._texts) <= TEXTS_CHECKED
        if is_whole:
            prompts = [text for texts in self._texts for text in texts.distinct()]
        else:
            prompts = [self._texts[number].at(ordinal) for number, ordinal in map(self._order.at, range(TEXTS_CHECKED))]
        return list(dict.fromkeys([*prompts, *(texts.negative for texts in self._texts if texts.negative is not None)])), is_whole

    @functools.cached_property
    def generator(self) -> GeneratorConfig:
        """The recipe's generator, set to use more of a prompt if a prompt needs it and the model can."""
        recipe = self.recipe
        if not type(recipe.generator).capabilities.text:
            return recipe.generator
        return recipe.generator.with_room_for(self.distinct_texts[0], self.files, recipe.sampling)

    @functools.cached_property
    def text_limit(self) -> TextLimit | None:
        """How much of a prompt the generator uses; None: not known, or it takes no text."""
        return self.generator.text_limit(self.files, self.recipe.sampling)

    def cut_texts(self, sample: Sample) -> dict[str, str]:
        """For the sample's record: of texts that are too long, the part that the generator uses."""
        if (limit := self.text_limit) is None:
            return {}
        used = {f"{name}_used": limit.used(text) for name, text in [("prompt", sample.prompt), ("negative", sample.negative)] if text}
        return {name: text for name, text in used.items() if text is not None}

    def counts(self, num_samples: int) -> dict[str, int]:
        """Samples of each class among the first `num_samples`."""
        return dict(zip(self.classes, self._order.counts(num_samples), strict=True))

    def counts_without(self, num_samples: int, gone: Iterator[int]) -> dict[str, int]:
        """Samples of each class among the first `num_samples`, without those of the indices `gone`."""
        counts = self.counts(num_samples)
        for index in gone:
            counts[self.classes[self._order.at(index)[0]]] -= 1
        return counts

    def first_of_each(self, per_class: int) -> dict[str, list[Sample]]:
        """The first `per_class` samples of every class, in plan order."""
        return {
            name: [self.sample(self._order.index_of(class_index, ordinal)) for ordinal in range(per_class)]
            for class_index, name in enumerate(self.classes)
        }

    def manifest(self, generator: dict[str, Any]) -> Manifest:
        """The dataset.json of a pool made from this plan."""
        output = self.recipe.output
        return Manifest(
            kind="pool",
            classes=self.classes,
            image_format=output.format,
            plan_digest=self.digest,
            recipe=self.identity,
            generator=generator,
            segment=Segment(first_sample=0, num_samples=len(self), first_shard=0, samples_per_shard=output.samples_per_shard),
        )

    def check(self, shard: Shard, table: pa.Table) -> None:
        """Raise DatasetError if a tar's rows are not this plan's samples. Pixels are not compared."""
        keys, wanted = table.column("key").to_pylist(), {key_of(index): index for index in shard.samples}
        if not keys or keys != sorted(set(keys)) or not set(keys) <= wanted.keys():
            raise DatasetError(f"{shard.tar}: its keys are not those of this plan; remove it and run again")
        columns = ("class_index", "prompt", "seed", "guidance", "strength", "source", "attempts")
        for key, *row in zip(keys, *(table.column(name).to_pylist() for name in columns), strict=True):
            sample = self.sample(wanted[key], row[-1] - 1)
            source = sample.source and sample.source.key
            if [sample.class_index, sample.prompt, sample.seed, sample.guidance, sample.strength, source, row[-1]] != row:
                raise DatasetError(f"{shard.tar}: sample {key} is not what this plan makes; remove it and run again")


class _Texts:
    """The prompts of one class: templates by weight, each walking a keyed permutation of its combinations."""

    def __init__(self, class_name: str, prompts: PromptsConfig, seed: int) -> None:
        self.negative = prompts.negative
        self._class_name = class_name
        self._seed = seed
        # Text, names and the values of each name. A captions file is one template whose only name is a whole caption.
        self._templates: list[tuple[str, list[str], list[list[str]]]] = []
        weights: list[float] = []
        for template in prompts.templates or []:
            self._templates.append((template.template, template.names, [prompts.values[name] for name in template.names]))
            weights.append(template.weight)
        if prompts.captions is not None:
            self._templates.append(("{caption}", ["caption"], [_captions(prompts.captions)]))
            weights.append(1.0)
        self._order = Apportionment(weights) if weights else None

    @property
    def num_distinct(self) -> int:
        """An upper bound of the number of different texts."""
        return sum(math.prod(map(len, values)) for _, _, values in self._templates) or 1

    def distinct(self) -> Iterator[str]:
        """All texts."""
        if not self._templates:
            yield self._class_name
        for template, names, values in self._templates:
            for chosen in itertools.product(*values):
                yield template.format_map({"class": self._class_name, **dict(zip(names, chosen, strict=True))})

    def at(self, ordinal: int) -> str:
        if self._order is None:
            return self._class_name
        number, turn = self._order.at(ordinal)
        template, names, values = self._templates[number]
        cycle, position = divmod(turn, math.prod(map(len, values)))
        key = hashlib.blake2b(repr((self._seed, self._class_name, number, cycle)).encode(), digest_size=16).digest()
        combination = permute(position, math.prod(map(len, values)), key)
        chosen = {"class": self._class_name}
        for name, options in zip(names, values, strict=True):
            combination, choice = divmod(combination, len(options))
            chosen[name] = options[choice]
        return template.format_map(chosen)


def _sources_of(recipe: Recipe, known: Mapping[str, str]) -> Sources | None:
    """The real images that a recipe starts from, None for noise; raises RequestError if a class has none."""
    guided = recipe.sampling.real_guidance
    if guided is None:
        return None
    sources = Sources.read(guided.reference, known.get(_REFERENCE), cache_folder(recipe.curation), recipe.curation.reading)
    if without := [name for name in recipe.classes if not sources.by_class.get(name)]:
        lacking, has = some([repr(name) for name in without], 1), some(sources.by_class, 12)
        raise RequestError(f"sampling.real_guidance.reference: {guided.reference} has no images of class {lacking}; it has {has}")
    return sources


@functools.lru_cache(maxsize=64)
def _captions(path: str) -> list[str]:
    """The captions of a file, read once: classes often share one."""
    return lines_of(path)


def _draw(seed: int, index: int, attempt: int, purpose: str) -> int:
    """64 random bits, decided by these four arguments alone."""
    key = hashlib.blake2b(f"{seed}|{index}|{attempt}|{purpose}".encode(), digest_size=16).digest()
    return int(np.random.Philox(key=int.from_bytes(key, "little")).random_raw())
