"""Digits as folders of images by class, which evaluations take as real, synthetic and holdout sets; and short
evaluations of them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synthforge.data.reading import Example, read_labelled
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.results.scores import Comparison
from synthforge.evaluation.results.types import EvaluateResult
from synthforge.evaluation.run import evaluate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small

REAL = 10
"""Real images of each class in most of these evaluations."""

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


@dataclass(frozen=True)
class Sets:
    """Folders on disk: real images to train on, others to be called synthetic, and the holdout."""

    real: Path
    holdout: Path
    more: Path
    """Real images, in disguise."""
    wrong: Path
    """The same images, half of the labels wrong."""


def ask(sets: Sets, out: Path, *synthetic: Path, arms: str | None = None, more: tuple[str, ...] = (), **options: Any) -> EvaluateResult:
    """Evaluate synthetic sets beside 10 real digits of each class, in seconds."""
    request = evaluation_of(
        None,
        synthetic=[str(path) for path in synthetic],
        real=str(sets.real),
        holdout=str(sets.holdout),
        arms=arms,
        out=str(out / "evaluation.json"),
        sets=[*QUICK, f"real_per_class=[{REAL}]", f"curve=[{REAL // 2}, {2 * REAL}]", *more],
        **options,
    )
    return evaluate(type(request)(**{**request.__dict__, "folder": out / "work"}))


def difference(result: EvaluateResult, arm: str, against: str) -> Comparison:
    """How an arm compares with another in the only setting."""
    (setting,) = result.tables[0].settings
    return next(one for one in setting.comparisons if (one.arm, one.against) == (arm, against))


def settings(*more: str) -> list[str]:
    """Quick settings for the command line."""
    return [part for text in [*QUICK, *more] for part in ("--set", text)]


def sets_of(out: Path, *more: str) -> list[str]:
    """`--set` values for an evaluation of the digits recipe in seconds."""
    quick = [f"evaluation.{text}" for text in QUICK]
    curation = ["curation.encoder={kind: pixels, resolution: 8}", f"curation.cache={out / 'cache'}"]
    few = ["evaluation.curve=[4]", "evaluation.real_per_class=[5]", "evaluation.arms=[real, random, curated, real+curated]"]
    return [*small(out, total=100, per_shard=50), *quick, *curation, *few, *more]


def run(out: Path, *more: str) -> EvaluateResult:
    """Such an evaluation."""
    return evaluate(evaluation_of(load_recipe(DIGITS, sets_of(out, *more))))
