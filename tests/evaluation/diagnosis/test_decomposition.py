"""What synthetic images lose their accuracy by: arms that differ in one thing, and what is said of them."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageFilter

from synthforge.data.reading import Example
from synthforge.errors import RequestError
from synthforge.evaluation.diagnosis.decomposition import (
    BY_CHANCE,
    LabelFiltered,
    Repeated,
    RepeatedAtRandom,
    content_weights,
    doubts,
    losses,
    variety,
)
from synthforge.evaluation.diagnosis.run import diagnose
from synthforge.evaluation.diagnosis.words import _unshown, advice_of, verdict_of
from synthforge.evaluation.request import diagnosis_of
from synthforge.evaluation.results.types import DiagnoseResult
from synthforge.evaluation.sets import Images
from tests.conftest import DIGITS, Ran, small
from tests.evaluation.sets import QUICK, digits, per_class, write

Cli = Callable[..., Ran]
SETTINGS = [*QUICK, "trainer.steps=150", "seeds=3"]


def some_images(num: int = 40, classes: int = 2) -> Images:
    labels = np.arange(num) % classes
    return Images("", np.arange(num), labels, np.array([f"{row}" for row in range(num)], object), True, np.ones(num))


def random_features(num: int, seed: int, centre: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(centre, 1, (num, 4)).astype(np.float32)


def test_images_of_equal_weight_are_taken_once_each() -> None:
    images = Repeated(**some_images().__dict__)
    taken = images.draw(np.array([20, 20]), (0, 1))
    assert taken.row_N.tolist() == list(range(40))
    assert Repeated(**some_images().__dict__).reach(3).tolist()[2] == 0


@pytest.mark.parametrize("wanted", [20, 12])
def test_without_weights_the_arms_are_those_that_they_are_compared_with(wanted: int) -> None:
    real, pool, asked, seed = some_images(), some_images(400), np.array([wanted, wanted]), (3, 1)
    assert Repeated(**real.__dict__).draw(asked, seed).row_N.tolist() == real.draw(asked, seed).row_N.tolist()
    repeated = RepeatedAtRandom.like(pool, np.ones(400, np.bool_), real).draw(asked, seed)
    assert repeated.row_N.tolist() == LabelFiltered(**pool.__dict__).draw(asked, seed).row_N.tolist()


def test_images_are_repeated_as_their_weights_say() -> None:
    weight = np.where(np.arange(40) < 20, 2.0, 0.0)
    taken = Repeated(**{**some_images().__dict__, "weight_N": weight}).draw(np.array([20, 20]), (0, 1))
    assert Counter(taken.row_N.tolist()) == dict.fromkeys(range(20), 2)
    assert taken.per_class(2).tolist() == [20, 20] and (taken.weight_N == 1).all()


@pytest.mark.parametrize("num", [400, 30])
def test_of_the_label_filtered_images_some_are_repeated_as_others_are(num: int) -> None:
    pool, real, wanted, seed = some_images(num), some_images(), np.array([20, 20]), (3, 1)
    passes_filter = np.arange(num) % 5 > 0
    filtered = LabelFiltered(**{**pool.__dict__, "weight_N": passes_filter.astype(float)}).draw(wanted, seed)
    weighted = replace(real, weight_N=np.where(np.arange(40) < 20, 2.0, 0.0))
    repeated = RepeatedAtRandom.like(pool, passes_filter, weighted).draw(wanted, seed)
    assert Counter(Counter(repeated.row_N.tolist()).values()) == {2: 20}
    assert set(repeated.row_N) <= set(filtered.row_N)
    alike = RepeatedAtRandom.like(pool, passes_filter, real).draw(wanted, seed)
    assert set(alike.row_N) == set(filtered.row_N)
    if num > 40:  # nothing is repeated, so nothing is lost
        assert alike.row_N.tolist() == filtered.row_N.tolist()


def test_weights_of_copies_of_holdout_images_go_to_others() -> None:
    pool, passes_filter = some_images(60), np.arange(60) != 4
    source = RepeatedAtRandom.like(pool, passes_filter, replace(some_images(), weight_N=np.where(np.arange(40) < 20, 2.0, 0.0)))
    source = source.usable({f"{row}": True for row in range(20)})
    assert source.weight_N[source.weight_N > 0].tolist() == [2.0] * 20
    taken = source.draw(np.array([20, 20]), (0, 0))
    assert Counter(Counter(taken.row_N.tolist()).values()) == {2: 20}
    assert min(taken.row_N) >= 20


def test_a_difference_of_differences_varies_more_than_one() -> None:
    correct = outcomes(real=0.9, random=0.9, label_filtered=0.9, repeated=0.9, resampled=0.9)
    one, _ = losses([correct], 0.005)
    ends = {name: part.loss.high - part.loss.low for name, part in one.parts.items() if part.loss is not None}
    assert ends["content"] == pytest.approx(2 * ends["labels"], rel=0.01)


def test_label_filtered_images_are_the_random_ones_but_for_those_that_are_doubted() -> None:
    pool = some_images(400)
    random = pool.draw(np.array([20, 20]), (3, 1))
    assert LabelFiltered(**pool.__dict__).draw(np.array([20, 20]), (3, 1)).row_N.tolist() == random.row_N.tolist()
    weight = np.ones(400)
    weight[random.row_N[:5]] = 0
    filtered = LabelFiltered(**{**pool.__dict__, "weight_N": weight}).draw(np.array([20, 20]), (3, 1))
    assert len(set(filtered.row_N) & set(random.row_N)) == 35
    assert not set(filtered.row_N) & set(random.row_N[:5])


def test_real_images_of_a_kind_that_the_pool_lacks_weigh_nothing() -> None:
    real = np.concatenate([random_features(30, 0), random_features(30, 1, centre=8)])
    weight, by_chance = content_weights(real, np.zeros(60, np.int64), random_features(300, 2), np.zeros(300, np.int64))
    assert weight[30:].max() == 0
    assert weight.mean() == pytest.approx(1)
    assert by_chance == {0: 0.01}


def test_a_mix_of_kinds_like_the_real_one_gives_no_weights() -> None:
    classes, of_pool = np.arange(600) % 20, np.arange(4000) % 20
    weight, by_chance = content_weights(random_features(600, 0), classes, random_features(4000, 2), of_pool)
    assert len(by_chance) == 20
    assert np.mean([p_value <= BY_CHANCE for p_value in by_chance.values()]) <= 0.2  # of 20 that have it by chance, 1 in 20
    unshown = [number for number, p_value in by_chance.items() if p_value > BY_CHANCE]
    assert (weight[np.isin(classes, unshown)] == 1).all()


def test_what_is_not_trained_for_is_no_zero_with_an_interval() -> None:
    arms = outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.7, resampled=0.9)
    one, mean = losses([arms], 0.005, [{"content"}])
    assert one.parts["content"].verdict == mean.parts["content"].verdict == "not shown"
    assert one.parts["content"].loss is None
    assert one.parts["labels"].verdict == "cannot tell"  # its arms were trained, and agree
    assert one.parts["rest"].verdict == "loss"


def test_nothing_is_shown_where_there_are_too_few_images_to_ask() -> None:
    def known(**facts: float) -> Any:
        return SimpleNamespace(facts=facts)

    assert _unshown([known(doubted=0.1), known(doubted=0.0, differing=0.0)]) == {"content", "interaction"}
    assert _unshown([known(doubted=0.0, differing=0.3)]) == {"labels"}
    assert _unshown([known()]) == set()  # nothing is known


def test_in_the_mean_a_part_counts_as_nothing_where_it_is_not_shown() -> None:
    arms = outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.7, resampled=0.7)
    alike = {**arms, "resampled": arms["real"]}
    first, second, mean = losses([alike, arms], 0.005, [{"content"}, set()])
    assert first.parts["content"].loss is None and second.parts["content"].loss is not None and mean.parts["content"].loss is not None
    assert mean.parts["content"].loss.value == pytest.approx(second.parts["content"].loss.value / 2, abs=1e-3)


def test_classes_that_overlap_wholly_are_not_doubted() -> None:
    classes, of_pool = np.arange(600) % 20, np.arange(1000) % 20
    found = doubts(random_features(600, 0), classes, random_features(1000, 1), of_pool, 10, 0.02)
    assert found.share < 0.02


def test_classes_of_which_there_are_too_few_images_keep_their_weights() -> None:
    of_pool = np.array([0] + [1] * 39)
    weight, by_chance = content_weights(random_features(12, 0), np.array([0] * 10 + [1, 1]), random_features(40, 1), of_pool)
    assert weight.tolist() == [1.0] * 12
    assert by_chance == {}


def test_wrong_labels_are_doubted_and_right_ones_are_not() -> None:
    centres = np.repeat([[0.0] * 4, [6.0] * 4], 100, axis=0)
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    shown = labels.copy()
    shown[:30] = 1
    found = doubts(centres + rng.normal(0, 1, (200, 4)), labels, centres + rng.normal(0, 1, (200, 4)), shown, 10, 0.02)
    assert found.doubted_M[:30].all()
    assert found.doubted_M[30:].sum() <= 2
    assert found.p_value < 1e-6
    assert doubts(centres + rng.normal(0, 1, (200, 4)), labels, centres + rng.normal(0, 1, (200, 4)), labels, 10, 0.02).p_value > 0.01


def test_wrong_labels_are_doubted_where_some_real_images_look_like_another_class() -> None:
    rng = np.random.default_rng(0)

    def some(num: int) -> tuple[np.ndarray, np.ndarray]:
        labels = np.arange(num) % 2
        lies_there = rng.random(num) < 0.06
        return 6.0 * (labels ^ lies_there)[:, None] + rng.normal(0, 1, (num, 4)), labels

    (real, labels), (pool, of_pool) = some(400), some(800)
    shown = of_pool.copy()
    shown[:240] = 1 - of_pool[:240]
    found = doubts(real, labels, pool, shown, 10, 0.02)
    assert found.doubted_M[:240].mean() > 0.4  # of others one of ten neighbours is such an image, which votes for their label
    assert found.doubted_M[240:].mean() < 0.1
    assert found.p_value < 1e-6
    assert doubts(real, labels, pool, of_pool, 10, 0.02).share == 0  # there are as many as among the real ones


def test_a_class_of_few_images_is_not_doubted_for_being_small() -> None:
    classes = np.array([0] * 400 + [1] * 8)
    centres = np.where(classes[:, None] == 1, 2.0, 0.0) * np.ones((1, 4))
    rng = np.random.default_rng(0)
    found = doubts(centres + rng.normal(0, 1, (408, 4)), classes, centres + rng.normal(0, 1, (408, 4)), classes, 10, 0.02)
    assert found.doubted_M[classes == 1].mean() < 0.8
    assert found.doubted_M[classes == 0].mean() < 0.06


@pytest.mark.slow
def test_real_images_are_cut_to_the_size_of_a_small_pool(tmp_path: Path) -> None:
    found = planted(tmp_path, per_class(digits(), 25, 35))
    assert any("every arm takes no more" in note for note in found.notes)
    training_sets = [pq.read_table(path) for path in (tmp_path / "evaluation" / "sets").glob("*.parquet")]
    assert any(len(table) == 100 and all(table["is_real"].to_pylist()) for table in training_sets)


def test_a_pool_of_near_copies_has_less_variety() -> None:
    classes = np.zeros(60, np.int64)
    copies = np.repeat(random_features(6, 3), 10, axis=0) + 0.01 * random_features(60, 4)
    assert variety(random_features(60, 0), classes, random_features(60, 1), classes) == pytest.approx(1, abs=0.15)
    assert variety(random_features(60, 0), classes, copies, classes) < 0.3


def outcomes(**accuracy: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    common = rng.random((4, 2, 300))
    return {name.replace("_", "-"): (common < value).astype(np.float64) for name, value in accuracy.items()}


def test_parts_add_up_to_the_whole_loss_and_are_named() -> None:
    arms = outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.65, rendered=0.9, resampled=0.65, rendered_resampled=0.65)
    one, mean = losses([arms], 0.005)
    values = {name: part.loss.value for name, part in one.parts.items() if part.loss is not None}
    assert one.whole.loss is not None
    assert sum(values.values()) == pytest.approx(one.whole.loss.value, abs=1e-4)
    assert {name for name, part in one.parts.items() if part.verdict == "loss"} == {"content"}
    assert one.parts["content"].share is not None and one.parts["content"].share.value == pytest.approx(1)
    assert mean == one


def one_draw(rng: np.random.Generator, by_draw: float, loss: float = 0.0, seeds: int = 5, taken: float = 0.3) -> dict[str, np.ndarray]:
    """Arms of one draw, 1,500 images: accuracy varies by the real images that were drawn, and by what each seed takes of the pool."""
    real = np.full((1, seeds, 1), 0.8 + by_draw * rng.standard_normal())
    pool = 0.8 - loss + by_draw * (1 - taken) ** 0.5 * rng.standard_normal((1, seeds, 1))
    arms = {"real": real, "resampled": real, "random": pool, "repeated": pool, "label-filtered": pool}
    return {name: np.broadcast_to(value, (1, seeds, 1500)) for name, value in arms.items()}


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_with_one_draw_lucky_real_images_are_no_loss(seeds: int) -> None:
    def without_zero(taken: float, loss: float) -> float:
        """How often the interval does not hold 0."""
        rng = np.random.default_rng(0)
        found = [losses([one_draw(rng, 0.03, loss, seeds)], 0.005, [], [taken])[1].whole.loss for _ in range(200)]
        return float(np.mean([one is not None and not one.low <= 0 <= one.high for one in found]))

    assert without_zero(0.3, 0.0) <= 0.075
    assert without_zero(1.0, 0.0) >= 0.1  # where the pool does not tell how draws vary, the interval is about these images
    assert without_zero(0.3, 0.6) >= 0.8


def test_other_real_images_widen_only_the_whole_and_the_rest() -> None:
    arms = one_draw(np.random.default_rng(1), 0.03, 0.1)
    narrow, wide = (losses([arms], 0.005, [], [taken])[0] for taken in (1.0, 0.3))
    widths = [
        {name: part.loss.high - part.loss.low for name, part in [("whole", one.whole), *one.parts.items()] if part.loss is not None}
        for one in (narrow, wide)
    ]
    assert {name for name in widths[0] if widths[1][name] > widths[0][name]} == {"whole", "rest"}
    alike = losses([outcomes(real=0.9, random=0.7)], 0.005, [], [0.3])  # more than one draw: these tell
    assert alike == losses([outcomes(real=0.9, random=0.7)], 0.005)


def test_without_renderings_appearance_is_not_measured_and_the_rest_takes_it() -> None:
    one, _ = losses([outcomes(real=0.9, random=0.7, label_filtered=0.7, repeated=0.65, resampled=0.85)], 0.005)
    assert {name for name, part in one.parts.items() if part.loss is None} == {"appearance", "interaction"}
    assert one.parts["rest"].verdict == "loss"


def test_parts_of_the_mean_add_up_where_one_setting_lacks_an_arm() -> None:
    few = {"real": 0.9, "random": 0.7, "label-filtered": 0.7}
    *_, mean = losses([outcomes(**few), outcomes(**few, rendered=0.8)], 0.005)
    assert mean.whole.loss is not None
    told = [part.loss.value for part in mean.parts.values() if part.loss is not None]
    assert sum(told) == pytest.approx(mean.whole.loss.value, abs=1e-4)
    assert mean.parts["appearance"].loss is None


def blurred(examples: Sequence[Example]) -> list[Example]:
    found = []
    for example in examples:
        buffer = io.BytesIO()
        Image.open(io.BytesIO(example.data)).convert("L").filter(ImageFilter.GaussianBlur(0.7)).save(buffer, "PNG")
        found.append(Example(example.name, example.key, example.class_name, buffer.getvalue()))
    return found


def one_sided(examples: Sequence[Example]) -> list[Example]:
    """Of each class the third that lies lowest along its first principal component."""
    found = []
    for name in sorted({example.class_name for example in examples}):
        of_class = [example for example in examples if example.class_name == name]
        pixels = np.stack([np.asarray(Image.open(io.BytesIO(example.data)).convert("L"), float).ravel() for example in of_class])
        pixels -= pixels.mean(axis=0)
        along = pixels @ np.linalg.svd(pixels, full_matrices=False)[2][0]
        found += [of_class[place] for place in np.argsort(along)[: len(of_class) // 3]]
    return found


def planted(
    place: Path,
    pool: Sequence[Example],
    rendered: Sequence[Example] | None = None,
    wrong: float = 0.0,
    real: Sequence[Example] | None = None,
) -> DiagnoseResult:
    """Diagnose a pool beside 20 real digits of each class, and 5 for validation; the first ones unless others are given."""
    write(place / "real", real if real is not None else per_class(digits(), 0, 25))
    write(place / "pool", pool, wrong)
    write(place / "holdout", digits("holdout"))
    if rendered is not None:
        write(place / "rendered", rendered)
    return diagnose(
        diagnosis_of(
            None,
            synthetic=str(place / "pool"),
            real=str(place / "real"),
            holdout=str(place / "holdout"),
            rendered=str(place / "rendered") if rendered is not None else None,
            out=str(place / "diagnosis.json"),
            sets=SETTINGS,
        )
    )


@pytest.mark.slow
def test_a_blurred_pool_lacks_appearance(tmp_path: Path) -> None:
    found = planted(tmp_path, blurred(per_class(digits(), 25, 79)), blurred(per_class(digits(), 0, 25)))
    loss = found.tables[0].settings[0].loss
    assert loss.whole.loss is not None and loss.parts["appearance"].loss is not None
    assert loss.parts["appearance"].loss.value >= 0.8 * loss.whole.loss.value > 0.02
    assert "appearance" in found.verdict
    assert found.advice[0].cause == "appearance"


@pytest.mark.slow
def test_a_pool_of_some_kinds_only_lacks_content(tmp_path: Path) -> None:
    mixed = [example for start in range(3) for example in [*per_class(digits(), 0, 75)][start::3]]  # neighbours are of the same hands
    real, others = per_class(mixed, 0, 25), per_class(mixed, 25, 75)
    found = planted(tmp_path, one_sided(others), real, real=real)
    loss = found.tables[0].settings[0].loss
    assert loss.whole.loss is not None and loss.parts["content"].loss is not None
    assert loss.parts["content"].loss.value >= 0.6 * loss.whole.loss.value > 0.02  # `benchmarks/diagnosis.py` measures how much it is
    assert max((part.loss.value, name) for name, part in loss.parts.items() if part.loss is not None)[1] == "content"


@pytest.mark.slow
def test_a_pool_with_wrong_labels_is_named_as_such(tmp_path: Path) -> None:
    found = planted(tmp_path, per_class(digits(), 25, 79), None, 0.4)
    setting = found.tables[0].settings[0]
    assert setting.facts is not None and 0.3 < setting.facts.doubted < 0.5
    assert setting.loss.parts["labels"].verdict == "loss"
    assert "wrong labels" in found.verdict
    assert "look like another class" in setting.sentence
    assert any(one.cause == "labels" for one in found.advice)
    assert setting.loss.parts["appearance"].loss is None
    assert any("appearance can't be measured without the generator" in note for note in found.notes)


@pytest.mark.slow
def test_a_class_of_which_all_images_show_another_keeps_labels_measurable(tmp_path: Path) -> None:
    others = per_class(digits(), 25, 65)
    eights = iter(per_class([one for one in digits() if one.class_name == "8"], 25, 65))
    shown = [replace(next(eights), class_name="3") if one.class_name == "3" else one for one in others if one.class_name != "8"]
    found = planted(tmp_path, [*shown, *(one for one in others if one.class_name == "8")])
    (setting,) = found.tables[0].settings
    assert any("no image of class 3" in note for note in found.notes)
    assert setting.loss.parts["labels"].verdict != "not measured"
    assert setting.facts is not None and 0.05 < setting.facts.doubted < 0.3
    assert any(one.cause == "labels" for one in found.advice)


@pytest.mark.slow
def test_a_pool_of_real_images_loses_nothing(tmp_path: Path) -> None:
    found = planted(tmp_path, per_class(digits(), 25, 79), per_class(digits(), 0, 25))
    loss = found.tables[0].settings[0].loss
    assert loss.whole.verdict != "loss"
    assert all(part.verdict != "loss" for part in loss.parts.values())
    assert loss.parts["appearance"].loss is not None and loss.parts["appearance"].loss.value == 0
    assert found.tables[0].covers_real_images
    assert any("allow for others too, as if" in note for note in found.notes)


def test_the_recipes_generator_renders_the_real_images_and_a_second_time_nothing_is_trained(tmp_path: Path, cli: Cli) -> None:
    few = ["diagnosis.real_per_class=[5]", "evaluation.seeds=2"]
    sets = [
        *small(tmp_path, total=100, per_shard=50),
        *[f"evaluation.{text}" for text in QUICK],
        f"curation.cache={tmp_path / 'cache'}",
        *few,
    ]
    ran = cli("diagnose", DIGITS, *[part for text in sets for part in ("--set", text)], "--json")
    assert ran.status == 0, ran.err
    found = ran.json
    (table,) = found["tables"]
    (setting,) = table["settings"]
    assert table["origin"] == "own"
    assert set(setting["accuracy"]) == {
        "real", "random", "label-filtered", "repeated", "rendered", "resampled", "rendered-resampled",
    }  # fmt: skip
    assert setting["facts"]["recognised"] > 0.8
    assert setting["missing"] == {}
    assert json.loads((tmp_path / "diagnosis.json").read_text())["verdict"] == found["verdict"]
    trainings = sorted(path.stat().st_mtime_ns for path in (tmp_path / "evaluation" / "trainings").iterdir())
    again = diagnose(diagnosis_of(str(DIGITS), sets=sets))
    assert again.verdict == found["verdict"]
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "evaluation" / "trainings").iterdir()) == trainings


def test_wrong_requests_are_told_before_anything_is_made(tmp_path: Path, cli: Cli) -> None:
    for arguments, told in [
        ((), "give a recipe, or --synthetic SET"),
        ((DIGITS, "--rendered", tmp_path), "--rendered is for --synthetic sets"),
        (("--synthetic", tmp_path, "--real", tmp_path / "real"), "which real images are to measure it?"),
        ((DIGITS, "--set", "diagnosis.strength=2"), "diagnosis.strength"),
        ((DIGITS, "--set", "diagnosis.strenth=0.5"), "did you mean"),
    ]:
        ran = cli("diagnose", *arguments)
        assert ran.status == 2
        assert told in ran.err, ran.err
        assert "Traceback" not in ran.err


def test_renderings_that_have_no_real_images_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "rendered" / "elsewhere", per_class(digits(), 0, 2))
    with pytest.raises(RequestError, match="0% of the real images have one of the same name"):
        planted(tmp_path, per_class(digits(), 25, 50), [])


def test_without_any_table_nothing_is_claimed() -> None:
    assert "Nothing could be compared" in verdict_of([])
    assert advice_of([]) == []
