"""How much of a prompt pipelines use, and when they use a negative prompt: what is said equals what they do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import save_file

from synthforge.generators.config import RealGuidanceConfig
from synthforge.generators.pipelines.config import TextualInversionConfig
from synthforge.generators.pipelines.prompts import text_limit, unheard_negative, with_room_for
from tests import tiny_models
from tests.generators.pipelines.made import config_for, loaded, requests_for, sampling_for

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

WORDS = "one two three four five six seven eight nine ten " * 10
"""500 characters; the tiny tokenizers make one token of each letter, and that of T5 one of each word's beginning."""


def images(name: str, models: Path, prompts: list[str], negative: str | None = None, sampling: Any = None, **changes: Any) -> np.ndarray:
    sampling = sampling or sampling_for(name)
    generator = loaded(config_for(name, models, **changes), sampling)
    return generator.sample(generator.prepare(requests_for(sampling, negative, prompts)))[0].numpy()


@pytest.mark.parametrize(
    ("name", "arguments", "takes"),
    [
        ("sd", {}, 77),
        ("sdxl", {}, 77),
        ("sd3", {}, 256),
        ("sd3", {"max_sequence_length": 100}, 100),
        ("sd3", {"max_sequence_length": 40}, 77),
        ("flux", {}, 512),
        ("flux", {"max_sequence_length": 90}, 90),
    ],
)
def test_the_encoder_that_takes_most_decides(name: str, arguments: dict[str, Any], takes: int, models: Path) -> None:
    config = config_for(name, models, arguments=arguments)
    limit = text_limit(config, config.files(), sampling_for(name))
    assert limit is not None
    assert limit.max_tokens == takes
    assert limit.used("a cat") is None
    for length in range(takes - 6, takes + 6):
        assert (limit.used("a" * length) is None) == (limit.num_tokens("a" * length) <= takes)


@pytest.mark.parametrize(
    ("name", "arguments"), [("sd", {}), ("sdxl", {}), ("sd3", {"max_sequence_length": 120}), ("flux", {"max_sequence_length": 120})]
)
def test_what_is_said_to_be_used_is_used_and_the_rest_has_no_effect(name: str, arguments: dict[str, Any], models: Path) -> None:
    config = config_for(name, models, arguments=arguments)
    limit = text_limit(config, config.files(), sampling_for(name))
    assert limit is not None
    used = limit.used(WORDS)
    assert used is not None
    assert WORDS.startswith(used)
    behind, elsewhere, within = f"{used}{'y' * 30}", f"{used}{'z' * 40}", f"{used[:-2]}zz"
    assert limit.used(behind) == limit.used(elsewhere) == used
    first, second, third = (images(name, models, [text], arguments=arguments) for text in (behind, elsewhere, within))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)


def test_capitals_and_other_scripts_are_kept_in_what_is_used(models: Path) -> None:
    config = config_for("sd", models)
    limit = text_limit(config, config.files(), sampling_for("sd"))
    assert limit is not None
    text = "A Photo of Ä  Grüne Wiese " * 10
    used = limit.used(text)
    assert used is not None
    assert text.startswith(used)
    assert limit.num_tokens(used) in {76, 77}
    assert limit.used("日本" * 5) is None
    assert limit.used("日本" * 40) is not None


