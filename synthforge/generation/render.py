"""Render real images with a generator: image-to-image at low strength.

This keeps the content of an image and gives it the look of generated ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import encode, is_blank
from synthforge.data.layout import COMPLETE, Segment, digest_of
from synthforge.data.reading import Example, read_labelled
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.devices import cpu_threads
from synthforge.errors import WorkError
from synthforge.generation.plan import Plan, Sample
from synthforge.generation.sampler import Sampler, load_generator
from synthforge.generators.config import RealGuidanceConfig
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.recipe import Recipe

VERSION = 1
"""Raised when equal images and settings give other renderings."""


def why_not(recipe: Recipe, strength: float) -> str | None:
    """The reason why a recipe's generator can't render real images; None if it can."""
    if not type(recipe.generator).capabilities.image:
        return f"generator {recipe.generator.kind!r} can't start from an image"
    if int(recipe.sampling.steps * strength) < 1:
        return f"strength {strength:g} of {recipe.sampling.steps} steps is less than one step; raise diagnosis.strength"
    return None


def render(recipe: Recipe, real: str, strength: float, beside: Path, threads: int) -> str:
    """Render each image of a real set's fit part once, with the recipe's prompts and guidance.

    Images come in the order of the fit part, and each record names its real image. Existing renderings are reused.

    Args:
        real: address of the real set.
        beside: parent of the new folder.
    Returns: the dataset folder's address.
    """
    labelled = read_labelled(real, cache_folder(recipe.curation), reading=recipe.curation.reading)["fit"]
    present = {example.class_name for example in labelled.examples}
    classes = {name: spec for name, spec in recipe.classes.items() if name in present}
    sampling = recipe.sampling.model_copy(update={"real_guidance": RealGuidanceConfig(reference=real, strength=[strength])})
    plan = Plan.of(recipe.model_copy(update={"classes": classes, "sampling": sampling}))
    place = beside / f"rendered-{digest_of([VERSION, plan.digest])[:12]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(beside / f".{place.name}.lock"):
        if not (place / COMPLETE).exists():
            with cpu_threads(threads):
                _render(plan, labelled.examples, place)
    return str(place)


def _render(plan: Plan, examples: Sequence[Example], place: Path) -> None:
    """Render shard by shard; finished shards of a killed run are kept."""
    most = max(Counter(example.class_name for example in examples).values())
    of_class = {name: iter(samples) for name, samples in plan.first_of_each(most).items()}
    due = [replace(next(of_class[example.class_name]), index=index, source=example) for index, example in enumerate(examples)]
    recipe, generator = plan.recipe, load_generator(plan.recipe, plan)
    generator.learn_texts(sorted({(sample.prompt, sample.negative) for sample in due}, key=repr))
    sampler = Sampler(generator, plan, recipe.execution.batch)
    generator.compile(sampler.batch_of(due[: sampler.batch]))
    segment = Segment(first_sample=0, num_samples=len(due), first_shard=0, samples_per_shard=recipe.output.samples_per_shard)
    manifest = plan.manifest(generator.identity()).model_copy(update={"segment": segment})
    dataset = DatasetFolder.create(Folder(str(place.resolve())), manifest)
    for shard in dataset.state().unfinished:
        samples = _encoded(sampler, [due[index] for index in shard.samples])
        with dataset.folder.scratch(shard.tar) as path:
            write_tar(path, samples)
            dataset.commit(shard, path, lambda shard, table: None)
    dataset.complete()


def _encoded(sampler: Sampler, samples: list[Sample]) -> list[EncodedSample]:
    """Renderings in key order, without those that came out blank, not finite or flagged."""
    output, identity = sampler.plan.recipe.output, sampler.generator.identity()
    rendered = {}
    for chunk, pixels, codes in sampler.sampled(samples):
        rejected = (codes[: len(chunk)] > 0) | is_blank(pixels[: len(chunk)])
        for sample, image, is_rejected in zip(chunk, pixels, rejected.tolist(), strict=False):  # a short batch is padded
            if not is_rejected:
                data = encode(image, output.format, output.quality, output.marking)
                record = sample.record([], identity) | sampler.plan.cut_texts(sample)
                rendered[sample.index] = EncodedSample(
                    sample.key, data, output.format, sample.class_index, text=sample.prompt, record=record
                )
    if not rendered:
        raise WorkError("no real image could be rendered: all came out blank, not finite or flagged by the safety checker")
    return [rendered[index] for index in sorted(rendered)]
