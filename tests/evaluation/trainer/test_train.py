"""The bundled trainer learns, and gives the same network for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from synthforge.evaluation.trainer.loader import decoded
from synthforge.evaluation.trainer.train import TrainingSet, predict, train
from synthforge.recipe.evaluation import MixingConfig, TrainerConfig
from synthforge.training.networks import NormByParts, set_parts
from tests.evaluation.sets import digits

CPU = torch.device("cpu")
SHORT = TrainerConfig(resolution=8, steps=60, batch=32, width=8, learning_rate=1e-2)


def training_set(num: int = 200, synthetic: int = 0) -> TrainingSet:
    """The first digits; the last so many of them are called synthetic."""
    examples = digits()[:num]
    files = [example.data for example in examples]
    labels = np.array([int(example.class_name) for example in examples])
    is_real = np.arange(num) < num - synthetic
    return TrainingSet(labels, is_real, np.ones(num), lambda rows: [files[row] for row in rows])


def outputs(config: TrainerConfig, images: TrainingSet, mixing: MixingConfig | None = None, seed: int = 0) -> torch.Tensor:
    network = train(config, mixing or MixingConfig(), images, 10, seed, CPU)
    test = torch.from_numpy(decoded(images.gather(np.arange(20)), 8)).float() / 127.5 - 1
    with torch.inference_mode():
        found: torch.Tensor = network(test)
    return found


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    first = outputs(SHORT, training_set())
    assert torch.equal(first, outputs(SHORT, training_set()))
    assert not torch.equal(first, outputs(SHORT, training_set(), seed=1))


def test_every_policy_gives_another_network() -> None:
    images = training_set(synthetic=80)
    found = [
        outputs(SHORT, images, MixingConfig(policy=policy))  # type: ignore[arg-type]
        for policy in ("pooled", "weighted", "synthetic-then-real", "split-norm")
    ]
    assert all(not torch.equal(one, other) for number, one in enumerate(found) for other in found[:number])


@pytest.mark.trains
def test_images_of_weight_nothing_teach_nothing() -> None:
    """Half of the labels are wrong, and those images weigh nothing."""
    images = training_set(400)
    wrong = np.arange(400) % 2 == 1
    labels = np.where(wrong, (images.label_N + 5) % 10, images.label_N)
    config = SHORT.model_copy(update={"steps": 250, "width": 16})

    def accuracy(weight_N: np.ndarray) -> float:
        network = train(config, MixingConfig(), TrainingSet(labels, images.is_real_N, weight_N, images.gather), 10, 0, CPU)
        test = digits("validation")
        truth = np.array([int(example.class_name) for example in test])
        return float((predict(network, decoded([one.data for one in test], 8), truth, CPU).predicted_V == truth).mean())

    assert accuracy(np.where(wrong, 0.0, 1.0)) > accuracy(np.ones(400)) + 0.2


def test_batch_norm_by_parts_keeps_domains_apart() -> None:
    layer = NormByParts(3).train()
    set_parts(layer, 4)
    batch = torch.randn(8, 3, 2, 2)
    shifted = batch.clone()
    shifted[4:] += 100
    assert torch.allclose(layer(batch)[:4], layer(shifted)[:4])
    assert torch.allclose(layer(batch)[4:], layer(shifted)[4:], atol=1e-4)


@pytest.mark.trains
@pytest.mark.slow
def test_on_all_real_digits_it_beats_a_support_vector_classifier() -> None:
    from sklearn.svm import SVC

    real, test = [*digits(), *digits("validation")], digits("holdout")
    labels, truth = (np.array([int(example.class_name) for example in part]) for part in (real, test))
    pixels, unseen = (decoded([example.data for example in part], 8)[:, 0].reshape(len(part), -1) / 255 for part in (real, test))
    of_svc = max(
        float(SVC(C=c, gamma=gamma).fit(pixels, labels).score(unseen, truth)) for c in (1, 10, 100) for gamma in ("scale", 0.02, 0.1)
    )  # the best of all on the holdout itself
    files = [example.data for example in real]
    images = TrainingSet(labels, np.ones(len(real), np.bool_), np.ones(len(real)), lambda rows: [files[row] for row in rows])
    network = train(TrainerConfig(resolution=8, width=16, steps=1000, learning_rate=1e-2), MixingConfig(), images, 10, 0, CPU)
    found = predict(network, decoded([example.data for example in test], 8), truth, CPU)
    assert float((found.predicted_V == truth).mean()) > of_svc
