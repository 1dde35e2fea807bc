"""Classifiers cross-fitted on the reference."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from synthforge.data.reading import Example, Labelled
from synthforge.errors import ModelError, RequestError
from synthforge.features.encoders.config import FittedConfig
from synthforge.features.encoders.fitted import folds_of, without_fold
from synthforge.features.encoders.protocol import SEEN_DIGITS
from synthforge.progress import Reporter
from synthforge.training.config import LoopConfig
from tests.features.encoders.made import BUILTIN, digests, embedded, load, pictures, unseen

QUICK = FittedConfig(width=8, pixels=None, loop=LoopConfig(images=640, batch=32, learning_rate=3e-3, checks=4, compile=False))


@pytest.fixture(scope="module")
def some(digits: dict[str, Labelled]) -> Labelled:
    """A few images of four classes."""
    chosen = [example for example in digits["fit"].examples if example.class_name in "0123"]
    return Labelled(list("0123"), chosen).first_of_each(15)


def test_the_embedded_judge_names_digits_that_it_has_not_seen(digits: dict[str, Labelled], tmp_path: Path) -> None:
    for judge in load(BUILTIN[1], tmp_path):
        assert judge.classes == list("0123456789")
        assert (judge.embed_texts(["3"]), judge.logit_scale) == (None, None)
        for part in unseen(judge, digits):
            probability = judge.classify(embedded(judge, part))
            assert probability is not None
            assert np.allclose(probability.sum(axis=1), 1, atol=1e-5)
            found = np.array(judge.classes)[probability.argmax(axis=1)]
            assert np.mean(found == [example.class_name for example in part.examples]) > 0.9


def test_cross_fitting_sees_all_but_its_fold(some: Labelled, tmp_path: Path) -> None:
    encoders = load(QUICK.model_copy(update={"folds": 3}), tmp_path, reference=some)
    assert len(encoders) == 3
    for number, encoder in enumerate(encoders):
        assert encoder.seen == digests(some) - digests(without_fold(some, number, 3)[1])
    assert frozenset.union(*(encoder.seen for encoder in encoders)) == digests(some)
    assert not frozenset.intersection(*(encoder.seen for encoder in encoders))
    assert encoders[0].resolution == 8
    assert encoders[0].embed(pictures(2, 8)).shape == (2, encoders[0].dim)


def test_a_fit_is_found_again_whatever_the_order_and_made_again_alike(some: Labelled, tmp_path: Path) -> None:
    first = load(QUICK, tmp_path / "a", reference=some)
    (folder,) = (tmp_path / "a").glob("fitted-*")
    written = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    turned = Labelled(some.classes, some.examples[::-1])
    again = load(QUICK, tmp_path / "a", reference=turned)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == written
    elsewhere = load(QUICK, tmp_path / "b", reference=turned)
    identities = [[encoder.identity() for encoder in encoders] for encoders in (first, again, elsewhere)]
    assert identities[0] == identities[1] == identities[2]
    load(QUICK, tmp_path / "a", reference=Labelled(some.classes, some.examples[:-1]))
    load(QUICK.model_copy(update={"width": 16}), tmp_path / "a", reference=some)
    assert len(list((tmp_path / "a").glob("fitted-*"))) == 3
    (named, _) = load(FittedConfig(model=str(folder)), tmp_path)  # and as a model of its own
    assert named.identity() == first[0].identity()


class Cut(Reporter):
    """Breaks off while fitting, after so many images."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advance(self, num: int) -> None:
        self.left -= num
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_fit_goes_on_to_the_same_weights(some: Labelled, tmp_path: Path) -> None:
    whole = load(QUICK, tmp_path / "whole", reference=some)
    with pytest.raises(KeyboardInterrupt):
        load(QUICK, tmp_path / "cut", reference=some, reporter=Cut(640 + 400))
    (folder,) = (tmp_path / "cut").glob("fitted-*")
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == ["fold-0"]
    assert list(folder.glob(".fold-1.checkpoint.safetensors"))
    rest = Cut(10**9)
    cut = load(QUICK, tmp_path / "cut", reference=some, reporter=rest)
    assert 10**9 - rest.left < 640
    assert [encoder.identity() for encoder in cut] == [encoder.identity() for encoder in whole]
    assert not list(folder.glob(".fold-*"))


def test_folds_are_even_in_every_class_and_copies_stay_together(digits: dict[str, Labelled]) -> None:
    fit = digits["fit"].first_of_each(3)
    copies = [Example(f"{example.name} again", f"{example.key}-again", example.class_name, example.data) for example in fit.examples[:7]]
    other = [Example("x", "x", "9" if fit.examples[8].class_name != "9" else "8", fit.examples[8].data)]  # one file under two labels
    whole = Labelled(fit.classes, [*fit.examples, *copies, *other])
    folds = folds_of(whole, 2)
    assert folds[len(fit.examples) : -1] == folds[:7]
    assert folds[-1] == folds[8]
    counts = Counter((example.class_name, fold) for example, fold in zip(fit.examples, folds, strict=False))
    assert all(counts[name, fold] in (1, 2) for name in fit.classes for fold in (0, 1))
    assert abs(folds_of(fit, 2).count(0) - 15) <= 1


def test_a_class_with_one_image_is_known_to_one_classifier_only(some: Labelled, tmp_path: Path) -> None:
    rare = next(example for example in some.examples if example.class_name == "3")
    reference = Labelled(some.classes, [example for example in some.examples if example.class_name != "3"] + [rare])
    encoders = load(QUICK, tmp_path, reference=reference)
    assert sorted(map(len, (encoder.classes for encoder in encoders))) == [3, 4]
    for encoder in encoders:
        assert ("3" in encoder.classes) == (rare.sha256[:SEEN_DIGITS] in encoder.seen)
        probability = encoder.classify(embedded(encoder, reference))
        assert probability is not None
        assert probability.shape[1] == len(encoder.classes)


@pytest.mark.trains
def test_probabilities_are_those_of_equally_frequent_classes(digits: dict[str, Labelled], tmp_path: Path) -> None:
    """Of a class with a tenth of the images the classifier still finds most."""
    ones = [example for example in digits["fit"].examples if example.class_name == "1"]
    sevens = [example for example in digits["fit"].examples if example.class_name == "7"]
    reference = Labelled(["1", "7"], ones + sevens[:8])
    config = QUICK.model_copy(update={"loop": QUICK.loop.model_copy(update={"images": 3200})})
    encoder = load(config, tmp_path, reference=reference)[0]
    probability = encoder.classify(embedded(encoder, Labelled(["1", "7"], sevens[8:])))
    assert probability is not None
    assert np.mean(probability[:, encoder.classes.index("7")] > 0.5) > 0.8


def test_fitting_needs_real_images_and_enough_of_them(some: Labelled, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="judge: kind fitted needs real images"):
        load(QUICK, tmp_path, where="judge")
    with pytest.raises(RequestError, match="3 real images are too few for 2 folds"):
        load(QUICK, tmp_path, reference=Labelled(some.classes, some.examples[:3]))
    with pytest.raises(ModelError, match=r"encoder\.model: no fitted classifiers at nowhere"):
        load(FittedConfig(model="nowhere"), tmp_path)
