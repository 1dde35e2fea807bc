"""Labels, captions and class names of foreign sets, and which column or member of a tar holds what."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from synthforge.errors import DatasetError

MAX_LABEL = 1_000
"""Longer text, in characters, is not taken for a label."""
TEXT_FIELDS = ("source", "source_sha256")
CAPTIONS = ("prompt", "caption", "text")
LABELS = ("class", "label", "cls")
KNOWN = (*CAPTIONS, *TEXT_FIELDS, "strength", "guidance", "seed")
"""Fields of a record that `known_of` reads."""
AUXILIARY = re.compile(r"(^|[._-])(masks?|seg(mentations?)?|depths?|normals?|edges?|thumb(nail)?s?)([._-]|$)", re.IGNORECASE)
"""Names of columns, or of members of a tar, that hold pictures which are not the image itself."""


def chosen_column(names: Sequence[str], wanted: str | None, where: str, what: Literal["image", "label"]) -> str:
    """The column that holds the image or the label; raises DatasetError if it can't be told.

    Args:
        names: all columns that could, at least one.
        wanted: the user's choice, for sets that have it.
    """
    if wanted in names:
        return str(wanted)
    plain = [name for name in names if not AUXILIARY.search(name)] or list(names)
    if len(plain) > 1:
        raise DatasetError(
            f"{where}: {' and '.join(plain)} could all be the {what}; say which with --set columns.{what}={plain[0]} "
            f"(in a recipe: curation.columns.{what})"
        )
    return plain[0]


def natural_order(names: Iterable[str]) -> list[str]:
    """Numbers by their value, then names."""
    return sorted(names, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))


def label_of(contents: Mapping[str, bytes], record: Mapping[str, Any]) -> str | None:
    """The label of a sample in a tar: its .cls, or else `class`, `label` or `cls` of its .json. None: it has none."""
    candidates = (contents.get("cls", b"").decode("utf-8-sig", "replace"), *map(record.get, LABELS))
    return next((label for value in candidates if (label := as_label(value))), None)


def as_label(value: object) -> str | None:
    """A label from a whole number or a short text. None: it is neither, or a negative number (-1 means "none")."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63:
        return str(value)
    label = (as_text(value) or "").strip()
    is_name = label.isprintable() and "\ufffd" not in label and not re.fullmatch(r"-\d+", label)
    return label if 0 < len(label) <= MAX_LABEL and is_name else None


def as_name(label: str) -> str:
    """A class name in NFC, so that equal names are equal texts."""
    return unicodedata.normalize("NFC", label)


def as_text(value: object) -> str | None:
    """A text without the halves of characters that JSON may have and UTF-8 can't. None: the value is no text."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def known_of(record: Mapping[str, Any], text: str | None = None) -> dict[str, Any]:
    """The columns of the index that a record fills: prompt, source, source_sha256, strength, guidance, seed.

    A value that is missing or has a wrong type is None.

    Args:
        text: the caption, if it is not in the record.
    """
    prompt = text or next((caption for name in CAPTIONS if (caption := as_text(record.get(name)))), None)
    known: dict[str, Any] = {"prompt": prompt} | {name: as_text(record.get(name)) for name in TEXT_FIELDS}
    for name in ("strength", "guidance"):
        value = record.get(name)
        with suppress(OverflowError):
            known[name] = float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None
    seed = record.get("seed")
    known["seed"] = seed if isinstance(seed, int) and not isinstance(seed, bool) and 0 <= seed < 2**64 else None
    return known
