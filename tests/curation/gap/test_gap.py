"""The gap and its intervals on sets whose distance is known."""

from __future__ import annotations

import functools
import json
from typing import Any

import numpy as np
import pytest

from synthforge.curation.gap import gap as gap_module, metrics
from synthforge.curation.gap.gap import MetricView, measure_gap, sentence
from synthforge.curation.result import Distance, Distances, Gap

CLASSES = ["ant", "bee", "cow"]
DIM = 6


def draw(num: int, seed: int, shift: float = 0.0, classes: Any = None, spread: float = 1.0) -> tuple[Any, Any]:
    """Images of the classes in turn, each class around its own corner."""
    rng = np.random.default_rng(seed)
    class_of = np.arange(num) % 3 if classes is None else np.asarray(classes)
    features = spread * rng.standard_normal((num, DIM)) + 3 * np.eye(3, DIM)[class_of] + shift
    return features.astype(np.float32), class_of.astype(np.int64)


def view_of(parts: list[tuple[Any, Any]], real: tuple[Any, Any], prefix: str = "r") -> MetricView:
    """A view whose pool is some sets one after the other."""
    return MetricView(
        np.concatenate([features for features, _ in parts]),
        np.concatenate([classes for _, classes in parts]),
        real[0],
        real[1],
        [f"{prefix}{number}" for number in range(len(real[0]))],
    )


def measured(after: tuple[Any, Any], other: tuple[Any, Any], num_real: int = 240, **kwargs: Any) -> Gap:
    """The gap of a set beside others of its size, which are also the random ones."""
    num = len(after[0])
    view = view_of([after, other], draw(num_real, 99))
    given = {"seed": 0, "num_bootstrap": 200, "num_splits": 8} | kwargs
    return measure_gap(
        [view], classes=CLASSES, before=np.arange(num + len(other[0])), after=np.arange(num), random=[np.arange(num, 2 * num)], **given
    )


def figures(gap: Gap, metric: str) -> Distances:
    found = gap.metrics[metric]
    assert all(part.value is not None for part in (found.before, found.after, found.random, found.floor))
    return found


def test_values_are_those_of_the_plain_formulas() -> None:
    after, other, real = draw(90, 1, shift=0.2), draw(120, 2, shift=0.5), draw(150, 3)
    view = view_of([after, other], real)
    found = measure_gap(
        [view],
        classes=CLASSES,
        before=np.arange(210),
        after=np.arange(90),
        random=[np.arange(90, 180), np.arange(120, 210)],
        seed=0,
        num_bootstrap=50,
        num_splits=2,
    )
    sigma = metrics.median_sigma(real[0])
    pool = view.pool_ND
    mmd = found.metrics["mmd"]
    assert found.sigma == [pytest.approx(sigma)]
    gaussian = functools.partial(metrics.gaussian_kernel, sigma=sigma)
    assert mmd.before.value == pytest.approx(stratified(real, (pool, view.pool_class_N), gaussian), rel=1e-9)
    assert mmd.after.value == pytest.approx(stratified(real, after, gaussian), rel=1e-9)
    parts = [(pool[rows], view.pool_class_N[rows]) for rows in (slice(90, 180), slice(120, 210))]
    assert mmd.random.value == pytest.approx(np.mean([stratified(real, part, gaussian) for part in parts]))
    assert found.metrics["kid"].after.value == pytest.approx(stratified(real, after, metrics.cubic_kernel), rel=1e-9)
    bee = stratified(*((features[classes == 1], classes[classes == 1]) for features, classes in (real, after)), gaussian)
    assert found.per_class["bee"]["mmd"].after.value == pytest.approx(bee, rel=1e-9)
    assert mmd.after_minus_before is not None
    assert mmd.after_minus_before.value == pytest.approx(mmd.after.value - mmd.before.value)  # type: ignore[operator]


