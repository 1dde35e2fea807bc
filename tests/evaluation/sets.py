"""Digits as folders of images by class, which evaluations take as real, synthetic and holdout sets."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from synthforge.data.reading import Example, read_labelled

QUICK = [
    "trainer.steps=30",
    "trainer.batch=32",
    "trainer.width=16",
    "trainer.learning_rate=0.01",
    "tuning.on=false",
    "steps_check=false",
    "workers=1",
    "seeds=2",
]
"""Settings for trainings of less than a second, which learn something."""


@contextmanager
def tripwire(place: Path, when: Callable[[], str]) -> Iterator[set[str]]:
    """What `when` said each time that something below a place was opened in this process."""
    opened: set[str] = set()
    watching = True

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in {"open", "os.scandir", "os.listdir"} and str(place) in str(arguments[0]):
            opened.add(when())

    sys.addaudithook(audit)  # there for good
    try:
        yield opened
    finally:
        watching = False


def digits(part: str = "fit") -> list[Example]:
    """The built-in digits: `fit`, `validation` or `holdout`."""
    if part == "holdout":
        both = read_labelled("builtin:digits/holdout")
        return [*both["fit"].examples, *both["validation"].examples]
    return read_labelled("builtin:digits/reference")[part].examples  # type: ignore[index]


def write(place: Path, examples: Sequence[Example], wrong: float = 0.0) -> Path:
    """A folder of images by class; a share of them, drawn at random, lies in another class's folder."""
    rng = np.random.default_rng(0)
    for number, example in enumerate(examples):
        label = int(example.class_name)
        if rng.random() < wrong:
            label = (label + int(rng.integers(1, 10))) % 10
        folder = place / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:04d}.png").write_bytes(example.data)
    return place


def per_class(examples: Sequence[Example], start: int, stop: int) -> list[Example]:
    """Those that come in these places among their class."""
    seen: dict[str, int] = {}
    found = []
    for example in examples:
        place = seen[example.class_name] = seen.get(example.class_name, -1) + 1
        if start <= place < stop:
            found.append(example)
    return found


def random_features(num: int, seed: int, centre: float = 0.0) -> np.ndarray:
    """Of images that differ by chance alone, (num, 4)."""
    return np.random.default_rng(seed).normal(centre, 1, (num, 4)).astype(np.float32)
