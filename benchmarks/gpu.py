"""Stable Diffusion 1.5's architecture at 512 px on a CUDA GPU: engine over bare loop and everyday script; what each
measure is worth."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.diffusion import bare_loop, engine_run, write_recipe
from benchmarks.harness import keep, paired, seconds, spread
from benchmarks.models import save_full
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler, load_generator
from synthforge.generators.pipelines.acceleration import Decoder
from synthforge.generators.pipelines.embeddings import PromptEncodings
from synthforge.recipe.load import load_recipe

DEVICE = "cuda"
PAIRS, NUM, BATCH, STEPS, GUIDANCE = 3, 256, 32, 25, 7.5
CLAIM = "engine over bare denoise-and-decode loop (same compile, same batch) at least 0.97; over the everyday script at least 5"


def main() -> None:
    if not torch.cuda.is_available():
        keep("gpu", CLAIM, {"not measured": "this machine has no CUDA GPU; run the command on one that has"})
        return
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        recipe = write_recipe(place, save_full(place / "model"), NUM, NUM // 2, BATCH, STEPS, GUIDANCE)
        plan = Plan.of(load_recipe(recipe))
        generator: Any = load_generator(plan.recipe, plan)
        generator.learn_texts(plan.texts(len(plan)) or [])
        generator.compile(Sampler(generator, plan, BATCH).batch_of([plan[index] for index in range(BATCH)]))

        def bare() -> None:
            bare_loop(plan, generator.pipeline, BATCH)

        found["engine over bare loop"] = paired(
            lambda: engine_run(plan, generator, BATCH, place), lambda: NUM / seconds(_synchronised(bare)), PAIRS
        )
        found["acceleration"] = generator.acceleration()
        found["peak GPU memory, GiB"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
        everyday = _everyday(plan, place, 16)
        found["engine over everyday script"] = paired(lambda: engine_run(plan, generator, BATCH, place), everyday, PAIRS)
        found["step by step, images per second"] = _ablation(plan)
    keep("gpu", CLAIM, found)


def _synchronised(run: Callable[[], None]) -> Callable[[], None]:
    def whole() -> None:
        run()
        torch.cuda.synchronize()

    return whole


def _everyday(plan: Plan, place: Path, num: int) -> Callable[[], float]:
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(plan.files.model.folder, dtype=torch.float16).to(DEVICE)
    pipeline.set_progress_bar_config(disable=True)

    def run() -> None:
        for index in range(num):
            pipeline(plan[index].prompt, num_inference_steps=STEPS).images[0].save(place / f"{index}.png")

    return lambda: num / seconds(run)


def _ablation(plan: Plan) -> dict[str, Any]:
    """Each line adds one measure to those above it; what encoding and copying beside the device is worth shows in
    engine over bare loop."""
    found: dict[str, Any] = {}

    def measure(name: str, pipeline: Any, batch: int) -> None:
        pipeline.set_progress_bar_config(disable=True)
        prompts = [plan[index].prompt for index in range(batch)]

        def run() -> None:
            noise = [torch.Generator().manual_seed(seed) for seed in range(batch)]
            pipeline(prompts, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=noise, output_type="pt").images.cpu()

        run()
        found[name] = spread([batch / seconds(_synchronised(run)) for _ in range(PAIRS)])

    folder = plan.files.model.folder
    measure("float32, one at a time", diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32).to(DEVICE), 1)
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.bfloat16).to(DEVICE)
    measure("+ bfloat16", pipeline, 1)
    measure(f"+ batch {BATCH}", pipeline, BATCH)
    for module in (pipeline.unet, pipeline.vae):
        module.to(memory_format=torch.channels_last)
    measure("+ channels-last", pipeline, BATCH)
    pipeline.unet.compile_repeated_blocks(fullgraph=True, dynamic=False)
    measure("+ compiled blocks", pipeline, BATCH)
    pipeline.vae.decode = torch.compile(pipeline.vae.decode, dynamic=False)
    measure("+ compiled decoder", pipeline, BATCH)
    encodings = PromptEncodings(pipeline)
    measure("+ prompts encoded once", pipeline, BATCH)
    assert encodings.is_whole
    decoder = Decoder(pipeline, None)
    for part in (16, 8, 4):
        decoder.batch = part
        measure(f"the same, decoding {part} at once", pipeline, BATCH)
    return found
