"""Each distinct prompt is encoded once, whatever the pipeline, and the text encoders leave the device when they are done.

The pipeline's own `encode_prompt` is wrapped where it stands: a batch of prompts is put together from cached encodings of its
single prompts. So what reaches the denoiser is what the pipeline itself computes, also for families that this module knows nothing of.
To learn texts in advance the pipeline is called and left as soon as it has encoded them.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

CACHE_BYTES = 4 * 2**30
"""Host memory for encodings; the least recently used go first."""


class EncodedEnough(Exception):
    """Leaves a pipeline's call once its prompts are encoded."""


class PromptEncodings:
    """Caches what `pipeline.encode_prompt` returns for single prompts.

    Args:
        pipelines: those that share the text encoders (a text-to-image pipeline and its image-to-image form).
    """

    def __init__(self, pipelines: Sequence[Any], cache_bytes: int = CACHE_BYTES) -> None:
        self._cache: OrderedDict[Any, Any] = OrderedDict()
        self._bytes = 0
        self._cache_bytes = cache_bytes
        self._leave_after_encoding = False
        self._has_forgotten = False
        self.num_encoded = 0
        """Distinct prompts that were encoded so far."""
        self.can_learn = True
        """Whether every pipeline encodes its prompts in a way that is known here."""
        for pipeline in pipelines:
            if hasattr(pipeline, "encode_prompt") and hasattr(pipeline, "prepare_latents"):
                pipeline.encode_prompt = self._wrapped(pipeline.encode_prompt)
                pipeline.prepare_latents = self._left_here(pipeline.prepare_latents)
            else:
                self.can_learn = False
        for name, encoder in text_encoders(pipelines[0]).items():
            assert isinstance(encoder, torch.nn.Module), name
            encoder.forward = _memoised(encoder.forward)

    @property
    def is_whole(self) -> bool:
        """Whether everything that was encoded is still here."""
        return not self._has_forgotten

    @contextmanager
    def leaving_after_encoding(self) -> Iterator[None]:
        """Inside, the pipeline's call raises EncodedEnough at the first use of its encodings."""
        self._leave_after_encoding = True
        try:
            yield
        except EncodedEnough:
            pass
        finally:
            self._leave_after_encoding = False

    def _left_here(self, prepare_latents: Callable[..., Any]) -> Callable[..., Any]:
        """Every pipeline draws its noise right after it has encoded its prompts."""

        def prepared(*args: Any, **kwargs: Any) -> Any:
            if self._leave_after_encoding:
                raise EncodedEnough
            return prepare_latents(*args, **kwargs)

        return prepared

    def _wrapped(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        signature = inspect.signature(encode)

        def cached(*args: Any, **kwargs: Any) -> Any:
            given = signature.bind(*args, **kwargs).arguments
            prompts = given.get("prompt")
            if not isinstance(prompts, list) or any(isinstance(value, torch.Tensor) for value in given.values()):
                return encode(*args, **kwargs)
            # Lists as long as the batch go by image; everything else is the same for all.
            by_image = {name: value for name, value in given.items() if isinstance(value, list) and len(value) == len(prompts)}
            shared = {name: value for name, value in given.items() if name not in by_image}
            found = []
            for row in range(len(prompts)):
                one = {name: value[row] for name, value in by_image.items()}
                key = (repr(sorted(one.items())), repr(sorted((name, str(value)) for name, value in shared.items())))
                found.append(self._looked_up(key, lambda one=one: encode(**shared, **{name: [value] for name, value in one.items()})))  # type: ignore[misc]
            together = _together(found)
            # Encodings of different lengths: the pipeline pads them in its own way.
            return together if together is not None else encode(*args, **kwargs)

        return cached

    def _looked_up(self, key: Any, encode: Callable[[], Any]) -> tuple[Any, Any]:
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]  # type: ignore[no-any-return]
        encoded = encode()
        device = next((part.device for part in _tensors(encoded)), torch.device("cpu"))
        kept = (_mapped(encoded, lambda part: part.to("cpu")), device)
        self._cache[key] = kept
        self.num_encoded += 1
        self._bytes += _size(kept[0])
        while self._bytes > self._cache_bytes and len(self._cache) > 1:
            self._bytes -= _size(self._cache.popitem(last=False)[1][0])
            self._has_forgotten = True
        return kept


def text_encoders(pipeline: Any) -> dict[str, Any]:
    """The components of a pipeline that read texts, by name."""
    return {name: part for name, part in pipeline.components.items() if name.startswith("text_encoder") and part is not None}


def _memoised(forward: Callable[..., Any], size: int = 8) -> Callable[..., Any]:
    """A text encoder that does not read the same tokens twice: every prompt comes with the same negative one."""
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


def _together(found: Sequence[tuple[Any, torch.device]]) -> Any:
    """Single encodings as one batch; None if their shapes differ."""
    first, device = found[0]
    if isinstance(first, (tuple, list)):
        parts = [_together([(single[number], device) for single, _ in found]) for number in range(len(first))]
        if any(part is None and value is not None for part, value in zip(parts, first, strict=True)):
            return None
        return type(first)(parts)
    if not isinstance(first, torch.Tensor):
        return first
    tensors = [single for single, _ in found]
    if any(tensor.shape != first.shape for tensor in tensors):
        return None
    # What has no row for the image (position numbers of the text) is the same for all.
    joined = torch.cat(tensors) if first.shape[0] == 1 else first
    return joined.to(device, non_blocking=True)


def _mapped(value: Any, function: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        return function(value)
    return type(value)(_mapped(part, function) for part in value) if isinstance(value, (tuple, list)) else value


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _tensors(part)


def _size(value: Any) -> int:
    return sum(part.numel() * part.element_size() for part in _tensors(value))
