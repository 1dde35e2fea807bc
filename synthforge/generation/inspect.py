"""Inspect a dataset: plan, preview, verify against seals, show one sample, and make samples again."""

from __future__ import annotations

import bisect
import itertools
import json
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from synthforge.config import from_record, walk
from synthforge.data import audit
from synthforge.data.audit import Audit
from synthforge.data.folder import DatasetFolder, differences
from synthforge.data.images import Uint8, contact_sheet, decode, encode
from synthforge.data.layout import LOG, RECIPE_LOG
from synthforge.data.storage import Folder
from synthforge.errors import HubUnreachable, PlaceError, RequestError
from synthforge.generation.plan import Plan, Sample
from synthforge.generation.prompts import PromptReport, look_at
from synthforge.generators.protocol import ImageRequest
from synthforge.generators.remake_code import remake_code
from synthforge.progress import Reporter
from synthforge.recipe.recipe import Recipe

if TYPE_CHECKING:
    from synthforge.generation.sampler import Sampler


@dataclass(frozen=True)
class PlanSummary:
    """A recipe's dataset before it is made: size, classes, examples, and on request the speed."""

    name: str
    folder: str
    samples: int
    per_class: dict[str, int]
    shards: int
    samples_per_shard: int
    resolution: int | None
    """None: the model is out of reach, and the recipe does not say."""
    bytes_estimated: int | None
    """None: as for `resolution`."""
    free_bytes: int | None
    plan_digest: str | None
    """None: the model is out of reach."""
    prompts: PromptReport
    """Whether some prompts are cut, or have no effect."""
    examples: list[dict[str, Any]]
    """The first samples: key, class, prompt, seed, guidance."""
    images_per_second: float | None = None
    """Measured rate of sampling and encoding; None: not measured."""
    hours: float | None = None
    """Time for the whole dataset at that rate; None: not measured."""
    batch: int | None = None
    """The batch size that measuring would choose; None: not measured."""
    batches_measured: dict[int, float] | None = None
    """Batch size to images per second of the generator alone; None: not measured."""


