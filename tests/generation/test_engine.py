"""The engine with a small real generator whose failures can be chosen: rejects, failures, records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from synthforge.errors import ShardFailed
from synthforge.generation.plan import Plan
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small
from tests.generation.noise import Noise, noise_of, run, setup, stored


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
    assert [seal.left_out for seal in seals] == [[], ["000000012"], [], []]
    assert [seal.samples for seal in seals] == [10, 9, 10, 10]
    assert engine.counters.left_out == 1
    completion = engine.dataset.complete()
    assert completion is not None
    assert (completion.samples, completion.left_out) == (39, 1)


def test_a_shard_without_a_single_good_image_fails_and_others_go_on(tmp_path: Path) -> None:
    plan = Plan.of(load_recipe(DIGITS, small(tmp_path)))
    bad = {plan.sample(index, attempt).seed for index in range(10, 20) for attempt in range(3)}
    engine, plan = setup(tmp_path, Noise(broken=bad))
    outcomes = run(engine)
    assert [isinstance(outcome, ShardFailed) for outcome in outcomes].count(True) == 1
    failure = next(outcome for outcome in outcomes if isinstance(outcome, ShardFailed))
    assert "every one of 10 images came out not finite, in 3 attempt(s)" in str(failure)
    assert len(engine.dataset.state().sealed) == 3


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
