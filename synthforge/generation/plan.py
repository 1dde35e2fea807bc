"""The plan: a recipe unrolled into samples, by computation alone: pure, lazy, random access.

`plan[i]` depends on the recipe and `i` only, never on batch, worker, order or restarts, and costs constant memory at any
length. Any prefix holds each class within one sample of its share, so a longer run begins with exactly the samples of a shorter
one. Everything drawn (seed, guidance) comes from Philox (Salmon et al. 2011) keyed by blake2b(recipe seed, i, attempt, purpose).
"""

from __future__ import annotations

import bisect
import functools
import hashlib
import heapq
import itertools
import math
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from synthforge.config import identity_of
from synthforge.data.layout import Manifest, Segment, Shard, digest_of, key_of
from synthforge.data.model_files import GeneratorFiles
from synthforge.data.reading import Example, Sources
from synthforge.errors import DatasetError, RequestError
from synthforge.generators.protocol import ImageRequest
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.recipe import LATER_STAGES, PromptsConfig, Recipe, captions_in, file_digest

PLAN_VERSION = 1
"""Goes into every plan digest; raised when the same recipe would unroll differently."""


_REFERENCE = "sampling.real_guidance.reference"


@dataclass(frozen=True, slots=True)
class Sample:
    """One image to be made, completely decided."""

    index: int
    attempt: int
    class_name: str
    class_index: int
    label: str
    """What the generator calls the class."""
    prompt: str
    negative: str | None
    seed: int
    guidance: float
    strength: float | None
    source: Example | None
    """The real image to start from."""

    @property
    def key(self) -> str:
        return key_of(self.index)

    @property
    def level(self) -> tuple[float, float, bool]:
        """Samples of one level can share a batch: no negative prompt at all is not the same as an empty one."""
        return self.guidance, self.strength or 0.0, self.negative is not None

    def request(self) -> ImageRequest:
        """What a generator needs to know of it."""
        return ImageRequest(
            self.seed, self.label, self.prompt, self.negative, guidance=self.guidance, strength=self.strength, source=self.source
        )

    def record(self, rejected: Sequence[dict[str, Any]], generator: dict[str, Any]) -> dict[str, Any]:
        """KEY.json: what was asked for, and the attempts that were rejected before this one."""
        return {
            "class": self.class_name,
            "label": self.label,
            "prompt": self.prompt,
            "negative": self.negative,
            "seed": self.seed,
            "guidance": self.guidance,
            "strength": self.strength,
            "source": self.source.key if self.source is not None else None,
            "source_sha256": self.source.sha256 if self.source is not None else None,
            "attempt": self.attempt,
            "attempts": list(rejected),
            "generator": generator,
        }


