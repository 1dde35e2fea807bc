"""Is the gap smaller after curation, on real images that selection has not seen, and does a classifier learn more from the kept images?

Digits: the built-in generator and reference. Fashion-MNIST (Debian's package): a generator fitted by `synthforge fit` on the 1,000 images
of the reference's fit part, given as the environment variable FASHION_POOL with its pool, and FASHION_REFERENCE with the folder that
`benchmarks.fashion.write_reference` wrote. Its test images are the holdout of this measurement; nothing was chosen on them.
Each seed draws other random sets, other trainings and another order of selection's ties; pool and fit of the generator are one.
Training takes most of the time: with TRAIN=0 only the gap is measured.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import fashion
from benchmarks.harness import keep, spread
from synthforge.curation.choice import pick
from synthforge.curation.config import CurationConfig
from synthforge.curation.gap import Comparison, measure_gap
from synthforge.curation.sides import Sides
from synthforge.curation.trials import Trainer, random_rows
from synthforge.generation import generate
from synthforge.progress import Reporter
from synthforge.recipe_file import config_from_sets, load_recipe
from synthforge.training.data import to_float

SEEDS = 3
WITH_TRAINING = os.environ.get("TRAIN", "1") != "0"
ARMS = {
    "random of the whole pool": None,
    "random of what passes the gates": "random",
    "mmd": "mmd",
    "mmd, stopped at the floor": "mmd",
    "mean+covariance": "mean+covariance",
    "covariance": "covariance",
    "clusters": "clusters",
    "nearest": "nearest",
}


def main() -> None:
    found = {}
    with tempfile.TemporaryDirectory() as place:
        pool = generate(load_recipe("recipes/digits.yaml", [f"output.path={place}"])).folder
        found["digits, 80 of 500 per class"] = measure(pool, "builtin:digits/reference", 80, images=48_000)
    if "FASHION_POOL" in os.environ:
        reference = os.environ["FASHION_REFERENCE"]
        test, labels = fashion.read("t10k")
        names = sorted(fashion.CLASSES)
        truth = np.array([names.index(fashion.CLASSES[label]) for label in labels])
        name = "Fashion-MNIST, 100 per class, generator fitted on the same 1,000 real images"
        found[name] = measure(os.environ["FASHION_POOL"], reference, 100, images=64_000, holdout=(test, truth, names))
    keep("curation", "gap to real images, and what a classifier learns, for selections of equal size", found)


def measure(pool: str, reference: str, size: int, images: int, holdout: tuple[Any, Any, list[str]] | None = None) -> dict[str, Any]:
    """Gap and training for every arm, over seeds."""
    base = [f"selection.size.per_class={size}", f"trials.images={images}", f"trials.seeds={SEEDS}"]
    config = config_from_sets(CurationConfig, base)
    sides = Sides.read([pool], reference, config, Reporter())
    alive = sides.usable.copy()
    dropped = {}
    for gate in config.gates.in_order():
        verdict = gate.judge(sides.evidence, alive)
        dropped[gate.title] = int((verdict.fails_N & alive).sum())
        alive &= ~verdict.fails_N
    asked = dict.fromkeys(sides.classes, size)
    arms: dict[str, list[NDArray[np.int64]]] = {}
    for arm, method in ARMS.items():
        arms[arm] = []
        for seed in range(SEEDS):
            sides.config = config_from_sets(
                CurationConfig, [*base, f"selection.seed={seed}", f"selection.stop_at_floor={'true' if 'stopped' in arm else 'false'}"]
            )
            among = sides.usable if method is None else alive
            rows = (
                random_rows(sides, among, asked, 1)[0]
                if method in (None, "random")
                else np.concatenate(pick(sides, alive, asked, method)[0])
            )
            arms[arm].append(rows)
    if not WITH_TRAINING:
        random = arms["random of what passes the gates"]
        gaps = {arm: _gaps(sides, by_seed, random) for arm, by_seed in arms.items()}
        return {"pool": len(sides.pool), "dropped": dropped, "seeds": SEEDS, "training": "not run", "arms": gaps}
    trainer = Trainer(sides, np.unique(np.concatenate([rows for by_seed in arms.values() for rows in by_seed])))
    if holdout is not None:
        test, truth, names = holdout
        order = np.array([sides.classes.index(name) for name in names])
        trainer.validation_V = to_float(torch.from_numpy(np.repeat(test[:, None], 3, axis=1).copy()))
        trainer.truth_V = torch.from_numpy(order[truth])
    return {
        "pool": len(sides.pool),
        "dropped": dropped,
        "scored_on": f"{len(trainer.truth_V)} {'test' if holdout else 'validation'} images",
        "arms": {arm: _figures(sides, trainer, by_seed, arms["random of what passes the gates"]) for arm, by_seed in arms.items()},
    }


def _figures(sides: Sides, trainer: Trainer, by_seed: list[NDArray[np.int64]], random: list[NDArray[np.int64]]) -> dict[str, Any]:
    trained = [trainer.train(rows, seed)[0] for seed, rows in enumerate(by_seed)]
    truth = trainer.truth_V.numpy()
    return {
        "accuracy": spread([float(correct.mean()) for correct in trained]),
        "accuracy_by_class": {
            name: round(statistics.mean(float(correct[truth == number].mean()) for correct in trained), 3)
            for number, name in enumerate(sides.classes)
        },
        **_gaps(sides, by_seed, random),
    }


def _gaps(sides: Sides, by_seed: list[NDArray[np.int64]], random: list[NDArray[np.int64]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, views in (("all real images", sides.judge_views), ("validation images", sides.held_out_views)):
        gaps = [
            measure_gap(
                views, classes=sides.classes, before=np.flatnonzero(sides.usable), after=rows, random=random, seed=seed, num_splits=2
            ).metrics["mmd"]
            for seed, rows in enumerate(by_seed)
        ]
        figures[f"mmd2 to {name}"] = spread([gap.after.value or 0.0 for gap in gaps])
        figures[f"less random, to {name}"] = [_interval(gap) for gap in gaps]
    return figures


def _interval(gap: Comparison) -> str:
    difference = gap.after_minus_random
    assert difference is not None and difference.value is not None
    return f"{difference.value:+.5f} [{difference.low:+.5f}, {difference.high:+.5f}]"


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    main()
