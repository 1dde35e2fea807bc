"""The bundled trainer: learns, is the same for the same seed, mixes as told, streams what it would hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from synthforge.errors import RequestError
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.run import evaluate
from synthforge.evaluation.trainer.loader import decoded
from synthforge.evaluation.trainer.mixing import Mixing
from synthforge.evaluation.trainer.models import build, filled_in
from synthforge.evaluation.trainer.train import TrainingSet, predict, train
from synthforge.recipe.evaluation import MixingConfig, TrainerConfig
from synthforge.training.networks import NormByParts, set_parts
from tests.evaluation.sets import digits, per_class, write

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


@pytest.mark.parametrize("policy", ["pooled", "weighted", "synthetic-then-real", "split-norm"])
def test_streamed_images_train_as_resident_ones_do(policy: str) -> None:
    images, mixing = training_set(synthetic=80), MixingConfig(policy=policy)  # type: ignore[arg-type]
    streamed = SHORT.model_copy(update={"resident_gib": 0.0})
    assert torch.equal(outputs(SHORT, images, mixing), outputs(streamed, images, mixing))


def test_every_policy_gives_another_network() -> None:
    images = training_set(synthetic=80)
    found = [
        outputs(SHORT, images, MixingConfig(policy=policy))  # type: ignore[arg-type]
        for policy in ("pooled", "weighted", "synthetic-then-real", "split-norm")
    ]
    assert all(not torch.equal(one, other) for number, one in enumerate(found) for other in found[:number])


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


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("timm") / "model.safetensors"
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), file)
    return file


@pytest.mark.parametrize("start", ["scratch", "probe", "fine-tune"])
def test_any_timm_model_from_scratch_as_a_probe_or_fine_tuned(start: str, weights: Path) -> None:
    pretrained = None if start == "scratch" else str(weights)
    config = TrainerConfig(
        network="test_resnet",
        pretrained=pretrained,
        start=start,
        resolution=32,
        steps=8,
        batch=8,
        learning_rate=1e-3,  # type: ignore[arg-type]
    )
    network = train(filled_in(config, 8), MixingConfig(policy="pooled"), training_set(40), 10, 0, CPU)
    test = digits("validation")[:20]
    truth = np.array([int(example.class_name) for example in test])
    found = predict(network, decoded([one.data for one in test], 32), truth, CPU)
    assert np.allclose(found.confidence_V >= found.probability_V, True)
    trained = {name: value for name, value in network.state_dict().items() if name.startswith("backbone.network.")}
    if start == "probe":
        before = timm.create_model("test_resnet", pretrained=False, num_classes=0).state_dict()
        assert trained.keys() == {f"backbone.network.{name}" for name in before}
        plain = build(filled_in(config, 8), 10, "batch").state_dict()
        assert all(torch.equal(value, plain[name]) for name, value in trained.items())
    else:
        assert not trained


def test_what_a_network_cannot_take_is_said() -> None:
    with pytest.raises(RequestError, match="split-norm is for the residual network"):
        build(TrainerConfig(network="test_resnet", resolution=32), 10, "parts")
    with pytest.raises(RequestError, match=r"test_vit can't take images of 12 px|test_vit"):
        filled_in(TrainerConfig(network="test_vit", resolution=12), 8)
    with pytest.raises(RequestError, match="nonesuch"):
        filled_in(TrainerConfig(network="nonesuch"), 8)
    with pytest.raises(ValueError, match="fine-tune needs a network with pretrained weights"):
        TrainerConfig(start="fine-tune")


def test_resolution_is_that_of_the_images_up_to_64() -> None:
    assert [filled_in(TrainerConfig(), size).resolution for size in (5, 8, 30, 64, 500)] == [8, 8, 28, 64, 64]


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


@pytest.mark.trains
@pytest.mark.slow
def test_on_few_real_digits_the_tuned_baseline_is_not_below_a_tuned_support_vector_classifier(tmp_path: Path) -> None:
    """50 of each class, by `evaluate --arms real` as anybody would ask it."""
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    real, test = per_class(digits(), 0, 50), digits("holdout")
    labels, truth = (np.array([int(example.class_name) for example in part]) for part in (real, test))
    pixels, unseen = (decoded([example.data for example in part], 8)[:, 0].reshape(len(part), -1) / 255 for part in (real, test))
    of_svc = GridSearchCV(SVC(), {"C": [1, 10, 100], "gamma": ["scale", 0.02, 0.1, 0.3]}, cv=5).fit(pixels, labels).score(unseen, truth)
    write(tmp_path / "real" / "fit", real)
    write(tmp_path / "real" / "validation", digits("validation")[:50])
    request = evaluation_of(
        None,
        real=str(tmp_path / "real"),
        holdout=str(write(tmp_path / "holdout", test)),
        arms="real",
        out=str(tmp_path / "evaluation.json"),
        sets=[
            *("real_per_class=[50]", "curve=[50]", "seeds=2", "steps_check=false", "workers=1"),
            *("trainer.steps=300", "trainer.batch=32", "trainer.width=16"),
            *("tuning.augmentations=[affine]", "tuning.flip=[false]", "tuning.folds=2"),
        ],
    )
    result = evaluate(replace(request, folder=tmp_path / "work"))
    assert result.curve[0].accuracy.value >= of_svc


def test_a_share_near_nothing_or_all_leaves_one_image_of_each() -> None:
    for share, num_synthetic in ((0.005, 1), (0.995, 15)):
        assert int((mixed("weighted", share=share).rows(0) >= 10).sum()) == num_synthetic