class Plan:
    """A recipe unrolled. `len(plan)` is what the recipe asks for; indices beyond it are defined too, for extensions."""

    def __init__(self, recipe: Recipe, files: GeneratorFiles, sources: Sources | None) -> None:
        self.recipe = recipe
        self.files = files
        self._sources = sources
        self.digests = files.digests()
        """SHA-256 of what the recipe names by place, by its fields, for other processes that unroll the same recipe."""
        if sources is not None:
            self.digests[_REFERENCE] = sources.sha256
        self.identity = identity_of(recipe, lambda path, value: self.digests.get(".".join(path)) or file_digest(value), LATER_STAGES)
        if files.model.revision is not None:
            self.identity["generator"]["revision"] = files.model.revision
        for number, name in enumerate(recipe.classes):
            self.identity["classes"].setdefault(name, {})["index"] = number
        self.digest = digest_of({"plan_version": PLAN_VERSION, **self.identity})
        self.classes = list(recipe.classes)
        """Names in the order of their indices; `labels` are what the generator calls them."""
        self._order = Apportionment([spec.weight for spec in recipe.classes.values()])
        self._texts = [_Texts(name, recipe.prompts_of(name), recipe.sampling.seed) for name in recipe.classes]
        self.labels = [str(name if spec.label is None else spec.label) for name, spec in recipe.classes.items()]

    @classmethod
    def of(cls, recipe: Recipe, known: Mapping[str, str] | None = None) -> Plan:
        """Unroll a recipe; what it names is found, checked and digested, but no weights are loaded.

        Args:
            known: `digests` of the same plan in another process, so that nothing is read and digested again.
        Raises: ModelError, DatasetError or RequestError, if the model or the real images are not what the recipe needs.
        """
        files = recipe.generator.files(known)
        guided, sources = recipe.sampling.real_guidance, None
        if guided is not None:
            sources = Sources.read(guided.reference, (known or {}).get(_REFERENCE), cache_folder(recipe.curation))
            if without := [name for name in recipe.classes if not sources.by_class.get(name)]:
                has = ", ".join(list(sources.by_class)[:12])
                raise RequestError(
                    f"sampling.real_guidance.reference: {guided.reference} has no images of class {without[0]!r}"
                    f"{f' (nor of {len(without) - 1} more)' if len(without) > 1 else ''}; it has {has}"
                )
        plan = cls(recipe, files, sources)
        recipe.generator.check(files, recipe.sampling, plan.labels)
        return plan

    def __len__(self) -> int:
        return self.recipe.num_samples

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index)

    def __iter__(self) -> Iterator[Sample]:
        return (self.sample(index) for index in range(len(self)))

    def sample(self, index: int, attempt: int = 0) -> Sample:
        """Sample `index` as its attempt number `attempt` makes it; class and prompt are the same in all attempts."""
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
        """The real image that a record names; raises DatasetError."""
        if self._sources is None:
            raise RequestError("this recipe starts from no real images; name the one that made the dataset")
        return self._sources.find(key)

    def texts(self, num_samples: int, most: int = 20_000) -> list[tuple[str, str | None]] | None:
        """The distinct prompts with their negative ones among the first `num_samples`; None if there may be more than `most`."""
        if sum(texts.num_distinct for texts in self._texts) <= min(most, num_samples):
            return sorted({(text, texts.negative) for texts in self._texts for text in texts.distinct()}, key=repr)
        if num_samples > most:
            return None
        return sorted({(sample.prompt, sample.negative) for sample in map(self.sample, range(num_samples))}, key=repr)

    def counts(self, num_samples: int) -> dict[str, int]:
        """Samples of each class among the first `num_samples`."""
        return dict(zip(self.classes, self._order.counts(num_samples), strict=True))

    def counts_without(self, num_samples: int, gone: Iterator[int]) -> dict[str, int]:
        """The same, without the samples of some indices."""
        counts = self.counts(num_samples)
        for index in gone:
            counts[self.classes[self._order.at(index)[0]]] -= 1
        return counts

    def first_of_each(self, per_class: int) -> dict[str, list[Sample]]:
        """The first samples of every class in plan order, for previews."""
        return {
            name: [self.sample(self._order.index_of(class_index, ordinal)) for ordinal in range(per_class)]
            for class_index, name in enumerate(self.classes)
        }

    def manifest(self, generator: dict[str, Any]) -> Manifest:
        """What dataset.json says of a pool made from this plan."""
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
        """Raise DatasetError if a tar's rows are not this plan's samples; pixels are not looked at."""
        keys, wanted = table.column("key").to_pylist(), {key_of(index): index for index in shard.samples}
        if not keys or keys != sorted(set(keys)) or not set(keys) <= wanted.keys():
            raise DatasetError(f"{shard.tar}: its keys are not those of this plan; remove it and run again")
        columns = ("class_index", "prompt", "seed", "guidance", "strength", "source", "attempts")
        for key, *row in zip(keys, *(table.column(name).to_pylist() for name in columns), strict=True):
            sample = self.sample(wanted[key], row[-1] - 1)
            source = sample.source.key if sample.source is not None else None
            if [sample.class_index, sample.prompt, sample.seed, sample.guidance, sample.strength, source, row[-1]] != row:
                raise DatasetError(f"{shard.tar}: sample {key} is not what this plan makes; remove it and run again")


