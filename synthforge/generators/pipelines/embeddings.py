"""Encode each distinct prompt once, for any pipeline, and unload the text encoders afterwards.

The pipeline's own `encode_prompt` is wrapped in place. A batch is assembled from cached encodings of single prompts.
So the denoiser gets what the pipeline itself computes, also in families unknown here.
To encode texts in advance, the pipeline is called and left once its prompts are encoded.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map_only

CACHE_BYTES = 4 * 2**30
"""Host memory for encodings; the least recently used are dropped first."""


@dataclass(frozen=True)
class _Encoding:
    value: Any
    """Result of `encode_prompt` for one prompt, on the host."""
    device: torch.device
    """Device of the original."""
    shape: Any


class EncodedEnough(Exception):
    """Raised to leave a pipeline's call after its prompts are encoded."""


class PromptEncodings:
    """Caches the results of `pipeline.encode_prompt` for single prompts.

    Args:
        pipeline: the one that is called.
    """

    def __init__(self, pipeline: Any, cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: OrderedDict[Any, _Encoding] = OrderedDict()
        self._bytes = 0
        self._cache_bytes = cache_bytes
        self._leave_after_encoding = False
        self._has_forgotten = False
        self._shapes: dict[str, set[Any]] = {}
        """Shapes of the encodings so far, by settings of the encoding."""
        self.num_encoded = 0
        """Distinct prompts encoded so far."""
        self.can_learn = hasattr(pipeline, "encode_prompt") and hasattr(pipeline, "prepare_latents")
        """Whether prompts can be encoded in advance."""
        if self.can_learn:
            pipeline.encode_prompt = self._wrapped(pipeline.encode_prompt)
            pipeline.prepare_latents = self._left_here(pipeline.prepare_latents)
        for name, encoder in text_encoders(pipeline).items():
            assert isinstance(encoder, torch.nn.Module), name
            encoder.forward = _memoised(encoder.forward)

    @property
    def is_whole(self) -> bool:
        """Whether all encodings are still cached, and any of them fit into one batch."""
        return not self._has_forgotten and all(len(shapes) <= 1 for shapes in self._shapes.values())

    @contextmanager
    def leaving_after_encoding(self) -> Iterator[None]:
        """Inside, a pipeline's call ends at the first use of its encodings."""
        self._leave_after_encoding = True
        try:
            yield
        except EncodedEnough:
            pass
        finally:
            self._leave_after_encoding = False

    def _left_here(self, prepare_latents: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the drawing of noise, which follows right after the encoding of prompts."""

        def prepared(*args: Any, **kwargs: Any) -> Any:
            if self._leave_after_encoding:
                raise EncodedEnough
            return prepare_latents(*args, **kwargs)

        return prepared

    def _wrapped(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(encode)

        def cached(*args: Any, **kwargs: Any) -> Any:
            arguments = signature.bind(*args, **kwargs).arguments
            prompts = arguments.get("prompt")
            if not isinstance(prompts, list) or any(isinstance(value, torch.Tensor) for value in arguments.values()):
                return encode(*args, **kwargs)
            # Prompts differ by image; all other arguments, also lists, are the same for all.
            by_image = {
                name: value
                for name, value in arguments.items()
                if name.startswith(("prompt", "negative_prompt")) and isinstance(value, list) and len(value) == len(prompts)
            }
            shared = {name: value for name, value in arguments.items() if name not in by_image}
            settings = repr(sorted((name, str(value)) for name, value in shared.items()))
            encodings = []
            for row in range(len(prompts)):
                single = {name: [value[row]] for name, value in by_image.items()}
                key = (repr(sorted(single.items())), settings)
                encodings.append(self._looked_up(key, functools.partial(encode, **shared, **single)))
            shapes = {encoding.shape for encoding in encodings}
            self._shapes.setdefault(settings, set()).update(shapes)
            if len(shapes) > 1:
                return encode(*args, **kwargs)  # of different lengths: the pipeline pads them in its own way
            return _together([encoding.value for encoding in encodings], encodings[0].device)

        return cached

    def _looked_up(self, key: Any, encode: Callable[[], Any]) -> _Encoding:
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        encoded = encode()
        device = next((part.device for part in _tensors(encoded)), torch.device("cpu"))
        kept = _Encoding(tree_map_only(torch.Tensor, lambda part: part.to("cpu"), encoded), device, _shape(encoded))
        self._cache[key] = kept
        self.num_encoded += 1
        self._bytes += _size(kept.value)
        while self._bytes > self._cache_bytes and len(self._cache) > 1:
            self._bytes -= _size(self._cache.popitem(last=False)[1].value)
            self._has_forgotten = True
        return kept


def unload_text_encoders(pipelines: Sequence[Any]) -> None:
    """Remove the text encoders from pipelines and free their memory."""
    for pipeline in pipelines:
        encoders = text_encoders(pipeline)
        for encoder in encoders.values():
            encoder.__dict__.pop("forward", None)  # ours refers to the encoder, which would keep it alive
        pipeline.register_modules(**dict.fromkeys(encoders))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def text_encoders(pipeline: Any) -> dict[str, Any]:
    """Text encoders of a pipeline, by name."""
    return {name: part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None}


def _memoised(forward: Callable[..., Any], size: int = 8) -> Callable[..., Any]:
    """A text encoder that remembers its last inputs: every prompt comes with the same negative prompt."""
    cache: OrderedDict[Any, Any] = OrderedDict()

    def key_of(value: Any) -> Any:
        return (tuple(value.shape), value.cpu().numpy().tobytes()) if isinstance(value, torch.Tensor) else repr(value)

    def remembered(*args: Any, **kwargs: Any) -> Any:
        key = (tuple(map(key_of, args)), tuple((name, key_of(value)) for name, value in sorted(kwargs.items())))
        if key not in cache:
            cache[key] = forward(*args, **kwargs)
            if len(cache) > size:
                cache.popitem(last=False)
        cache.move_to_end(key)
        return cache[key]

    return remembered


def _together(values: Sequence[Any], device: torch.device) -> Any:
    """Single encodings of one shape as a batch."""
    first = values[0]
    if isinstance(first, list):  # one entry for each prompt
        return [entry.to(device) if isinstance(entry, torch.Tensor) else entry for value in values for entry in value]
    if isinstance(first, tuple):
        return tuple(_together([value[number] for value in values], device) for number in range(len(first)))
    if not isinstance(first, torch.Tensor):
        return first
    # A tensor without a row for the prompt (position numbers) is the same for all: its content is part of `_shape`.
    joined = torch.cat(list(values)) if first.shape[0] == 1 else first
    return joined.to(device, non_blocking=True)


def _shape(value: Any) -> Any:
    """A key; two encodings can be in one batch if their keys are equal."""
    if isinstance(value, torch.Tensor):
        if value.ndim and value.shape[0] == 1:
            return tuple(value.shape)
        return tuple(value.shape), hashlib.sha256(value.detach().float().cpu().numpy().tobytes()).hexdigest()
    if isinstance(value, tuple):
        return tuple(_shape(part) for part in value)
    return len(value) if isinstance(value, list) else repr(value)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _size(value: Any) -> int:
    return sum(part.numel() * part.element_size() for part in _tensors(value))