def stratified(real: tuple[Any, Any], other: tuple[Any, Any], kernel: Any) -> float:
    """MMD² where each class is a stratum, with its share of the images."""

    def within(side: tuple[Any, Any]) -> float:
        features, classes = side
        total = 0.0
        for one in np.unique(classes):
            for two in np.unique(classes):
                block = kernel(features[classes == one], features[classes == two])
                num = len(block)
                mean = (block.sum() - np.trace(block)) / (num * (num - 1)) if one == two else block.mean()
                total += (classes == one).mean() * (classes == two).mean() * mean
        return total

    return within(real) + within(other) - 2 * float(kernel(real[0], other[0]).mean())


@pytest.mark.parametrize("apart", [0.0, 1.0, 6.0])
def test_a_small_balanced_set_of_the_same_distribution_is_neither_nearer_nor_below_the_floor(apart: float) -> None:
    """With fixed class counts, leaving out pairs of an image with itself is not enough: it made small sets nearer than
    large ones."""
    nearer, below, values = 0, 0, []
    for run in range(40):
        rng = np.random.default_rng(run)

        def draw_of(per_class: int, rng: np.random.Generator = rng) -> tuple[Any, Any]:
            classes = np.repeat(np.arange(10), per_class)
            return (rng.standard_normal((len(classes), 10)) + apart * np.eye(10)[classes]).astype(np.float32), classes

        after = np.concatenate([np.arange(number * 20, number * 20 + 8) for number in range(10)])
        view = view_of([draw_of(20)], draw_of(15))
        found = measure_gap(
            [view],
            classes=[str(number) for number in range(10)],
            before=np.arange(200),
            after=after,
            random=[],
            seed=run,
            num_bootstrap=200,
            num_splits=1,
        ).metrics["mmd"]
        assert found.after_minus_before is not None and found.after.value is not None and found.floor.low is not None
        nearer += found.after_minus_before.verdict == "smaller"
        below += found.after.value < found.floor.low
        values.append(found.after.value)
    assert nearer <= 5 and below <= 5
    assert abs(np.mean(values)) < 3 * np.std(values) / 40**0.5


def test_nothing_is_said_of_chance_where_classes_have_single_images() -> None:
    pool, real = draw(90, 0), draw(3, 1)
    found = measured_of(pool, (np.repeat(real[0], 2, axis=0)[:4], np.array([0, 1, 2, 2])))
    assert found.metrics["mmd"].after.value is None and "only ones of their class" in str(found.metrics["mmd"].after.reason)
    assert "can't be said" in sentence(found) and found.metrics["mmd"].floor.value is None


def measured_of(pool: tuple[Any, Any], real: tuple[Any, Any]) -> Gap:
    rows = np.arange(len(pool[0]))
    return measure_gap(
        [view_of([pool], real)],
        classes=CLASSES,
        before=rows,
        after=rows[:45],
        random=[rows[45:]],
        seed=0,
        num_bootstrap=50,
        num_splits=2,
    )


def test_classes_without_images_change_no_interval() -> None:
    view, rows = view_of([draw(90, 0)], draw(9, 1)), np.arange(90)
    kwargs: Any = {"before": rows, "after": rows[:45], "random": [rows[45:]], "seed": 0, "num_bootstrap": 50, "num_splits": 2}
    one, more = (measure_gap([view], classes=names, **kwargs) for names in (CLASSES, [*CLASSES, *"defghijk"]))
    assert one.metrics["mmd"].after == more.metrics["mmd"].after


def test_of_large_equal_sets_the_same_images_are_compared() -> None:
    view, rows = view_of([draw(900, 0)], draw(90, 1)), np.arange(900)
    kwargs: Any = {"before": rows, "after": rows, "random": [rows[::-1]], "seed": 0, "num_bootstrap": 50, "num_splits": 2}
    difference = measure_gap([view], classes=CLASSES, most_images=150, **kwargs).metrics["mmd"].after_minus_random
    assert difference is not None and (difference.value, difference.verdict) == (pytest.approx(0, abs=1e-9), "no different")


