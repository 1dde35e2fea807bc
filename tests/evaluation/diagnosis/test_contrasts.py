"""Parts of the loss of known arms: they add up, and intervals and verdicts are right."""

from __future__ import annotations

import numpy as np
import pytest

from synthforge.evaluation.diagnosis.contrasts import ArmOutcomes, losses


def outcomes(**accuracy: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    common = rng.random((4, 2, 300))
    return {name.replace("_", "-"): (common < value).astype(np.float64) for name, value in accuracy.items()}


def one_draw(rng: np.random.Generator, by_draw: float, loss: float = 0.0, seeds: int = 5, taken: float = 0.3) -> dict[str, np.ndarray]:
    """Arms of one draw, 1,500 images: accuracy varies by the real images that were drawn, and by what each seed takes
    of the pool."""
    real = np.full((1, seeds, 1), 0.8 + by_draw * rng.standard_normal())
    pool = 0.8 - loss + by_draw * (1 - taken) ** 0.5 * rng.standard_normal((1, seeds, 1))
    arms = {"real": real, "resampled": real, "random": pool, "repeated": pool, "label-filtered": pool}
    return {name: np.broadcast_to(value, (1, seeds, 1500)) for name, value in arms.items()}


def test_parts_add_up_to_the_whole_loss_and_are_named() -> None:
    arms = outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.65, rendered=0.9, resampled=0.65, rendered_resampled=0.65)
    one, mean = losses([ArmOutcomes(arms)], 0.005)
    values = {name: part.loss.value for name, part in one.parts.items() if part.loss is not None}
    assert one.whole.loss is not None
    assert sum(values.values()) == pytest.approx(one.whole.loss.value, abs=1e-4)
    assert {name for name, part in one.parts.items() if part.verdict == "loss"} == {"content"}
    assert one.parts["content"].share is not None and one.parts["content"].share.value == pytest.approx(1)
    assert mean == one


def test_a_difference_of_differences_varies_more_than_one() -> None:
    correct = outcomes(real=0.9, random=0.9, label_filtered=0.9, repeated=0.9, resampled=0.9)
    one, _ = losses([ArmOutcomes(correct)], 0.005)
    ends = {name: part.loss.high - part.loss.low for name, part in one.parts.items() if part.loss is not None}
    assert ends["content"] == pytest.approx(2 * ends["labels"], rel=0.01)


def test_what_is_not_trained_for_is_no_zero_with_an_interval() -> None:
    arms = outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.7, resampled=0.9)
    one, mean = losses([ArmOutcomes(arms, {"content"})], 0.005)
    assert one.parts["content"].verdict == mean.parts["content"].verdict == "not shown"
    assert one.parts["content"].loss is None
    assert one.parts["labels"].verdict == "cannot tell"  # its arms were trained, and agree
    assert one.parts["rest"].verdict == "loss"


def test_in_the_mean_a_part_counts_as_nothing_where_it_is_not_shown() -> None:
    arms = outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.7, resampled=0.7)
    alike = {**arms, "resampled": arms["real"]}
    first, second, mean = losses([ArmOutcomes(alike, {"content"}), ArmOutcomes(arms)], 0.005)
    assert first.parts["content"].loss is None and second.parts["content"].loss is not None and mean.parts["content"].loss is not None
    assert mean.parts["content"].loss.value == pytest.approx(second.parts["content"].loss.value / 2, abs=1e-3)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_with_one_draw_lucky_real_images_are_no_loss(seeds: int) -> None:
    def without_zero(taken: float, loss: float) -> float:
        """How often the interval does not hold 0."""
        rng = np.random.default_rng(0)
        found = [losses([ArmOutcomes(one_draw(rng, 0.03, loss, seeds), taken=taken)], 0.005)[1].whole.loss for _ in range(200)]
        return float(np.mean([one is not None and not one.low <= 0 <= one.high for one in found]))

    assert without_zero(0.3, 0.0) <= 0.075
    assert without_zero(1.0, 0.0) >= 0.1  # where the pool does not tell how draws vary, the interval is about these images
    assert without_zero(0.3, 0.6) >= 0.8


def test_other_real_images_widen_only_the_whole_and_the_rest() -> None:
    arms = one_draw(np.random.default_rng(1), 0.03, 0.1)
    narrow, wide = (losses([ArmOutcomes(arms, taken=taken)], 0.005)[0] for taken in (1.0, 0.3))
    widths = [
        {name: part.loss.high - part.loss.low for name, part in [("whole", one.whole), *one.parts.items()] if part.loss is not None}
        for one in (narrow, wide)
    ]
    assert {name for name in widths[0] if widths[1][name] > widths[0][name]} == {"whole", "rest"}
    several = outcomes(real=0.9, random=0.7)  # more than one draw: these tell
    assert losses([ArmOutcomes(several, taken=0.3)], 0.005) == losses([ArmOutcomes(several)], 0.005)


def test_without_renderings_appearance_is_not_measured_and_the_rest_takes_it() -> None:
    one, _ = losses([ArmOutcomes(outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.65, resampled=0.85))], 0.005)
    assert {name for name, part in one.parts.items() if part.loss is None} == {"appearance", "interaction"}
    assert one.parts["rest"].verdict == "loss"


def test_parts_of_the_mean_add_up_where_one_setting_lacks_an_arm() -> None:
    few = {"real": 0.9, "random": 0.7, "label-filtered": 0.7}
    *_, mean = losses([ArmOutcomes(outcomes(**few)), ArmOutcomes(outcomes(**few, rendered=0.8))], 0.005)
    assert mean.whole.loss is not None
    told = [part.loss.value for part in mean.parts.values() if part.loss is not None]
    assert sum(told) == pytest.approx(mean.whole.loss.value, abs=1e-4)
    assert mean.parts["appearance"].loss is None
