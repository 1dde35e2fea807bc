"""Batches of one shape and level, memory that runs out, measured batch sizes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from synthforge.data.storage import Folder
from synthforge.errors import WorkError
from synthforge.generation.plan import Plan
from synthforge.generation.sampler import Sampler, best_batch, measure
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small
from tests.generation.noise import Noise, noise_of, run, setup, stored


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
    assert list(found) in ([1, 2, 4, 8], [1, 2, 4])
    assert best_batch(found) in found
    with pytest.raises(WorkError):
        measure(Noise(memory=0), plan)


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
