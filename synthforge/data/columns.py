"""Settings that say how a set of other programs is read, where the set itself leaves it open."""

from __future__ import annotations

from synthforge.config import Config, identity


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
