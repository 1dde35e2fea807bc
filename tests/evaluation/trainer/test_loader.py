"""Images of a training set, resident or streamed."""

from __future__ import annotations

import pytest
import torch

from synthforge.recipe.evaluation import MixingConfig
from tests.evaluation.trainer.test_train import SHORT, outputs, training_set


@pytest.mark.parametrize("policy", ["pooled", "weighted", "synthetic-then-real", "split-norm"])
def test_streamed_images_train_as_resident_ones_do(policy: str) -> None:
    images, mixing = training_set(synthetic=80), MixingConfig(policy=policy)  # type: ignore[arg-type]
    streamed = SHORT.model_copy(update={"resident_gib": 0.0})
    assert torch.equal(outputs(SHORT, images, mixing), outputs(streamed, images, mixing))