def test_where_all_is_kept_nothing_was_chosen() -> None:
    pool, rows = draw(90, 0), np.arange(90)
    found = measure_gap(
        [view_of([pool], draw(90, 1))],
        classes=CLASSES,
        before=rows,
        after=rows,
        random=[rows[::-1]],
        seed=0,
        num_bootstrap=50,
        num_splits=2,
    )
    assert found.nothing_chosen and "nothing was chosen" in sentence(found) and "random" not in sentence(found)
    assert "not measurably nearer or farther than the whole pool" in sentence(found)


def test_replicates_are_weighted_means_over_pairs_of_different_images() -> None:
    """Against loops: one class's weights drawn, pairs inside and across classes in their own shares."""
    rng = np.random.default_rng(0)
    class_N = np.array([-1, 0, 0, 0, 0, 1, 1, 1, 1, 1])
    weights = rng.exponential(size=10)
    rows, others = rng.standard_normal((10, 3)), rng.standard_normal((4, 3))
    images = metrics.Weighted.of(class_N, weights[None].astype(np.float32))
    kernel = metrics.gaussian_kernel(rows, rows, 1.0)
    found = metrics.within(kernel.copy(), images, 2)[1]
    means: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for i in range(10):
        for j in range(10):
            if i != j:
                means.setdefault((class_N[i], class_N[j]), []).append((weights[i] * weights[j], kernel[i, j]))
    mean = {pair: np.average([k for _, k in found], weights=[w for w, _ in found]) for pair, found in means.items()}
    assert found[:2] == pytest.approx([mean[0, 0], mean[1, 1]], rel=1e-5)
    total = 16 * mean[0, 0] + 25 * mean[1, 1] + sum(mean[pair] * len(means[pair]) for pair in mean if pair[0] != pair[1])
    alone = (4 * mean[0, 0] + 5 * mean[1, 1]) / 9  # stands in for the class of one image, which has no pair
    assert found[2] == pytest.approx((total + alone) / 100, rel=1e-5)
    real = metrics.Weighted.of(np.ones(4, np.int64), np.ones((1, 4), np.float32))
    between = metrics.between(metrics.gaussian_kernel(rows, others, 1.0), images, real, 2)[1]
    expected = np.average(metrics.gaussian_kernel(rows[5:], others, 1.0).mean(axis=1), weights=weights[5:])
    assert np.isnan(between[0]) and between[1] == pytest.approx(expected, rel=1e-5)


def test_two_halves_of_one_real_set_are_at_the_floor() -> None:
    found = measured(draw(240, 1), draw(240, 2))
    for metric in ("mmd", "kid"):
        one = figures(found, metric)
        assert one.after.low < 0 < one.after.high and one.floor.low < one.after.value < one.floor.high  # type: ignore[operator]
    for metric in by_splits():
        one = figures(found, metric)
        assert one.floor.low <= one.after.high and one.after.low <= one.floor.high, metric  # type: ignore[operator]
    difference = found.metrics["mmd"].after_minus_random
    assert difference is not None and difference.verdict == "no different"
    assert "not measurably nearer or farther than random sets of its size" in sentence(found)
    assert "can't be told from other real images" in sentence(found)


def test_a_shifted_set_is_farther_and_a_better_one_nearer() -> None:
    near, far = draw(240, 1), draw(240, 2, shift=0.5)
    worse, better = measured(far, near), measured(near, far)
    assert worse.metrics["mmd"].after_minus_random.verdict == "larger"  # type: ignore[union-attr]
    assert better.metrics["mmd"].after_minus_random.verdict == "smaller" == better.metrics["mmd"].after_minus_before.verdict  # type: ignore[union-attr]
    for metric in ("mmd", "kid", "frechet"):
        one = figures(worse, metric)
        assert one.after.low > one.floor.high, metric  # type: ignore[operator]
    assert all(worse.per_class[name]["mmd"].after.value > better.per_class[name]["mmd"].after.value for name in CLASSES)  # type: ignore[operator]
    assert sentence(better).startswith(
        "To the real images the curated set is, by the metric encoder's MMD², nearer than random sets of its size ("
    )
    assert "farther than random sets" in sentence(worse) and "times as far" in sentence(worse) and "\n" not in sentence(worse)


