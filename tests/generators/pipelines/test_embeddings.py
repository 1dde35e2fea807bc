"""Each distinct prompt is encoded once, and text encoders are unloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.generators.pipelines.made import (
    assert_equal,
    config_for,
    loaded,
    plain,
    requests_for,
    sampling_for,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")


def test_a_thousand_prompts_of_which_ten_are_distinct(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    runs = list[int]()
    original = transformers.CLIPTextModel.forward

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        runs.append(1)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(transformers.CLIPTextModel, "forward", counted)
    prompts = [f"thing {number % 10}" for number in range(1000)]
    sampling = sampling_for("sd", steps=1, guidance=[1.0])
    generator = loaded(config_for("sd", models), sampling)
    for first in range(0, 1000, 100):
        generator.sample(generator.prepare(requests_for(sampling, prompts=prompts[first : first + 100])))
    assert len(runs) == 10
    runs.clear()
    sampling = sampling_for("sd", steps=1, guidance=[2.0, 3.0])
    generator = loaded(config_for("sd", models), sampling)
    generator.learn_texts([(f"thing {number}", None) for number in range(10)])
    assert len(runs) == 11  # and the empty prompt that guidance moves away from, once
    assert generator.acceleration()["text_encoders"] == "unloaded"
    assert generator.pipeline.text_encoder is None
    generator.sample(generator.prepare(requests_for(sampling, prompts=prompts[:20])))
    assert len(runs) == 11


def test_encodings_that_do_not_fit_memory_keep_the_text_encoder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from synthforge.generators.pipelines import embeddings

    sampling = sampling_for("sd")
    monkeypatch.setattr(embeddings, "CACHE_BYTES", 1)
    monkeypatch.setattr(embeddings.PromptEncodings.__init__, "__defaults__", (1,))
    generator = loaded(config_for("sd", models), sampling)
    requests = requests_for(sampling)
    generator.learn_texts([("a cat", None), ("a dog and a house", None)])
    assert generator.acceleration()["text_encoders"] == "kept"
    assert_equal(generator.sample(generator.prepare(requests))[0], plain("sd", models, sampling, requests))


class Encoder:
    """Stands for a pipeline of an unusual family; what it encodes can be chosen."""

    def __init__(self, encode: Any) -> None:
        self.encode_prompt = encode
        self.prepare_latents = lambda: None
        self.components: dict[str, Any] = {}


def test_encodings_of_unusual_families() -> None:
    from synthforge.generators.pipelines.embeddings import PromptEncodings

    def by_length(prompt: list[str]) -> torch.Tensor:
        width = max(map(len, prompt))
        return torch.stack([torch.tensor([*map(ord, text), *[0] * (width - len(text))]) for text in prompt])

    pipeline = Encoder(by_length)
    encodings = PromptEncodings(pipeline)
    assert torch.equal(pipeline.encode_prompt(prompt=["ab", "abc"]), by_length(["ab", "abc"]))
    assert not encodings.is_whole  # so the text encoder stays

    def in_lists(prompt: list[str]) -> list[torch.Tensor]:
        return [torch.full((5, 2), float(ord(text[0]))) for text in prompt]

    pipeline = Encoder(in_lists)
    encodings = PromptEncodings(pipeline)
    found = pipeline.encode_prompt(prompt=["a", "b", "a"])
    assert [float(entry[0, 0]) for entry in found] == [97.0, 98.0, 97.0]
    assert encodings.is_whole

    def with_instructions(prompt: list[str], instructions: list[str]) -> torch.Tensor:
        return torch.tensor([[len("".join(instructions)) + ord(text[0])] for text in prompt])

    pipeline = Encoder(with_instructions)
    PromptEncodings(pipeline)
    lines = ["x" * number for number in range(1, 4)]
    wanted = with_instructions(["a", "b", "c"], lines)
    assert torch.equal(pipeline.encode_prompt(prompt=["a", "b", "c"], instructions=lines), wanted)


def test_unloaded_text_encoders_are_gone(models: Path) -> None:
    import weakref

    generator = loaded(config_for("sd", models), sampling_for("sd"))
    gone = weakref.ref(generator.pipeline.text_encoder)
    generator.learn_texts([("a cat", None)])
    assert gone() is None
