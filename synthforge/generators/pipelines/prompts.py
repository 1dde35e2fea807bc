"""How much of a prompt a pipeline uses, and when it uses a negative prompt, from a model's files without its weights.

Text encoders take a fixed number of tokens, and pipelines cut what is longer. Of several text encoders, the one that
takes most counts: what it takes is used. Only tokenizers of CLIP and T5 are known here. Of other families this module
says nothing.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from synthforge.data.model_files import GeneratorFiles, components_in, in_one_line, read_config, read_index
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pipelines.config import TextToImageConfig
from synthforge.generators.pipelines.families import call_parameters, guides_above, image_to_image_class, text_to_image_classes
from synthforge.generators.protocol import Unheard

_ROOM = "max_sequence_length"
"""The argument of pipelines with T5 that says how many tokens it takes."""
_MOST_ROOM = {"StableDiffusion3Pipeline": 512, "StableDiffusion3PAGPipeline": 512}
"""Pipelines that can take more tokens than they do by default, and how many at most."""
_MARKS = 3
"""Most tokens that a tokenizer adds to a text: start, end, and a space before the first word."""


class TokenLimit:
    """Implements `generators.protocol.TextLimit` by a tokenizer. It is loaded when a text may be too long.

    Args:
        tokenizer: the tokenizer's folder.
        class_name: its class in transformers.
        words: learned words, with the number of tokens that each stands for.
    """

    def __init__(self, model: str, tokenizer: Path, class_name: str, max_tokens: int, words: Mapping[str, int]) -> None:
        self.max_tokens = max_tokens
        self._model, self._folder, self._class_name, self._words = model, tokenizer, class_name, words

    def num_tokens(self, text: str) -> int:
        """See `TextLimit`."""
        return len(self._encoded(text)["input_ids"])

    def used(self, text: str) -> str | None:
        """See `TextLimit`. Learned words of several tokens are written out."""
        # No token is shorter than a character of ASCII. So short texts need no tokenizer.
        if text.isascii() and len(text) + _MARKS <= self.max_tokens and not self._words:
            return None
        encoded = self._encoded(text)
        if len(encoded["input_ids"]) <= self.max_tokens:
            return None
        # What is cut keeps its first tokens and the one that marks the end.
        return self._written_out(text)[: max(end for _, end in encoded["offset_mapping"][: self.max_tokens - 1])]

    def _encoded(self, text: str) -> Any:
        return self._tokenizer(self._written_out(text), return_offsets_mapping=True, verbose=False)

    def _written_out(self, text: str) -> str:
        """A text as diffusers gives it to the tokenizer: a learned word of several tokens becomes several words."""
        for word, num_tokens in self._words.items():
            text = text.replace(word, " ".join(_tokens_of(word, num_tokens)))
        return text

    @functools.cached_property
    def _tokenizer(self) -> Any:
        import transformers

        name = self._class_name.removesuffix("Fast")
        with in_one_line(f"the tokenizer of {self._model}", "generator.model"):
            kind = getattr(transformers, f"{name}Fast", None) or getattr(transformers, name)
            tokenizer = kind.from_pretrained(str(self._folder), local_files_only=True)
            tokenizer.add_tokens([token for word, number in self._words.items() for token in _tokens_of(word, number)])
        return tokenizer


def text_limit(config: TextToImageConfig, files: GeneratorFiles, sampling: SamplingConfig) -> TokenLimit | None:
    """How much of a prompt is used. None: the model has a tokenizer that is not known here."""
    index = read_index(files.model)
    components = components_in(index)
    limits: list[tuple[int, str, str]] = []
    for name, (_, class_name) in components.items():
        if not name.startswith("tokenizer") or name.replace("tokenizer", "text_encoder") not in components:
            continue
        place = files.model.folder / name
        most = _most_tokens(config, _called(index, sampling), place, class_name)
        if most is None:
            return None
        limits.append((most, name, class_name))
    if not limits:
        return None
    most, name, class_name = max(limits, key=lambda limit: limit[0])  # of equals the first: it knows the learned words
    words = {item.token: _num_vectors(files, number) for number, item in enumerate(config.textual_inversions)}
    return TokenLimit(files.model.name, files.model.folder / name, class_name, most, words if name == "tokenizer" else {})


def with_room_for(config: TextToImageConfig, texts: Iterable[str], files: GeneratorFiles, sampling: SamplingConfig) -> TextToImageConfig:
    """Raise the number of tokens that T5 takes, if a text needs it.

    Only then: the number is also the length to which prompts are padded, so it changes the images of short ones.
    """
    index = read_index(files.model)
    most = _MOST_ROOM.get(str(index.get("_class_name")))
    if most is None or _ROOM in config.arguments or "text_encoder_3" not in components_in(index):
        return config
    limit = text_limit(config, files, sampling)
    if limit is None or all(limit.used(text) is None for text in texts):
        return config
    return config.model_copy(update={"arguments": {**config.arguments, _ROOM: most}})


def unheard_negative(config: TextToImageConfig, files: GeneratorFiles, sampling: SamplingConfig) -> Unheard | None:
    """The guidance levels at which a pipeline does not use a negative prompt."""
    index, levels = read_index(files.model), sampling.guidance
    if index.get("_class_name") not in text_to_image_classes():
        return None
    name = _called(index, sampling)
    parameters = call_parameters(name)
    if "negative_prompt" not in parameters:
        return Unheard(levels, f"{name} takes no negative prompt; remove it")
    if "unet" in components_in(index) and read_config(files.model, "unet").get("time_cond_proj_dim") is not None:
        return Unheard(levels, f"the guidance of {files.model.public_name} is distilled into its weights; remove it, or use another model")
    scale = "true_cfg_scale" if "true_cfg_scale" in parameters else "guidance_scale"
    least = guides_above(name, scale) if scale in parameters else None
    if least is None:
        return None
    if scale == "true_cfg_scale":
        value = config.arguments.get(scale, parameters[scale].default)
        if isinstance(value, (int, float)) and value > least:
            return None
        return Unheard(levels, f"{name} uses it only if {scale} is above {least:g}, as by generator.arguments={{{scale}: 4.0}}")
    unheard = [level for level in levels if level <= least]
    return Unheard(unheard, f"{name} uses it only at guidance above {least:g}; raise sampling.guidance, or remove it") if unheard else None


def _called(index: Mapping[str, Any], sampling: SamplingConfig) -> str:
    """Name of the pipeline that is called: the model's, or its image-to-image form."""
    name = str(index.get("_class_name"))
    return (image_to_image_class(name) or name) if sampling.real_guidance is not None else name


def _most_tokens(config: TextToImageConfig, pipeline: str, tokenizer: Path, class_name: str) -> int | None:
    """How many tokens a pipeline takes from a tokenizer. None: not known."""
    if class_name.startswith("CLIP"):
        try:
            most = json.loads((tokenizer / "tokenizer_config.json").read_text()).get("model_max_length")
        except (OSError, ValueError, AttributeError):
            return None
    elif class_name.startswith("T5") and _ROOM in call_parameters(pipeline):
        most = config.arguments.get(_ROOM, call_parameters(pipeline)[_ROOM].default)
    else:
        return None
    return most if isinstance(most, int) and 0 < most < 10**6 else None


def _tokens_of(word: str, num_tokens: int) -> list[str]:
    return [word, *(f"{word}_{number}" for number in range(1, num_tokens))]


def _num_vectors(files: GeneratorFiles, number: int) -> int:
    """How many tokens a learned word stands for."""
    from safetensors import safe_open

    path = files.others[f"generator.textual_inversions.{number}.model"].folder
    with in_one_line(path.name, f"generator.textual_inversions.{number}.model"), safe_open(path, "np") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    return max((shape[0] for shape in shapes if len(shape) == 2), default=1)
