"""The engine with a small real generator whose failures can be chosen: rejects, memory, queues, padding, levels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode
from synthforge.data.storage import Folder
from synthforge.errors import ShardFailed, WorkError
from synthforge.generation.engine import Engine
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler, best_batch, measure
from synthforge.generators.protocol import ImageRequest
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small


@dataclass
class Noise:
    """Implements `generators.protocol.Generator`: each image is noise of its own seed, with faults by seed or batch size."""

    blank: set[int] = field(default_factory=set)
    broken: set[int] = field(default_factory=set)
    flagged: set[int] = field(default_factory=set)
    memory: int = 10**9
    """Images that fit at once."""
    batches: list[tuple[int, float]] = field(default_factory=list)
    resolution: int = 8
    default_batch: int = 8
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def identity(self) -> dict[str, Any]:
        return {"class": "Noise", "model": "noise", "sha256": "0" * 64}

    def acceleration(self) -> dict[str, Any]:
        return {}

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        pass

    def compile(self, batch: Any) -> None:
        pass

    def prepare(self, requests: Sequence[ImageRequest]) -> _Seeds:
        assert len({request.guidance for request in requests}) == 1, "a batch has one level"
        return _Seeds([request.seed for request in requests], requests[0].guidance)

    def sample(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if batch.num_images > self.memory:
            raise torch.OutOfMemoryError("chosen") if self.memory % 2 else RuntimeError("DefaultCPUAllocator: can't allocate memory")
        self.batches.append((batch.num_images, batch.guidance))
        images = torch.stack([torch.randint(0, 256, (8, 8, 1), generator=torch.Generator().manual_seed(seed)) for seed in batch.seeds])
        for row, seed in enumerate(batch.seeds):
            if seed in self.blank:
                images[row] = 7
        return images.to(torch.uint8), torch.tensor(
            [1 if seed in self.broken else 2 if seed in self.flagged else 0 for seed in batch.seeds]
        ).to(torch.uint8)


@dataclass
class _Seeds:
    seeds: list[int]
    guidance: float

    @property
    def num_images(self) -> int:
        return len(self.seeds)


def setup(tmp_path: Path, generator: Noise, **changes: object) -> tuple[Engine, Plan]:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path, **changes)))
    dataset = DatasetFolder.create(Folder(str(tmp_path / "pool")), plan.manifest(generator.identity()))
    return Engine(Sampler(generator, plan, plan.recipe.execution.batch), dataset), plan


def run(engine: Engine) -> list[Any]:
    return [outcome for _, outcome in engine.run(engine.dataset.state().missing)]


def stored(engine: Engine, key: int) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
    row, members = engine.dataset.sample(str(key))
    return decode(members["image"]), json.loads(members["json"]), row


def noise_of(seed: int) -> np.ndarray:
    return torch.randint(0, 256, (8, 8, 1), generator=torch.Generator().manual_seed(seed)).to(torch.uint8).numpy()


def test_images_labels_and_records_belong_together(tmp_path: Path) -> None:
    engine, plan = setup(tmp_path, Noise())
    run(engine)
    for index in (0, 7, 8, 19, 39):
        image, record, row = stored(engine, index)
        sample = plan[index]
        assert np.array_equal(image, noise_of(sample.seed))
        assert (record["seed"], record["class"], record["guidance"], record["attempts"]) == (
            sample.seed,
            sample.class_name,
            sample.guidance,
            [],
        )
        assert (row["seed"], row["class_index"], row["attempts"], row["reasons"]) == (sample.seed, sample.class_index, 1, [])


def test_batches_have_one_shape_and_one_level_aligned_to_the_shard(tmp_path: Path) -> None:
    generator = Noise()
    engine, plan = setup(tmp_path, generator, total=40, per_shard=20)
    run(engine)
    assert {num for num, _ in generator.batches} == {8}
    levels = [[plan[index].guidance for index in range(start, start + 20)] for start in (0, 20)]
    expected = [-(-shard.count(level) // 8) for shard in levels for level in sorted(set(shard))]
    assert len(generator.batches) == sum(expected)
    assert engine.counters.padding == 8 * sum(expected) - 40
    assert engine.counters.images == 40


def test_rejected_images_are_made_again_with_the_next_attempt(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    generator = Noise(blank={plan[3].seed, plan.sample(3, 1).seed}, broken={plan[15].seed})
    engine, plan = setup(tmp_path, generator)
    run(engine)
    image, record, row = stored(engine, 3)
    assert np.array_equal(image, noise_of(plan.sample(3, 2).seed))
    assert record["attempts"] == [{"seed": plan[3].seed, "reason": "blank"}, {"seed": plan.sample(3, 1).seed, "reason": "blank"}]
    assert (row["attempts"], row["reasons"]) == (3, ["blank", "blank"])
    assert stored(engine, 15)[2]["reasons"] == ["not finite"]
    assert engine.counters.rejected == {"blank": 2, "not finite": 1}
    assert (engine.counters.images, engine.counters.left_out) == (40, 0)


def test_a_sample_that_always_fails_is_left_out_and_named(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    engine, plan = setup(tmp_path, Noise(blank={plan.sample(12, attempt).seed for attempt in range(3)}))
    seals = run(engine)
    assert [seal.missing for seal in seals] == [[], ["000000012"], [], []]
    assert [seal.samples for seal in seals] == [10, 9, 10, 10]
    assert engine.counters.left_out == 1
    completion = engine.dataset.complete()
    assert completion is not None
    assert (completion.samples, completion.missing) == (39, 1)


def test_a_shard_without_a_single_good_image_fails_and_others_go_on(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    bad = {plan.sample(index, attempt).seed for index in range(10, 20) for attempt in range(3)}
    engine, plan = setup(tmp_path, Noise(broken=bad))
    outcomes = run(engine)
    assert [isinstance(outcome, ShardFailed) for outcome in outcomes].count(True) == 1
    failure = next(outcome for outcome in outcomes if isinstance(outcome, ShardFailed))
    assert "every one of 10 images came out not finite, in 3 attempt(s)" in str(failure)
    assert len(engine.dataset.state().sealed) == 3


@pytest.mark.parametrize("memory", [5, 3, 1])
def test_out_of_memory_halves_the_batch_and_loses_nothing(tmp_path: Path, memory: int) -> None:
    generator = Noise(memory=memory)
    engine, plan = setup(tmp_path, generator)
    run(engine)
    assert engine.sampler.batch <= memory
    assert engine.counters.halvings == {5: 1, 3: 2, 1: 3}[memory]
    for index in range(40):
        assert np.array_equal(stored(engine, index)[0], noise_of(plan[index].seed))
    assert engine.counters.images == 40


def test_memory_for_not_even_one_image_is_a_failure(tmp_path: Path) -> None:
    engine, _ = setup(tmp_path, Noise(memory=0), total=10)
    with pytest.raises(WorkError, match="single image"):
        run(engine)
    assert not engine.dataset.state().quarantined


def test_pixels_of_needs_no_folder_and_rejects_nothing(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    samples = [plan[index] for index in (5, 2, 33)]
    pixels = Sampler(Noise(blank={plan[2].seed}), plan, 2).pixels_of(samples)
    assert sorted(pixels) == [2, 5, 33]
    assert np.array_equal(pixels[33], noise_of(plan[33].seed))
    assert (pixels[2] == 7).all()


def test_measuring_stops_at_the_end_of_memory(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    found = measure(Noise(memory=9), plan, seconds=0.01)
    assert [item.batch for item in found] in ([1, 2, 4, 8], [1, 2, 4])
    assert best_batch(found) in found
    with pytest.raises(WorkError):
        measure(Noise(memory=0), plan)


def test_flagged_images_are_made_again_and_what_fails_is_in_the_table_of_failures(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    always = {plan.sample(12, attempt).seed for attempt in range(3)}
    engine, plan = setup(tmp_path, Noise(flagged=always | {plan[13].seed}, blank={plan.sample(17, attempt).seed for attempt in range(3)}))
    run(engine)
    (shard,) = [shard for shard in engine.dataset.shards() if 12 in shard.samples]
    rows = engine.dataset.failures(shard).to_pylist()
    assert [(row["key"], row["class"], set(row["reasons"])) for row in rows] == [
        ("000000012", plan[12].class_name, {"flagged by the safety checker"}),
        ("000000017", plan[17].class_name, {"blank"}),
    ]
    assert rows[0]["seeds"] == [plan.sample(12, attempt).seed for attempt in range(3)]
    assert stored(engine, 13)[2]["reasons"] == ["flagged by the safety checker"]
    completion = engine.dataset.complete(plan.counts_without)
    assert completion is not None
    expected = dict.fromkeys(plan.classes, 4)
    expected[plan[12].class_name] -= 1
    expected[plan[17].class_name] -= 1
    assert completion.class_samples == expected


def test_hopeless_shards_are_not_tried_to_the_end(tmp_path: Path) -> None:
    """Where the model makes nothing that is fit, one attempt at each of many samples is enough to know."""

    class Hopeless(Noise):
        def sample(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
            pixels, codes = super().sample(batch)
            return pixels, torch.full_like(codes, 2)

    generator = Hopeless()
    engine, _ = setup(tmp_path, generator, total=40, per_shard=40)
    (failure,) = run(engine)
    assert isinstance(failure, ShardFailed)
    assert failure.is_final
    assert sum(num for num, _ in generator.batches) <= 40 + 2 * 8


def test_the_measured_batch_is_kept_for_other_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from synthforge.generation.sampler import chosen_batch

    plan = Plan.of(load_recipe(DIGITS, small(tmp_path, execution__batch="null")))
    log = Folder(str(tmp_path / "_log"))
    assert chosen_batch(Noise(), plan, log, 10_000) == Noise().default_batch  # on a CPU bytes depend on it, so it is fixed
    assert log.list() == {}
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    on_gpu: Any = Noise(device=SimpleNamespace(type="cuda"), memory=9)  # type: ignore[arg-type]
    batch = chosen_batch(on_gpu, plan, log, 10_000)
    assert 1 <= batch <= 8
    (name,) = log.list()
    assert json.loads(log.read(name))["batch"] == batch
    on_gpu.batches.clear()
    assert chosen_batch(on_gpu, plan, log, 10_000) == batch
    assert on_gpu.batches == []  # not measured again
    fixed = Plan.of(load_recipe(DIGITS, small(tmp_path, execution__batch=3)))
    assert chosen_batch(on_gpu, fixed, log, 10_000) == 3