def test_short_prompts_load_no_tokenizer(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_for("sd", models)
    limit = text_limit(config, config.files(), sampling_for("sd"))
    monkeypatch.setattr(transformers.CLIPTokenizer, "from_pretrained", None)
    assert limit is not None
    assert limit.used("x" * 74) is None
    with pytest.raises(Exception, match="can't be loaded"):
        limit.used("x" * 75)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_a_learned_word_counts_as_its_tokens(name: str, models: Path, tmp_path: Path) -> None:
    save_file({"<mine>": torch.randn(40, 32)}, tmp_path / "word.safetensors")
    words = [TextualInversionConfig(model=str(tmp_path / "word.safetensors"), token="<mine>")]
    config = config_for(name, models, textual_inversions=words)
    limit = text_limit(config, config.files(), sampling_for(name))
    assert limit is not None
    generator = loaded(config, sampling_for(name))
    for text in ("a <mine>", "<mine> and <mine>", "a cat"):
        written_out = generator.pipeline.maybe_convert_prompt(text, generator.pipeline.tokenizer)
        assert limit.num_tokens(text) == len(generator.pipeline.tokenizer(written_out).input_ids)
    assert limit.num_tokens("a <mine>") == 43
    assert limit.used("<mine> and <mine>") is not None


def test_a_tokenizer_that_is_not_known_is_not_judged(models: Path, tmp_path: Path) -> None:
    place = tmp_path / "other"
    shutil.copytree(tiny_models.save("sd", models), place)
    index = json.loads((place / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "GemmaTokenizer"]
    (place / "model_index.json").write_text(json.dumps(index))
    config = config_for("sd", models, model=str(place))
    assert text_limit(config, config.files(), sampling_for("sd")) is None


def test_stable_diffusion_3_takes_more_only_if_a_prompt_needs_it(models: Path) -> None:
    sampling = sampling_for("sd3")
    config = config_for("sd3", models, arguments={})
    files = config.files()
    assert with_room_for(config, ["a cat", "x" * 200], files, sampling) is config
    roomy = with_room_for(config, ["a cat", "x" * 300], files, sampling)
    assert roomy.arguments == {"max_sequence_length": 512}
    chosen = config_for("sd3", models, arguments={"max_sequence_length": 100})
    assert with_room_for(chosen, ["x" * 300], files, sampling) is chosen
    # The reason for "only": a longer padding makes other images of short prompts too.
    assert not np.array_equal(images("sd3", models, ["a cat"], arguments={}), images("sd3", models, ["a cat"], arguments=roomy.arguments))
    for name in ("sd", "flux"):
        config = config_for(name, models, arguments={})
        assert with_room_for(config, ["x" * 900], config.files(), sampling_for(name)) is config


@pytest.mark.parametrize(
    ("name", "guidance", "arguments"),
    [
        ("sd", 1.0, {}),
        ("sd", 0.0, {}),
        ("sd", 1.5, {}),
        ("sdxl", 1.0, {}),
        ("sdxl", 3.0, {}),
        ("sd3", 1.0, {"max_sequence_length": 32}),
        ("sd3", 3.0, {"max_sequence_length": 32}),
        ("flux", 3.5, {"max_sequence_length": 32}),
        ("flux", 3.5, {"max_sequence_length": 32, "true_cfg_scale": 1.0}),
        ("flux", 1.0, {"max_sequence_length": 32, "true_cfg_scale": 3.0}),
    ],
)
@pytest.mark.parametrize("guided", [False, True])
def test_negative_prompts_have_an_effect_where_it_is_said(
    name: str, guidance: float, arguments: dict[str, Any], guided: bool, models: Path
) -> None:
    real = RealGuidanceConfig(reference="x", strength=[0.9]) if guided else None
    sampling = sampling_for(name, guidance=[guidance], real_guidance=real)
    config = config_for(name, models, arguments=arguments)
    unheard = unheard_negative(config, config.files(), sampling)
    one, other = (images(name, models, ["a cat"], negative, sampling, arguments=arguments) for negative in ("blurry", "a house and a dog"))
    assert np.array_equal(one, other) == (unheard is not None)
    assert unheard is None or unheard.levels == [guidance]


def test_a_distilled_model_takes_no_negative_prompt(models: Path, tmp_path: Path) -> None:
    place = tmp_path / "distilled"
    shutil.copytree(tiny_models.save("sd", models), place)
    settings = json.loads((place / "unet" / "config.json").read_text())
    (place / "unet" / "config.json").write_text(json.dumps(settings | {"time_cond_proj_dim": 32}))
    config = config_for("sd", models, model=str(place))
    unheard = unheard_negative(config, config.files(), sampling_for("sd", guidance=[3.0, 7.0]))
    assert unheard is not None
    assert unheard.levels == [3.0, 7.0]
    assert "distilled" in unheard.why
    index = json.loads((place / "model_index.json").read_text())
    (place / "model_index.json").write_text(json.dumps(index | {"_class_name": "LatentConsistencyModelPipeline"}))
    unheard = unheard_negative(config, config.files(), sampling_for("sd", guidance=[3.0]))
    assert unheard is not None
    assert unheard.why == "LatentConsistencyModelPipeline takes no negative prompt; remove it"
