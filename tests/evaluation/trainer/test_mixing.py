"""How real and synthetic images share batches."""

from __future__ import annotations

import torch

from synthforge.evaluation.trainer.mixing import Mixing
from synthforge.recipe.evaluation import MixingConfig


def mixed(policy: str, num_real: int = 10, num_synthetic: int = 30, **options: float) -> Mixing:
    is_real = torch.arange(num_real + num_synthetic) < num_real
    config = MixingConfig(policy=policy, **options)  # type: ignore[arg-type]
    return Mixing(config, is_real, torch.ones(len(is_real)), batch=16, num_steps=100, seed=0)


def test_pooled_batches_go_through_everything_once_before_anything_twice() -> None:
    mixing = mixed("pooled", 10, 22)
    assert sorted(torch.cat([mixing.rows(step) for step in range(2)]).tolist()) == list(range(32))
    assert (mixing.weight_N == 1).all()
    assert torch.equal(mixing.rows(7), mixed("pooled", 10, 22).rows(7))


def test_weighted_batches_have_a_fixed_share_that_counts_less() -> None:
    mixing = mixed("weighted", share=0.25, weight=0.5)
    for step in range(20):
        assert int((mixing.rows(step) < 10).sum()) == 12
    assert mixing.weight_N[0] == 1
    assert mixing.weight_N[-1] == 0.5


def test_synthetic_images_come_first_and_real_ones_last() -> None:
    mixing = mixed("synthetic-then-real", share=0.3)
    assert all((mixing.rows(step) >= 10).all() for step in range(30))
    assert all((mixing.rows(step) < 10).all() for step in range(30, 100))
    assert (mixing.recalibration_rows(0) < 10).all()


def test_one_domain_alone_is_pooled_whatever_the_policy() -> None:
    assert mixed("split-norm", 20, 0).policy == "pooled"
    assert mixed("synthetic-then-real", 0, 20).num_first == 0


def test_importance_weights_have_a_mean_of_one_in_each_domain() -> None:
    is_real = torch.tensor([True, True, False, False])
    mixing = Mixing(MixingConfig(policy="pooled"), is_real, torch.tensor([1.0, 3.0, 10.0, 30.0]), batch=2, num_steps=4, seed=0)
    assert mixing.weight_N.tolist() == [0.5, 1.5, 0.5, 1.5]


def test_a_share_near_nothing_or_all_leaves_one_image_of_each() -> None:
    for share, num_synthetic in ((0.005, 1), (0.995, 15)):
        assert int((mixed("weighted", share=share).rows(0) >= 10).sum()) == num_synthetic