def summarize(recipe: Recipe, reporter: Reporter | None = None, *, measure: bool = False) -> PlanSummary:
    """Summarise a recipe. With `measure`, the model is loaded and its rate is measured in a short warm-up.

    Without `measure` the model may be out of reach. Then what its files would say is left out.

    Raises: RecipeError for prompts that are too long if the recipe refuses these, and for a negative prompt that never
        has an effect.
    """
    reporter = reporter or Reporter()
    size: tuple[int, int] | None
    try:
        plan = Plan.of(recipe)
        size = recipe.generator.image_size(plan.files, recipe.sampling)
        prompts, digest = look_at(plan), plan.digest
    except HubUnreachable as error:
        if measure:
            raise
        plan, digest = Plan.without_model(recipe), None
        size = (recipe.sampling.resolution, 3) if recipe.sampling.resolution is not None else None
        note = f"{error}; until then the model, the length of prompts and the effect of negative prompts are not checked"
        prompts = PromptReport(checked=0, is_whole=False, max_tokens=None, notes=[note])
    prompts.refuse()
    rate = batch = rates = None
    image_bytes = _guessed_bytes(recipe, *size) if size is not None else None
    if measure:
        from synthforge.generation.sampler import Sampler, best_batch, load_generator, measure as measure_batches

        reporter.note(f"loading {recipe.generator.model}")
        generator = load_generator(recipe, plan)
        reporter.note("measuring batch sizes")
        measured = measure_batches(generator, plan)
        rates, batch = {size: round(rate, 2) for size, rate in measured.items()}, best_batch(measured)
        rate, image_bytes = _measured(recipe, Sampler(generator, plan, batch))
    per_shard = recipe.output.samples_per_shard
    return PlanSummary(
        name=recipe.name,
        folder=recipe.pool_path,
        samples=len(plan),
        per_class=plan.counts(len(plan)),
        shards=-(-len(plan) // per_shard),
        samples_per_shard=per_shard,
        resolution=size[0] if size is not None else None,
        bytes_estimated=int(len(plan) * _bytes_of_sample(image_bytes, plan[0].prompt) * 1.02) if image_bytes is not None else None,
        free_bytes=Folder(recipe.pool_path).free_bytes(),
        plan_digest=digest,
        prompts=prompts,
        examples=[_as_example(plan[index]) for index in range(min(5, len(plan)))],
        images_per_second=rate,
        hours=len(plan) / rate / 3600 if rate else None,
        batch=batch,
        batches_measured=rates,
    )


def _as_example(sample: Sample) -> dict[str, Any]:
    return {"key": sample.key, "class": sample.class_name, "prompt": sample.prompt, "seed": sample.seed, "guidance": sample.guidance}


def _bytes_of_sample(image_bytes: int, prompt: str) -> int:
    """A tar has four members for each sample, each with a header of 512 bytes and padded to 512."""
    members = (image_bytes, 1, len(prompt), len(prompt.encode()) + 1800)
    return sum(512 + math.ceil(size / 512) * 512 for size in members)


def _guessed_bytes(recipe: Recipe, resolution: int, channels: int) -> int:
    """Estimated bytes of one image, from the bits per pixel that photographs usually take."""
    bits = {"png": 5.0 * channels, "jpg": 2.0, "webp": 1.5}[recipe.output.format]
    return int(resolution**2 * bits / 8) + (600 if recipe.output.marking else 100)


def _measured(recipe: Recipe, sampler: Sampler) -> tuple[float, int]:
    """Images per second of sampling and encoding together, and mean bytes of an image."""
    samples = [sampler.plan.sample(index) for index in range(2 * sampler.batch)]
    output = recipe.output
    started = time.perf_counter()
    pixels = sampler.pixels_of(samples)
    sizes = [len(encode(image, output.format, output.quality, output.marking)) for image in pixels.values()]
    return len(samples) / (time.perf_counter() - started), int(sum(sizes) / len(sizes))


def preview(recipe: Recipe, out: str | Path, per_class: int = 8, reporter: Reporter | None = None) -> Path:
    """Make the first samples of each class and draw them on one labelled sheet. No image is rejected."""
    reporter = reporter or Reporter()
    from synthforge.generation.sampler import Sampler, load_generator

    plan = Plan.of(recipe)
    for note in look_at(plan).notes:
        reporter.note(note)
    reporter.note(f"loading {recipe.generator.model}")
    generator = load_generator(recipe, plan)
    samples = plan.first_of_each(per_class)
    everything = [sample for of_class in samples.values() for sample in of_class]
    batch = recipe.execution.batch or min(generator.default_batch, len(everything))
    reporter.begin("previewing", len(everything))
    pixels = Sampler(generator, plan, batch).pixels_of(everything)
    reporter.advance(len(everything))
    reporter.end()
    rows = {name: [pixels[sample.index] for sample in of_class] for name, of_class in samples.items()}
    sheet = contact_sheet(rows, title=f"{recipe.name}: preview")
    save_image(encode(sheet, "png", 100, recipe.output.marking), Path(out), option="--out")
    return Path(out)


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """The difference between an image made again and the stored one."""

    largest_difference: int
    """Largest difference of a pixel, of 255 levels."""
    within_tolerance: float
    """Share of pixels at most 2 levels off."""

    @property
    def is_reproduced(self) -> bool:
        """At most 2 of 256 levels off on 99.9 % of pixels. Other batch shapes may change this much by rounding."""
        return self.within_tolerance >= 0.999


@dataclass(frozen=True, kw_only=True)
class Remade(Reproduction):
    """Samples that were made again."""

    num_samples: int
    identical: int
    """Samples with every pixel equal."""
    keys: list[str]


def verify(
    address: str, reporter: Reporter | None = None, *, regenerate: int = 0, recipe: Recipe | None = None, seed: int | None = None
) -> tuple[Audit, Remade | None]:
    """Compare every shard with its seal, and make `regenerate` random samples again.

    Args:
        recipe: the recipe to make them from; None: the one that the last run logged beside the shards.
        seed: decides which samples; None: other samples every time.
    Returns: the result for the shards, and that for the samples made again; None if none was made.
    """
    reporter = reporter or Reporter()
    dataset = DatasetFolder.open(address)
    state = dataset.state()
    reporter.begin("verifying", len(state.sealed), unit="shards")
    checked = audit.verify(dataset, lambda done, total: reporter.advance(1))
    reporter.end()
    if not regenerate:
        return checked, None
    if checked.problems or not checked.samples:
        reporter.note("nothing is made again: " + ("repair the problems first" if checked.problems else "no shard is sealed yet"))
        return checked, None
    return checked, _remake(dataset, recipe or logged_recipe(dataset), regenerate, seed, reporter)


def logged_recipe(dataset: DatasetFolder) -> Recipe:
    """The recipe of the last run on a folder, from its `_log`; raises RequestError if there is none."""
    try:
        return from_record(Recipe, dataset.folder.within(LOG).read(RECIPE_LOG))
    except (FileNotFoundError, ValueError) as error:
        raise RequestError(f"{dataset.folder.address}: has no recipe in {LOG}/{RECIPE_LOG}; name it with --recipe FILE") from error


def _remake(dataset: DatasetFolder, recipe: Recipe, num: int, seed: int | None, reporter: Reporter) -> Remade:
    from synthforge.generation.sampler import Sampler, load_generator

    plan = Plan.of(recipe)
    if plan.digest != dataset.manifest.plan_digest:
        raise RequestError(
            f"{dataset.folder.address}: this recipe did not make it, so it can't make its samples again; name the right one with --recipe"
        )
    generator = load_generator(recipe, plan, dtype=(dataset.manifest.generator or {}).get("dtype"))
    rows = _random_rows(dataset, num, random.Random(seed))
    samples = [plan.sample(int(row["key"]), row["attempts"] - 1) for row in rows]
    reporter.begin("making again", len(samples))
    pixels = Sampler(generator, plan, recipe.execution.batch).pixels_of(samples)
    reporter.advance(len(samples))
    reporter.end()
    offs = []
    for row, sample in zip(rows, samples, strict=True):
        stored = dataset.folder.read_range(row["shard"].tar, row["image_offset"], row["image_size"])
        offs.append(_compare(stored, pixels[sample.index], recipe)[1])
    return Remade(
        num_samples=len(samples),
        identical=sum(not off.any() for off in offs),
        largest_difference=int(max(off.max() for off in offs)),
        within_tolerance=float(np.mean([np.mean(off <= 2) for off in offs])),
        keys=[sample.key for sample in samples],
    )


def _compare(stored: bytes, pixels: Uint8, recipe: Recipe) -> tuple[bytes, NDArray[np.int16]]:
    """Pixels encoded as the engine does, and their absolute difference from a stored image, int16 (H, W, C).

    Both images are compressed and decoded, so compression makes no difference.
    """
    encoded = encode(pixels, recipe.output.format, recipe.output.quality, recipe.output.marking)
    made, there = (decode(data, pixels.shape[2]).astype(np.int16) for data in (encoded, stored))
    return encoded, np.abs(there - made)


def _random_rows(dataset: DatasetFolder, num: int, chooser: random.Random) -> list[dict[str, Any]]:
    """Table rows of `num` different samples, or of all if there are fewer. Each has its `shard` added."""
    sealed = dataset.state().sealed
    starts = list(itertools.accumulate((seal.samples for seal in dataset.seals(sealed)), initial=0))
    chosen = sorted(chooser.sample(range(starts[-1]), k=min(num, starts[-1])))
    rows = []
    for number, positions in itertools.groupby(chosen, key=lambda position: bisect.bisect_right(starts, position) - 1):
        table = dataset.table(sealed[number])
        rows += [table.slice(position - starts[number], 1).to_pylist()[0] | {"shard": sealed[number]} for position in positions]
    return rows


@dataclass(frozen=True)
class Shown:
    """One sample with its image and record."""

    key: str
    shard: str
    class_name: str
    class_index: int
    prompt: str
    record: dict[str, Any]
    image: bytes
    """The encoded file."""
    image_sha256: str
    remake: str
    """Python that makes this image again with plain diffusers."""


def show(address: str, key: str) -> Shown:
    """Read one sample by ranged reads, with code that makes its image again."""
    dataset = DatasetFolder.open(address)
    row, members = dataset.sample(key)
    record = json.loads(members["json"])
    return Shown(
        key=row["key"],
        shard=dataset.shard_of(key).tar,
        class_name=row["class"],
        class_index=row["class_index"],
        prompt=row["prompt"],
        record=record,
        image=members["image"],
        image_sha256=row["image_sha256"],
        remake=_remake_code(dataset, record),
    )


def save_image(image: bytes, path: Path, option: str = "--save") -> None:
    """Write an encoded image to a file; raises PlaceError, which names the command's option."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    except OSError as error:
        raise PlaceError(f"{path}: can't be written ({error.strerror}); choose another place with {option}") from error


def _remake_code(dataset: DatasetFolder, record: dict[str, Any]) -> str:
    if dataset.manifest.generator is None:
        return "# a real image: nothing made it"
    places, reference, reading = {}, None, None
    try:
        recipe = logged_recipe(dataset)
        files = recipe.generator.files(_digests_of(recipe, dataset.manifest.recipe))
        places = {part.sha256: str(part.folder) for part in (files.model, *files.others.values())}
        reference = recipe.sampling.real_guidance.reference if recipe.sampling.real_guidance is not None else None
        reading = recipe.curation.reading
    except RequestError:
        pass  # on another machine the files are named as in the record
    return remake_code(record, places, reference, reading)


def _digests_of(recipe: Recipe, identity: Any) -> dict[str, str]:
    """Digests of the recipe's files, from the plan's identity. Showing a sample must not digest gigabytes."""
    digests = {}
    for path, role, value in walk(recipe):
        if role == "location" and value is not None:
            digest = identity
            for step in path:
                digest = digest.get(step, {}) if isinstance(digest, dict) else {}
            if isinstance(digest, str):
                digests[".".join(path)] = digest
    return digests


@dataclass(frozen=True, kw_only=True)
class RemadeSample(Reproduction):
    """One sample that was made again from its record."""

    image: bytes
    """The encoded file."""
    changes: list[str]
    """Differences from the record, such as another precision or scheduler configuration."""


def remake(address: str, key: str, recipe: Recipe | None = None, reporter: Reporter | None = None) -> RemadeSample:
    """Make one sample again from its record and the model's files.

    Args:
        recipe: says where the model and the real images lie; None: the one that the last run logged.
    Raises: RequestError if the model is not the one of the record.
    """
    from synthforge.generation.sampler import load_generator

    dataset = DatasetFolder.open(address)
    _, members = dataset.sample(key)
    record = json.loads(members["json"])
    recipe = recipe or logged_recipe(dataset)
    plan = Plan.of(recipe)
    made_by = record.get("generator") or {}
    if made_by.get("sha256") != plan.files.model.sha256:
        raise RequestError(
            f"{dataset.folder.address}: {key} was made by other weights than those of {recipe.generator.model}; name the right recipe"
        )
    (reporter or Reporter()).note(f"loading {recipe.generator.model}")
    generator = load_generator(recipe, plan, dtype=made_by.get("dtype"))
    request = ImageRequest(
        seed=record["seed"],
        class_name=record.get("label", record["class"]),
        prompt=record["prompt"],
        negative=record.get("negative"),
        guidance=record["guidance"],
        strength=record["strength"],
        source=plan.source(record["source"]) if record["source"] is not None else None,
    )
    pixels, _ = generator.sample(generator.prepare([request]))
    image, off = _compare(members["image"], pixels[0].cpu().numpy(), recipe)
    return RemadeSample(
        image=image,
        largest_difference=int(off.max()),
        within_tolerance=float(np.mean(off <= 2)),
        changes=differences(made_by, json.loads(json.dumps(generator.identity()))),
    )