def test_collapsed_variety_costs_recall_coverage_and_vendi_not_precision() -> None:
    narrow = measured(draw(240, 1, spread=0.25), draw(240, 2))
    for metric in ("recall", "coverage", "vendi"):
        one = figures(narrow, metric)
        assert one.after.high < one.floor.low, metric  # type: ignore[operator]
    assert figures(narrow, "precision").after.value > figures(narrow, "precision").floor.value  # type: ignore[operator]
    assert figures(narrow, "mmd").after.low > 0  # type: ignore[operator]
    lost = draw(240, 1)
    lost[0][lost[1] == 2] = lost[0][lost[1] == 2][0]  # one image again and again
    found = measured(lost, draw(240, 2))
    assert found.per_class["cow"]["mmd"].after_minus_random.verdict == "larger"  # type: ignore[union-attr]
    assert found.per_class["ant"]["mmd"].after_minus_random.verdict == "no different"  # type: ignore[union-attr]
    assert found.per_class["cow"]["coverage"].after.value < 0.5 < found.per_class["ant"]["coverage"].after.value  # type: ignore[operator]


def test_a_wrong_class_mix_shows_in_the_whole_and_not_in_the_classes() -> None:
    mixed = draw(240, 1, classes=[0] * 180 + [1] * 30 + [2] * 30)
    found = measured(mixed, draw(240, 2))
    assert found.metrics["mmd"].after_minus_random.verdict == "larger"  # type: ignore[union-attr]
    assert figures(found, "frechet").after.low > figures(found, "frechet").floor.high  # type: ignore[operator]
    for name in CLASSES:
        assert found.per_class[name]["mmd"].after_minus_random.verdict == "no different"  # type: ignore[union-attr]


def test_copies_of_real_images_are_seen() -> None:
    copied, real = draw(240, 1), draw(240, 99)
    copied[0][::2] = real[0][::2]
    found = measured(copied, draw(240, 2))
    assert figures(found, "copies1").after.value > 0.2 > figures(found, "copies1").floor.high  # type: ignore[operator]


def test_nearer_than_real_images_would_be_is_called_fitted() -> None:
    found = measured(draw(240, 99), draw(240, 2))  # the real images themselves
    mmd = figures(found, "mmd")
    assert mmd.after.value < mmd.floor.low and "so it is fitted to these very images" in sentence(found)  # type: ignore[operator]


def by_splits() -> list[str]:
    return [name for name, metric in metrics.METRICS.items() if metric.equal_sizes]


def mmd2_of_shift(distance: float, sigma: float) -> float:
    """Between two standard normal distributions whose means lie so far apart."""
    return 2 * (sigma**2 / (sigma**2 + 2)) ** (DIM / 2) * (1 - np.exp(-(distance**2) / (2 * (sigma**2 + 2))))  # type: ignore[no-any-return]


UNKNOWN = Distance(value=None, low=None, high=None, n=0, over="splits")
NOTHING = Distances(before=UNKNOWN, after=UNKNOWN, random=UNKNOWN, floor=UNKNOWN)


