"""Real images as a generator renders them: real guidance at low strength, which keeps their content and gives them the generated look."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from synthforge.errors import WorkError
from synthforge.evaluation.trainings import cpu_threads
from synthforge.generators.config import RealGuidanceConfig
from synthforge.images import encode
from synthforge.plan import Plan
from synthforge.recipe import Recipe
from synthforge.sampler import Sampler, load_generator
from synthforge.shards.folder import import_shard
from synthforge.shards.layout import COMPLETE, Segment, digest_of
from synthforge.shards.reading import Example, read_labelled
from synthforge.shards.tars import EncodedSample, write_tar
from synthforge.storage import Folder

VERSION = 1
"""Raised when equal images and settings are rendered otherwise."""


def why_not(recipe: Recipe, strength: float) -> str | None:
    """Why a recipe's generator can't render real images; None if it can."""
    if not type(recipe.generator).capabilities.image:
        return f"generator {recipe.generator.kind!r} can't start from an image"
    if int(recipe.sampling.steps * strength) < 1:
        return f"strength {strength:g} of {recipe.sampling.steps} steps is less than one step; raise diagnosis.strength"
    return None


def render(recipe: Recipe, real: str, strength: float, beside: Path, threads: int) -> str:
    """Render each image of the fit part of a real set once, with the recipe's prompts and guidance; returns the dataset folder's address.

    Images come in the order of the fit part, and their records say which real image each started from. What is there already stays.

    Args:
        real: address of the set.
        beside: where the folder is to lie.
    """
    labelled = read_labelled(real)["fit"]
    present = {example.class_name for example in labelled.examples}
    guided = recipe.model_copy(
        update={
            "classes": {name: spec for name, spec in recipe.classes.items() if name in present},
            "sampling": recipe.sampling.model_copy(update={"real_guidance": RealGuidanceConfig(reference=real, strength=[strength])}),
        }
    )
    plan = Plan.of(guided)
    place = beside / f"rendered-{digest_of([VERSION, plan.digest])[:12]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(beside / f".{place.name}.lock"):
        if not (place / COMPLETE).exists():
            with cpu_threads(threads):
                _render(plan, labelled.examples, place)
    return str(place)


def _render(plan: Plan, examples: Sequence[Example], place: Path) -> None:
    """All in memory until they are written: they are as many as the real images."""
    most = max(Counter(example.class_name for example in examples).values())
    of_class = {name: iter(samples) for name, samples in plan.first_of_each(most).items()}
    due = [replace(next(of_class[example.class_name]), index=index, source=example) for index, example in enumerate(examples)]
    recipe, generator = plan.recipe, load_generator(plan.recipe, plan)
    generator.learn_texts(sorted({(sample.prompt, sample.negative) for sample in due}, key=repr))
    sampler = Sampler(generator, plan, recipe.execution.batch)
    generator.compile(sampler.batch_of(due[: sampler.batch]))
    encoded: dict[int, EncodedSample] = {}
    for chunk, pixels, codes in sampler.sampled(due):
        for sample, image, code in zip(chunk, pixels, codes, strict=False):  # a short batch is padded
            if code:
                continue  # not finite, or flagged: that real image has no rendering
            data = encode(image, recipe.output.format, recipe.output.quality, recipe.output.marking)
            record = sample.record([], generator.identity())
            encoded[sample.index] = EncodedSample(sample.key, data, recipe.output.format, sample.class_index, sample.prompt, record)
    if not encoded:
        raise WorkError("no real image could be rendered: all came out not finite or flagged by the safety checker")
    folder = Folder(str(place.resolve()))
    for name in folder.list():  # what a killed run left
        (place / name).unlink() if (place / name).is_file() else None
    whole = plan.manifest(generator.identity())
    segment = Segment(first_sample=0, num_samples=len(due), first_shard=0, samples_per_shard=len(due))
    import_shard(
        folder, whole.model_copy(update={"segment": segment}), lambda path: write_tar(path, [encoded[index] for index in sorted(encoded)])
    )
