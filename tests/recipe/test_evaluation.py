"""Settings of an evaluation and a diagnosis."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.recipe.evaluation import DEFAULT_ARMS, ArmConfig, DiagnosisConfig, EvaluationConfig, MixingConfig, TrainerConfig


def test_the_short_form_of_an_arm_names_its_sources() -> None:
    arm = ArmConfig.model_validate("real + curated")
    assert (arm.of, arm.regime) == (["real", "curated"], "da")
    assert ArmConfig.model_validate("curated").regime == "s2r"
    with pytest.raises(ValidationError, match="a source is empty or given twice"):
        ArmConfig.model_validate("real+real")


def test_curated_sources_differ_by_rule_and_regime_and_others_do_not() -> None:
    alone, beside = ArmConfig.model_validate("curated"), ArmConfig.model_validate("real+curated")
    other = ArmConfig(name="x", of=["curated"], selection="nearest")
    assert len({arm.key_of("curated") for arm in (alone, beside, other)}) == 3
    assert alone.key_of("random") == beside.key_of("random") == "random"


def test_the_default_share_depends_on_the_policy() -> None:
    shares = {policy: MixingConfig(policy=policy).synthetic_share for policy in ("weighted", "synthetic-then-real")}  # type: ignore[arg-type]
    assert shares == {"weighted": 0.5, "synthetic-then-real": 0.45} and MixingConfig(share=0.2).synthetic_share == 0.2


@pytest.mark.parametrize("amount", [0, -1, True, "some", 2.5, 10**8])
def test_an_amount_is_a_number_or_all_and_a_mistake_is_told_once(amount: Any) -> None:
    with pytest.raises(ValidationError, match="or all") as caught:
        DiagnosisConfig(real_per_class=[amount])
    assert caught.value.error_count() == 1
    assert DiagnosisConfig(real_per_class=[5, "all"]).real_per_class == [5, "all"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"start": "probe"}, "needs a network with pretrained weights"),
        ({"pretrained": "w.safetensors", "network": "resnet18"}, "would not be used"),
        ({"resolution": 66}, "8 to 64 px"),
        ({"resolution": 30}, "in steps of 4"),
    ],
)
def test_a_classifier_whose_settings_do_not_go_together(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        TrainerConfig(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"real_per_class": [5, 5]}, "real_per_class: a value is given twice"),
        ({"synthetic_per_real": [1.0, 1.0]}, "synthetic_per_real: a value is given twice"),
        ({"generators": "g-{amount}", "fit": PixelFitConfig()}, "can't be combined with fit"),
        ({"generators": "g"}, r"write \{amount\}"),
    ],
)
def test_an_evaluation_whose_settings_do_not_go_together(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        EvaluationConfig(**fields)


def test_default_arms_have_different_names_and_known_sources() -> None:
    arms = EvaluationConfig().arms
    assert [arm.name for arm in arms] == list(DEFAULT_ARMS)
    assert {source for arm in arms for source in arm.of} == {"real", "random", "curated", "more", "more-curated"}