def test_intervals_of_differences_cover_about_as_often_as_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "median_sigma", lambda rows: 3.0)
    monkeypatch.setattr(gap_module, "_by_splits", lambda sides, num, seed: {name: [NOTHING] * 2 for name in by_splits()})
    truth = mmd2_of_shift(0.8, 3.0) - mmd2_of_shift(1.4, 3.0)
    hits, at_floor = [], []
    for turn in range(120):
        rng = np.random.default_rng(turn)
        one, other, real, further = (rng.standard_normal((50, DIM)) for _ in range(4))
        one[:, 0] += 0.8
        other[:, 0] += 1.4
        classes = np.zeros(50, np.int64)
        view = view_of([(rows.astype(np.float32), classes) for rows in (one, other, further)], (real.astype(np.float32), classes))
        kwargs: Any = {"classes": ["ant"], "before": np.arange(150), "seed": turn, "num_bootstrap": 300}
        mmd = measure_gap([view], after=np.arange(50), random=[np.arange(50, 100)], **kwargs).metrics["mmd"]
        assert mmd.after_minus_random is not None
        hits.append(mmd.after_minus_random.low <= truth <= mmd.after_minus_random.high)  # type: ignore[operator]
        null = measure_gap([view], after=np.arange(100, 150), random=[], **kwargs).metrics["mmd"]
        at_floor.append(null.floor.low <= null.after.value <= null.floor.high)  # type: ignore[operator]
    assert 0.90 <= np.mean(hits) <= 0.99
    assert 0.90 <= np.mean(at_floor) <= 0.99


def test_intervals_of_small_classes_cover_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "median_sigma", lambda rows: 3.0)
    monkeypatch.setattr(gap_module, "_by_splits", lambda sides, num, seed: {name: [NOTHING] * 11 for name in by_splits()})
    truth = mmd2_of_shift(0.8, 3.0) - mmd2_of_shift(1.4, 3.0)
    hits = []
    for turn in range(15):
        rng = np.random.default_rng(turn)
        one, other, real = (rng.standard_normal((10 * per_class, DIM)) for per_class in (4, 4, 50))
        one[:, 0] += 0.8
        other[:, 0] += 1.4
        of_four, of_fifty = np.repeat(np.arange(10), 4), np.repeat(np.arange(10), 50)
        view = view_of([(rows.astype(np.float32), of_four) for rows in (one, other)], (real.astype(np.float32), of_fifty))
        classes: Any = [str(number) for number in range(10)]
        found = measure_gap(
            [view], classes=classes, before=np.arange(80), after=np.arange(40), random=[np.arange(40, 80)], seed=turn, num_bootstrap=300
        )
        differences = [one.after_minus_random for one in (found.per_class[name]["mmd"] for name in classes)]
        hits += [one.low <= truth <= one.high for one in differences]  # type: ignore[union-attr, operator]
    assert 0.92 <= np.mean(hits) <= 0.995


def test_views_are_averaged_and_real_images_may_differ_between_them() -> None:
    after, other, real = draw(90, 1, shift=0.3), draw(90, 2), draw(180, 3)
    parts = [(real[0][start::2], real[1][start::2]) for start in (0, 1)]
    views = [view_of([after, other], part, prefix) for part, prefix in zip(parts, ("a", "b"), strict=True)]
    kwargs: Any = {"classes": CLASSES, "before": np.arange(180), "after": np.arange(90), "random": [np.arange(90, 180)], "seed": 0}
    both = measure_gap(views, num_bootstrap=50, num_splits=3, **kwargs)
    alone = [measure_gap([view], num_bootstrap=50, num_splits=3, **kwargs) for view in views]
    assert both.num_real == 180 and both.num_views == 2
    for metric in ("mmd", "kid"):
        mean = np.mean([figures(one, metric).after.value for one in alone])
        assert figures(both, metric).after.value == pytest.approx(mean)
    assert figures(both, "recall").after.n == 45


def test_one_image_in_two_views_has_one_weight() -> None:
    """The same view twice says nothing more, so the interval must not shrink."""
    view = view_of([draw(90, 1, shift=0.3), draw(90, 2)], draw(90, 3))
    kwargs: Any = {"classes": CLASSES, "before": np.arange(180), "after": np.arange(90), "random": [np.arange(90, 180)], "seed": 0}
    once, twice = (measure_gap(views, num_bootstrap=100, num_splits=2, **kwargs) for views in ([view], [view, view]))
    differences = [gap.metrics["mmd"].after_minus_random for gap in (twice, once)]
    assert differences[0] is not None and differences[1] is not None
    assert differences[0].model_dump() == pytest.approx(differences[1].model_dump())