class Apportionment:
    """An endless order of members in which every prefix holds each of them within one of its share of the weights.

    Members of equal weight take turns inside a group; the groups are scheduled by earliest deadline first among those that
    are not ahead of their share, which keeps every deviation below one (Tijdeman 1980, the chairman assignment problem; Steiner
    and Yeomans 1993). The order repeats after the sum of the reduced integer weights. It is simulated in blocks from
    checkpoints of bounded number, so memory is constant; reaching far into a long period costs a microsecond or two a step,
    once. With equal weights everything is closed form. Weights whose integer form sums to more than `MAX_PERIOD` (say, long
    decimals) are rounded to that resolution, a relative change below one in ten million, so that no reach takes longer than some seconds.
    """

    BLOCK = 1024
    MAX_PERIOD = 2**24
    MAX_CHECKPOINT_NUMBERS = 2**20
    MAX_CACHED_BLOCKS = 64

    def __init__(self, weights: Sequence[float]) -> None:
        exact = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(weight.denominator for weight in exact))
        integers = [int(weight * scale) for weight in exact]
        common = math.gcd(*integers)
        if (total := sum(integers) // common) > self.MAX_PERIOD:
            integers = [max(1, round(Fraction(weight, common) * self.MAX_PERIOD / total)) for weight in integers]
            common = math.gcd(*integers)
        distinct = sorted({weight // common for weight in integers}, reverse=True)
        self._members = [[i for i, weight in enumerate(integers) if weight // common == value] for value in distinct]
        totals = [value * len(members) for value, members in zip(distinct, self._members, strict=True)]
        shrink = math.gcd(*totals)
        self._shares = [total // shrink for total in totals]
        self._period = sum(self._shares)
        self._place = {member: (group, turn) for group, members in enumerate(self._members) for turn, member in enumerate(members)}
        self._lock = threading.Lock()
        self._stride = 1
        self._checkpoints: list[list[int]] = [[0] * len(totals)]
        self._blocks: OrderedDict[int, list[tuple[int, int]]] = OrderedDict()

    def at(self, index: int) -> tuple[int, int]:
        """The member at a position, and how often it stood before."""
        if len(self._shares) == 1:
            group, position = 0, index
        else:
            cycle, offset = divmod(index, self._period)
            group, within = self._block(offset // self.BLOCK)[offset % self.BLOCK]
            position = cycle * self._shares[group] + within
        members = self._members[group]
        return members[position % len(members)], position // len(members)

    def counts(self, length: int) -> list[int]:
        """How often each member stands among the first `length` positions."""
        if len(self._shares) == 1:
            totals = [length]
        else:
            cycle, offset = divmod(length, self._period)
            state = self._counts_within(offset)
            totals = [cycle * share + count for share, count in zip(self._shares, state, strict=True)]
        counts = [0] * len(self._place)
        for member, (group, turn) in self._place.items():
            size = len(self._members[group])
            counts[member] = (totals[group] + size - 1 - turn) // size
        return counts

    def index_of(self, member: int, ordinal: int) -> int:
        """The position at which a member stands for the time number `ordinal`."""
        group, turn = self._place[member]
        position = ordinal * len(self._members[group]) + turn
        if len(self._shares) == 1:
            return position
        low = position * self._period // self._shares[group]  # its window by its share; see Apportionment
        high = -(-(position + 1) * self._period // self._shares[group])
        # The first position after which it has stood once more than `ordinal` times.
        return bisect.bisect_left(range(high + 1), ordinal + 1, lo=low, key=lambda index: self.counts(index + 1)[member])

    def _counts_within(self, offset: int) -> list[int]:
        block, rest = divmod(offset, self.BLOCK)
        with self._lock:
            counts = list(self._state_at(block))
        if rest:
            for group, _ in self._block(block)[:rest]:
                counts[group] += 1
        return counts

    def _block(self, number: int) -> list[tuple[int, int]]:
        """Group and its running number for each position of a block."""
        with self._lock:
            if number not in self._blocks:
                self._blocks[number] = self._simulate(number, self._state_at(number))[0]
                if len(self._blocks) > self.MAX_CACHED_BLOCKS:
                    self._blocks.popitem(last=False)
            self._blocks.move_to_end(number)
            return self._blocks[number]

    def _state_at(self, number: int) -> list[int]:
        """Counts of the groups at the start of a block, from the nearest checkpoint."""
        start = min(number // self._stride, len(self._checkpoints) - 1)
        state = self._checkpoints[start]
        for block in range(start * self._stride, number):
            state = self._simulate(block, state)[1]
            if block + 1 == len(self._checkpoints) * self._stride:
                self._checkpoints.append(state)
                if len(self._checkpoints) > max(8, self.MAX_CHECKPOINT_NUMBERS // len(self._shares)):
                    self._checkpoints = self._checkpoints[::2]
                    self._stride *= 2
        return state

    def _simulate(self, number: int, state: list[int]) -> tuple[list[tuple[int, int]], list[int]]:
        """One block by earliest deadline first: group g may take its job n from slot n/p_g on, and must before (n+1)/p_g."""
        counts, order = list(state), []
        waiting = [(count * self._period // share, group) for group, (count, share) in enumerate(zip(counts, self._shares, strict=True))]
        heapq.heapify(waiting)
        ready: list[tuple[int, int]] = []
        first = number * self.BLOCK
        for slot in range(first, min(first + self.BLOCK, self._period)):
            while waiting and waiting[0][0] <= slot:
                group = heapq.heappop(waiting)[1]
                heapq.heappush(ready, (-(-(counts[group] + 1) * self._period // self._shares[group]), group))
            group = heapq.heappop(ready)[1]
            order.append((group, counts[group]))
            counts[group] += 1
            heapq.heappush(waiting, (counts[group] * self._period // self._shares[group], group))
        return order, counts


class _Texts:
    """The prompts of one class, by ordinal: templates by weight, each walking a keyed permutation of its combinations."""

    def __init__(self, class_name: str, prompts: PromptsConfig, seed: int) -> None:
        self.negative = prompts.negative
        self._class_name = class_name
        self._seed = seed
        # A template is its text and the lists that multiply out; a captions file is one whose only name is a whole caption.
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
        """At most so many texts there are."""
        return sum(math.prod(map(len, values)) for _, _, values in self._templates) or 1

    def distinct(self) -> Iterator[str]:
        """Every text."""
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


@functools.lru_cache(maxsize=64)
def _captions(path: str) -> list[str]:
    """Classes often share one file."""
    return captions_in(path)


def permute(position: int, size: int, key: bytes) -> int:
    """Where a keyed permutation of `range(size)` sends `position`: a Feistel network, walked until it lands inside (Black and
    Rogaway 2002)."""
    half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = position >> half, position & mask
        for turn in range(4):
            digest = hashlib.blake2b(
                right.to_bytes(half // 8 + 1, "little") + bytes([turn]), key=key, digest_size=min(64, half // 8 + 1)
            ).digest()
            left, right = right, left ^ (int.from_bytes(digest, "little") & mask)
        position = left << half | right
        if position < size:
            return position


def _draw(seed: int, index: int, attempt: int, purpose: str) -> int:
    """64 random bits that nothing but these four decides."""
    key = hashlib.blake2b(f"{seed}|{index}|{attempt}|{purpose}".encode(), digest_size=16).digest()
    return int(np.random.Philox(key=int.from_bytes(key, "little")).random_raw())
