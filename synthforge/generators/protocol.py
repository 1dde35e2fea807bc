"""The interface between engine and generator.

The engine does batching, out-of-memory halving, queues and encoding. A generator only runs its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from synthforge.data.reading import Example


REASONS = ("not finite", "flagged by the safety checker")
"""Why a generator rejects an image. Code k means reason k - 1; code 0 means accepted."""


@dataclass(frozen=True)
class Capabilities:
    """The conditioning that a generator accepts, known before any weights are loaded."""

    text: bool
    class_label: bool
    image: bool
    """Whether it can start from an image (image-to-image)."""

    @property
    def guidance(self) -> bool:
        """Whether guidance has anything to strengthen."""
        return self.text or self.class_label

    def in_words(self) -> str:
        """A list for messages."""
        names = {"text": self.text, "a class label": self.class_label, "an image": self.image}
        return " and ".join(name for name, can in names.items() if can) or "nothing"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to make."""

    seed: int
    """Seed of the CPU torch.Generator that gives all noise of this image."""
    class_name: str
    """The generator's name for the class."""
    prompt: str
    negative: str | None
    guidance: float
    """The same for all requests of a batch."""
    strength: float | None = None
    """The same for all requests of a batch. None: start from noise."""
    source: Example | None = None
    """The real image to start from. None: start from noise."""


class TextLimit(Protocol):
    """How much of a text a generator uses: what the text encoder that takes most takes."""

    @property
    def max_tokens(self) -> int:
        """Tokens it takes, with those that mark start and end."""

    def num_tokens(self, text: str) -> int:
        """Tokens of a text, counted in the same way."""

    def used(self, text: str) -> str | None:
        """The part that is used of a text that is too long. None: all of it is used."""


@dataclass(frozen=True)
class Unheard:
    """Guidance levels at which a negative prompt has no effect."""

    levels: list[float]
    why: str
    """Why, and what to do."""


class PreparedBatch(Protocol):
    """A batch prepared on the CPU; its content is known to its generator only."""

    @property
    def num_images(self) -> int: ...


class Generator(Protocol):
    """A loaded model."""

    @property
    def default_batch(self) -> int:
        """Images per batch if none is set or measured. The same on every run, since bytes depend on it."""

    @property
    def device(self) -> torch.device: ...

    def identity(self) -> dict[str, Any]:
        """Class, model, SHA-256 of the weights, and all else that records and manifest must name."""

    def acceleration(self) -> dict[str, Any]:
        """Measures for speed that don't change the request; for the log."""

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        """Take all prompts and negative prompts in advance, so that text encoders can be unloaded."""

    def compile(self, batch: Any) -> None:
        """Try out, tune, compile and warm up with a prepared batch of the final shape. Called once, before sampling.

        Raises: RequestError if the model can't do what the recipe requests.
        """

    def prepare(self, requests: Sequence[ImageRequest]) -> PreparedBatch:
        """Prepare a batch on the CPU; may run in another thread while the device works on the batch before."""

    def sample(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The images, uint8 (N, height, width, channels), and their codes (see REASONS), uint8 (N,); on the device."""
