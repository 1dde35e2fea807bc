"""What the engine hands to a generator and gets back.

The engine owns batching, out-of-memory halving, queues and encoding; a generator owns only its model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from synthforge.data.reading import Example


REASONS = ("not finite", "flagged by the safety checker")
"""Why a generator rejects an image; a code of k means reason k - 1, a code of 0 none."""


@dataclass(frozen=True)
class Capabilities:
    """What a generator can be conditioned on; known before any weights are loaded."""

    text: bool
    class_label: bool
    image: bool
    """Can start from an image (real guidance)."""

    @property
    def guidance(self) -> bool:
        """Whether there is anything that guidance could strengthen."""
        return self.text or self.class_label

    def in_words(self) -> str:
        """For messages."""
        names = {"text": self.text, "a class label": self.class_label, "an image": self.image}
        return " and ".join(name for name, can in names.items() if can) or "nothing"


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """One image to make."""

    seed: int
    """Seeds the one CPU torch.Generator from which all of this image's noise comes."""
    class_name: str
    """What the generator calls the class."""
    prompt: str
    negative: str | None
    guidance: float
    """The same for all requests of a batch."""
    strength: float | None = None
    """The same for all requests of a batch; None starts from noise."""
    source: Example | None = None
    """The real image to start from."""


class PreparedBatch(Protocol):
    """A batch made ready on the CPU; only its generator looks inside."""

    @property
    def num_images(self) -> int: ...


class Generator(Protocol):
    """A loaded model."""

    @property
    def resolution(self) -> int:
        """Height and width of its images in pixels."""

    @property
    def default_batch(self) -> int:
        """Images per batch where none is named or measured; the same on every run, since bytes depend on it."""

    @property
    def device(self) -> torch.device: ...

    def identity(self) -> dict[str, Any]:
        """Class, model, weights' sha256 and everything else that every record and the manifest should name."""

    def acceleration(self) -> dict[str, Any]:
        """What is done for speed and does not change what is asked for; goes into the log."""

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        """Be told every prompt and negative prompt that will come, so that what reads texts can be unloaded afterwards."""

    def compile(self, batch: Any) -> None:
        """Called once before sampling with a prepared batch of the shape that all later ones have: try out, tune, compile, warm up.

        Raises RequestError if the model can't do what the recipe asks.
        """

    def prepare(self, requests: Sequence[ImageRequest]) -> PreparedBatch:
        """Make a batch ready on the CPU; may run in another thread while the device works on the batch before."""

    def sample(self, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Make the images: uint8 (N, height, width, channels) and, uint8 (N,), the code of each (see REASONS); on the device."""
