"""Draws of the real images."""

from __future__ import annotations

from synthforge.evaluation.reference import Reference
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig, cache_folder
from synthforge.recipe.evaluation import EvaluationConfig


def test_draws_share_as_few_images_as_they_can_and_more_draws_change_none() -> None:
    reference = Reference.open("builtin:digits/reference", cache_folder(CurationConfig()), Reporter())

    def held(amount: int, draws: int) -> list[set[str]]:
        config = EvaluationConfig(draws=draws, real_per_class=[amount])
        return [set(draw.fit.sha256_N) for draw in reference.draws(amount, config)]

    five = held(5, 5)
    assert all(len(one) == 50 for one in five)
    assert len(set.union(*five)) == 250
    assert five == held(5, 6)[:5]
    assert all(small < large for small, large in zip(five, held(50, 5), strict=True))
    assert len(set.union(*held(50, 2))) == sum(reference.fit)
    assert held(5, 1) == five[:1]
