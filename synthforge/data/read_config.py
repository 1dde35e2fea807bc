"""Settings that say how a set of images is read: its columns, and what transparent images are put on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from pydantic import Field

from synthforge.config import Config, identity

DECODER_VERSION = 2
"""Raised when a file gives other pixels than before. It is part of the name of everything that is cached."""
WHITE = "white"
"""The background unless another is set."""
Background = Annotated[str, Field(pattern=r"^(white|black|grey|#[0-9a-fA-F]{6})$")]
"""`white`, `black`, `grey`, or a colour such as `#ff8800`."""


class ColumnsConfig(Config):
    """Which columns of a table, or members of a tar, are used. Dataset folders need no such settings."""

    image: str | None = identity(None, min_length=1)
    """The column with the image, or the extension of its member in a tar, such as `jpg`. None: the only one; columns
    with names such as `mask`, `seg` or `depth` do not count."""
    label: str | None = identity(None, min_length=1)
    """The column with the label. None: the only one of `datasets`' type ClassLabel, or named class, label or cls."""
    splits: bool | None = identity(None)
    """Whether the sub-folders of a folder are splits (train, val, test). None: they are if all of them have such names
    and hold folders."""


@dataclass(frozen=True)
class Reading:
    """How the images of a set are read."""

    columns: ColumnsConfig = field(default_factory=ColumnsConfig)
    background: Background = WHITE
    """What transparent images are put on."""

    @property
    def decoder(self) -> int | str:
        """Names the pixels that an image file gives; part of the name of everything that is cached."""
        return DECODER_VERSION if self.background == WHITE else f"{DECODER_VERSION}-{self.background.lstrip('#').lower()}"


class ReadingConfig(Config):
    """How images are read, real and synthetic ones alike."""

    columns: ColumnsConfig = Field(default_factory=ColumnsConfig)
    """Where image and label stand, for sets of other programs that leave it open."""
    background: Background | None = identity(None)
    """What transparent images are put on: `white`, `black`, `grey` or `#rrggbb`. None: white."""

    @property
    def reading(self) -> Reading:
        """How images are read."""
        return Reading(self.columns, self.background or WHITE)
