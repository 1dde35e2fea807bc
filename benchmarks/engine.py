"""The engine, from plan to sealed shards, over the bare sampling loop on the same pipeline and batch."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmarks.harness import keep, paired, seconds
from synthforge.data.folder import DatasetFolder
from synthforge.data.storage import Folder
from synthforge.generation.engine import Engine
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler, load_generator
from synthforge.generators.pixel.network import PixelDenoiser, body_for
from synthforge.generators.pixel.pipeline import PixelPipeline
from synthforge.recipe.load import load_recipe

PAIRS = 5


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as directory:
        model = _random_model(Path(directory), 32)
        found["32 px, 3 channels, 18 steps, batch 64"] = _measure(str(model), 256, 64, 18, directory)
    found["8 px, built-in digits, 18 steps, batch 256"] = _measure("builtin:digits/generator", 4096, 256, 18, tempfile.gettempdir())
    keep("engine", "engine rate over the bare sampling loop, at least 0.95 at 32 px on CPU; reported at 8 px", found)


def _random_model(place: Path, resolution: int) -> Path:
    """An unfitted network of the default size: rates don't depend on weights."""
    torch.manual_seed(0)
    network = PixelDenoiser(resolution, 3, [str(digit) for digit in range(10)], **body_for(resolution))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    PixelPipeline(network.eval(), diffusers.EDMDPMSolverMultistepScheduler()).save_pretrained(place / "model")
    return place / "model"


def _measure(model: str, num: int, batch: int, steps: int, directory: str) -> dict[str, Any]:
    sets = [
        f"generator.model={model}",
        f"sampling.steps={steps}",
        "sampling.guidance=[1.5]",
        f"count={{total: {num}}}",
        f"execution.batch={batch}",
        f"output.samples_per_shard={num // 2}",
    ]
    plan = Plan.of(load_recipe("recipes/digits.yaml", sets))
    generator = load_generator(plan.recipe, plan)
    pipeline: Any = generator.pipeline  # type: ignore[attr-defined]
    seeds = [plan[index].seed for index in range(num)]
    labels = [plan[index].label for index in range(num)]

    def engine() -> float:
        with tempfile.TemporaryDirectory(dir=directory) as place:
            dataset = DatasetFolder.create(Folder(place), plan.manifest(generator.identity()))
            engine = Engine(Sampler(generator, plan, batch), dataset)
            return num / seconds(lambda: list(engine.run(dataset.shards())))

    def bare_loop() -> None:
        for start in range(0, num, batch):
            images = pipeline(
                labels[start : start + batch],
                num_inference_steps=steps,
                guidance_scale=1.5,
                generator=[torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]],
                output_type="pt",
            ).images
            (images * 255).round().to(torch.uint8).cpu()

    return paired(engine, lambda: num / seconds(bare_loop), PAIRS)
