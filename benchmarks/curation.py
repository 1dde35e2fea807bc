"""Is the gap smaller after curation, on real images that selection has not seen, and does a classifier learn more from
the kept images?

Digits: the built-in generator and reference. Fashion-MNIST (Debian's package): a generator fitted by `synthforge fit`
on the 1,000 images of the reference's fit part, given as the environment variable FASHION_POOL with its pool, and
FASHION_REFERENCE with the folder that `benchmarks.fashion.write_reference` wrote. Its test images are the holdout of
this measurement; nothing was chosen on them. Each seed draws other random sets, other trainings and another order of
selection's ties; pool and fit of the generator are one. Training takes most of the time: with TRAIN=0 only the gap is
measured; with DIGITS=0 only Fashion-MNIST, with DIGITS=80 or 5 only that size of selection for the digits.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from benchmarks import fashion
from benchmarks.harness import keep, spread
from synthforge.curation.choice import pick
from synthforge.curation.gap.gap import measure_gap
from synthforge.curation.gates import in_order
from synthforge.curation.result import Distances
from synthforge.curation.selection.trials import Arm, Trainer, random_rows
from synthforge.curation.sides import Sides
from synthforge.generation.run import generate
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from synthforge.training.data import to_float

SEEDS = int(os.environ.get("SEEDS", "5"))
WITH_TRAINING = os.environ.get("TRAIN", "1") != "0"
RANDOM, REAL = "random of what passes the gates", "as many real images"
ARMS = {
    "random of the whole pool": None,
    RANDOM: "random",
    "mmd": "mmd",
    "mmd, without gates": "mmd",
    "mmd, stopped at the floor": "mmd",
    "mean+covariance": "mean+covariance",
    "covariance": "covariance",
    "clusters": "clusters",
    "nearest": "nearest",
}


def main() -> None:
    claim = "gap to real images, and what a classifier learns, for selections of equal size"
    if os.environ.get("DIGITS", "1") != "0":
        with tempfile.TemporaryDirectory() as place:
            pool = generate(load_recipe("recipes/digits.yaml", [f"output.path={place}"])).folder
            for size, images in ((80, 48_000), (5, 16_000)):
                if os.environ.get("DIGITS", str(size)) in (str(size), "1"):
                    found = measure(pool, "builtin:digits/reference", size, images)
                    keep("curation", claim, {f"digits, {size} of 500 per class": found}, part=f"digits-{size}")
    if "FASHION_POOL" in os.environ:
        reference = os.environ["FASHION_REFERENCE"]
        test, labels = fashion.read("t10k")
        names = sorted(fashion.CLASSES)
        truth = np.array([names.index(fashion.CLASSES[label]) for label in labels])
        found = measure(os.environ["FASHION_POOL"], reference, 100, images=64_000, holdout=(test, truth, names))
        keep("curation", claim, {"Fashion-MNIST, 100 per class, generator fitted on the same 1,000 real images": found}, part="fashion")


def measure(pool: str, reference: str, size: int, images: int, holdout: tuple[Any, Any, list[str]] | None = None) -> dict[str, Any]:
    """Gap and training for every arm, over seeds."""
    base = [f"selection.size.per_class={size}", f"trials.images={images}", f"trials.seeds={SEEDS}"]
    config = config_from_sets(CurationConfig, base)
    sides = Sides.read([pool], reference, config, Reporter())
    sides.load(Reporter())
    sides.embed_reference(Reporter())
    sides.embed_pool(Reporter())
    alive = sides.usable.copy()
    dropped = {}
    for gate in in_order(config):
        verdict = gate.test(sides.evidence, alive)
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
            among = sides.usable if method is None or "without gates" in arm else alive
            rows = (
                random_rows(sides, among, asked, 1)[0]
                if method in (None, "random")
                else np.concatenate(pick(sides, among, asked, method)[0])
            )
            arms[arm].append(rows)
    if not WITH_TRAINING:
        gaps = {arm: _gaps(sides, by_seed, arms[RANDOM]) for arm, by_seed in arms.items()}
        return {"pool": len(sides.pool), "dropped": dropped, "seeds": SEEDS, "training": "not run", "arms": gaps}
    trainer = Trainer(sides, np.unique(np.concatenate([rows for by_seed in arms.values() for rows in by_seed])))
    if holdout is not None:
        test, truth, names = holdout
        order = np.array([sides.classes.index(name) for name in names])
        trainer.validation_V = to_float(torch.from_numpy(np.repeat(test[:, None], 3, axis=1).copy()))
        trainer.truth_V = torch.from_numpy(order[truth])
    trained = {arm: _said(arm, trainer.arm(by_seed)) for arm, by_seed in arms.items()}
    trained[REAL] = _said(REAL, Arm.of([_on_real(trainer, size, seed) for seed in range(SEEDS)]))
    return {
        "pool": len(sides.pool),
        "dropped": dropped,
        "seeds": SEEDS,
        "scored on": f"{len(trainer.truth_V)} {'test' if holdout else 'validation'} images",
        "arms": {
            arm: _learned(trainer, one, trained) | (_gaps(sides, arms[arm], arms[RANDOM]) if arm in arms else {})
            for arm, one in trained.items()
        },
    }


def _on_real(trainer: Trainer, size: int, seed: int) -> tuple[Any, Any]:
    """Train on as many real images as are selected, at most all."""
    rows = np.random.default_rng(seed).permutation(len(trainer.real))
    rows = np.concatenate([rows[trainer.real_class[rows] == number][:size] for number in np.unique(trainer.real_class)])
    return trainer.learn(trainer.real[rows], torch.from_numpy(trainer.real_class[rows]), seed)


def _said(name: str, arm: Arm) -> Arm:
    print(f"{name}: {arm.correct_SV.mean(axis=1).round(4).tolist()}", flush=True)
    return arm


def _learned(trainer: Trainer, arm: Arm, trained: dict[str, Arm]) -> dict[str, Any]:
    """Accuracy over seeds, each beside that of random images by the same seed, and by class."""
    against = trained[RANDOM]
    by_seed_S = arm.correct_SV.mean(axis=1) - against.correct_SV.mean(axis=1)
    half = float(stats.t.ppf(0.975, SEEDS - 1) * by_seed_S.std(ddof=1) / SEEDS**0.5)
    over_images = trainer.difference(arm, against).accuracy
    real_gain = float((trained[REAL].correct_SV - against.correct_SV).mean())
    return {
        "accuracy": spread(arm.correct_SV.mean(axis=1).tolist()),
        "accuracy, mean": round(float(arm.correct_SV.mean()), 4),
        "less random, 95 % over seeds": f"{by_seed_S.mean():+.4f} [{by_seed_S.mean() - half:+.4f}, {by_seed_S.mean() + half:+.4f}]",
        "less random, 95 % over images and seeds": f"{over_images.value:+.4f} [{over_images.low:+.4f}, {over_images.high:+.4f}]",
        "share of what real images would gain": round(float(by_seed_S.mean()) / real_gain, 3) if real_gain > 0 else None,
        "accuracy by class": trainer.score(arm, 0).accuracy_by_class,
    }


def _gaps(sides: Sides, by_seed: list[NDArray[np.int64]], random: list[NDArray[np.int64]]) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, views in (("all real images", sides.metric_views), ("validation images", sides.held_out_views)):
        gaps = [
            measure_gap(
                views, classes=sides.classes, before=np.flatnonzero(sides.usable), after=rows, random=random, seed=seed, num_splits=2
            ).metrics["mmd"]
            for seed, rows in enumerate(by_seed)
        ]
        figures[f"mmd2 to {name}"] = spread([gap.after.value or 0.0 for gap in gaps])
        figures[f"less random, to {name}"] = [_interval(gap) for gap in gaps]
    return figures


def _interval(gap: Distances) -> str:
    difference = gap.after_minus_random
    assert difference is not None and difference.value is not None
    return f"{difference.value:+.5f} [{difference.low:+.5f}, {difference.high:+.5f}]"


if __name__ == "__main__":
    os.chdir(Path(__file__).parent.parent)
    main()
