"""Stable Diffusion on a CPU: the engine over the bare loop and over the everyday script; two workers against one with
two threads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import keep, paired, seconds
from benchmarks.models import save_small
from synthforge.data.folder import DatasetFolder
from synthforge.data.storage import Folder
from synthforge.generation.engine import Engine
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler, load_generator
from synthforge.recipe.load import load_recipe

PAIRS, NUM, BATCH, STEPS, GUIDANCE = 5, 64, 8, 10, 4.0

RECIPE = """
name: bench
generator: {{kind: text-to-image, model: {model}}}
classes: [cat, dog]
prompts: {{templates: ["a photo of a {{class}} {{place}}"], values: {{place: [in a garden, on a street]}}}}
sampling: {{steps: {steps}, guidance: [{guidance}]}}
count: {{total: {num}}}
output: {{samples_per_shard: {per_shard}}}
execution: {{batch: {batch}}}
"""


def main() -> None:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        recipe = write_recipe(place, save_small(place / "model"), NUM, NUM // 2, BATCH, STEPS, GUIDANCE)
        plan = Plan.of(load_recipe(recipe))
        found["64 px, 10 steps, batch 8: engine over bare denoise-and-decode loop"] = _engine_over_bare(plan, place)
        found["the same over the everyday script, one prompt at a time"] = _engine_over_everyday(plan, place)
        found["two workers of one thread over one of two threads"] = _workers(recipe, place)
    keep("diffusion", "Stable Diffusion's make on two cores: engine over bare loop at least 0.95; the others reported", found)


def write_recipe(place: Path, model: Path, num: int, per_shard: int, batch: int, steps: int, guidance: float) -> Path:
    path = place / "bench.yaml"
    path.write_text(RECIPE.format(model=model, num=num, per_shard=per_shard, batch=batch, steps=steps, guidance=guidance))
    return path


def engine_run(plan: Plan, generator: Any, batch: int, place: Path) -> float:
    """Images per second of the engine, from plan to sealed shards."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        dataset = DatasetFolder.create(Folder(folder), plan.manifest(generator.identity()))
        engine = Engine(Sampler(generator, plan, batch), dataset)
        return len(plan) / seconds(lambda: list(engine.run(dataset.shards())))


def bare_loop(plan: Plan, pipeline: Any, batch: int) -> None:
    """Denoise and decode every sample of the plan, and throw the pixels away once they are on the host."""
    for first in range(0, len(plan), batch):
        chunk = [plan[index] for index in range(first, first + batch)]
        images = pipeline(
            prompt=[sample.prompt for sample in chunk],
            guidance_scale=chunk[0].guidance,
            num_inference_steps=plan.recipe.sampling.steps,
            generator=[torch.Generator().manual_seed(sample.seed) for sample in chunk],
            output_type="pt",
        ).images
        (images.float() * 255).round().to(torch.uint8).cpu()


def _engine_over_bare(plan: Plan, place: Path) -> dict[str, Any]:
    """The same pipeline object, batch, cached prompt encodings; the bare loop throws its pixels away."""
    generator: Any = load_generator(plan.recipe, plan)
    generator.learn_texts(plan.texts(len(plan)) or [])
    return paired(
        lambda: engine_run(plan, generator, BATCH, place), lambda: NUM / seconds(lambda: bare_loop(plan, generator.pipeline, BATCH)), PAIRS
    )


def _engine_over_everyday(plan: Plan, place: Path) -> dict[str, Any]:
    import diffusers

    generator: Any = load_generator(plan.recipe, plan)
    generator.learn_texts(plan.texts(len(plan)) or [])
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(plan.files.model.folder)
    pipeline.set_progress_bar_config(disable=True)

    def everyday() -> None:
        for index in range(NUM // 2):
            image = pipeline(plan[index].prompt, num_inference_steps=STEPS, guidance_scale=GUIDANCE).images[0]
            image.save(place / f"{index}.png")

    return paired(lambda: engine_run(plan, generator, BATCH, place), lambda: NUM // 2 / seconds(everyday), PAIRS)


def _workers(recipe: Path, place: Path) -> dict[str, Any]:
    """Whole commands; rates are those of making, without loading."""

    def rate(workers: int) -> float:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            sets = [f"output.path={folder}", f"execution.workers={workers}", "count={total: 256}", "output.samples_per_shard=32"]
            command = [sys.executable, "-m", "synthforge", "generate", str(recipe), "--json", "-q"]
            done = subprocess.check_output([*command, *(part for text in sets for part in ("--set", text))], text=True)
            return float(json.loads(done)["images_per_second"])

    return paired(lambda: rate(2), lambda: rate(1), 3)