def test_equal_input_equal_output_and_plain_json() -> None:
    one, again, other = (measured(draw(60, 1), draw(60, 2), seed=seed) for seed in (5, 5, 6))
    assert one == again and one != other
    assert Gap.model_validate(json.loads(json.dumps(one.model_dump(mode="json"), allow_nan=False))) == one
    assert set(one.metrics) == set(metrics.METRICS) == set(one.per_class["bee"]) | {"frechet", "vendi"} and list(one.per_class) == CLASSES


def test_keeping_everything_is_no_different() -> None:
    view = view_of([draw(90, 1)], draw(90, 2))
    rows = np.arange(90)
    found = measure_gap(
        [view], classes=CLASSES, before=rows, after=rows[::-1].copy(), random=[rows, rows], seed=0, num_bootstrap=50, num_splits=2
    )
    difference = found.metrics["mmd"].after_minus_before
    assert difference is not None and difference.verdict == "no different"
    assert (difference.value, difference.low, difference.high) == pytest.approx((0, 0, 0), abs=1e-6)


def test_large_sets_are_represented_by_some_of_their_images() -> None:
    whole, part = (measured(draw(600, 1, shift=0.4), draw(600, 2), num_real=300, most_images=limit) for limit in (2000, 150))
    one, few = figures(whole, "mmd"), figures(part, "mmd")
    assert (few.after.n, few.before.n, one.after.n) == (150, 150, 600)
    assert few.after.low < one.after.value < few.after.high  # type: ignore[operator]
    assert [part.per_class[name]["mmd"].after.n for name in CLASSES] == [50, 50, 50]


def test_what_can_not_be_measured_has_a_reason() -> None:
    """A class without curated images, one with a single real image, and one of which nothing is known."""
    pool = draw(90, 1)
    real = draw(41, 2, classes=[0] * 20 + [1] * 1 + [2] * 20)
    view = view_of([pool], real)
    view.pool_class_N[:3] = -1
    rows = np.flatnonzero(view.pool_class_N != 2)
    found = measure_gap(
        [view], classes=[*CLASSES, "dog"], before=np.arange(90), after=rows, random=[rows], seed=0, num_bootstrap=20, num_splits=2
    )
    json.dumps(found.model_dump(mode="json"), allow_nan=False)
    assert found.per_class["ant"]["mmd"].after.value is not None and found.metrics["mmd"].after.value is not None
    cow = found.per_class["cow"]["mmd"]
    assert cow.before.value is not None and cow.after.value is None and cow.after.n == 0
    assert cow.after.reason == "0 images beside 20 real ones in a view; each side needs 4"
    assert cow.after_minus_random is not None and cow.after_minus_random.verdict is None and cow.after_minus_random.reason
    assert found.per_class["bee"]["mmd"].before.value is None and found.per_class["dog"]["mmd"].before.value is None
    assert found.per_class["ant"]["recall"].after.value is not None and found.per_class["bee"]["recall"].after.reason


@pytest.mark.parametrize("num_real", [0, 1, 3])
def test_hardly_any_real_images_crash_nothing(num_real: int) -> None:
    found = measured(draw(30, 1), draw(30, 2), num_real=num_real)
    assert all(one.after.value is None and one.after.reason for one in found.metrics.values())
    assert "can't be said: 30 images beside" in sentence(found)


def test_nothing_kept_says_so() -> None:
    view = view_of([draw(30, 1)], draw(60, 2))
    none = np.zeros(0, np.int64)
    found = measure_gap([view], classes=CLASSES, before=np.arange(30), after=none, random=[none], seed=0, num_bootstrap=20, num_splits=2)
    assert found.metrics["mmd"].before.value is not None and found.metrics["mmd"].after.value is None
    assert sentence(found) == "Nothing was kept, so there is nothing to compare."
