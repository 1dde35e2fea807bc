"""Is `auto` ever worse than the best fixed rule? Pools of real Fashion-MNIST images with planted faults, of which each
favours other rules.

The reference is 100 real images of each class to match and 50 to validate on; pools are other real training images, 600
of each class, in which something was planted. Each rule picks 100 of each class; `auto` chooses by trainings scored on
the validation images; then all rules' picks are trained on with other seeds and scored on the 10,000 test images. The
best fixed rule is taken on those same trainings, which flatters it a little. Networks are small and images scaled to 8
px, so that hundreds of trainings take minutes: each suite takes some ten on a core. REGIME=s2r or da measures one of
the two.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy import stats

from benchmarks import fashion
from benchmarks.harness import keep
from synthforge.curation.choice import pick
from synthforge.curation.gates import in_order
from synthforge.curation.selection.trials import PREFERENCE, Arm, Trainer, choose_method, random_rows
from synthforge.curation.sides import Sides
from synthforge.data.images import encode, resize
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from synthforge.training.data import to_float

Images = NDArray[np.uint8]
Plant = Callable[[Images, np.random.Generator], Images]

PER_CLASS, POOL, SELECTED, PIXELS = 150, 600, 100, 8
DRAWS, SEEDS = int(os.environ.get("DRAWS", "2")), int(os.environ.get("SEEDS", "3"))


def as_real(images: Images, rng: np.random.Generator) -> Images:
    """Nothing is wrong."""
    return images[rng.permutation(len(images))[:POOL]]


def half_bad(images: Images, rng: np.random.Generator) -> Images:
    """Half are of a second generator, whose images are blurred and pale."""
    chosen = as_real(images, rng).copy()
    for row in range(POOL // 2):
        blurred = np.asarray(Image.fromarray(chosen[row]).filter(ImageFilter.GaussianBlur(1.5)))
        chosen[row] = (blurred * 0.7).astype(np.uint8)
    return chosen


def too_typical(images: Images, rng: np.random.Generator) -> Images:
    """Six in seven are from the third of the class that is nearest to its mean."""
    away = np.linalg.norm((images - images.mean(axis=0)).reshape(len(images), -1), axis=1)
    order = np.argsort(away)
    typical = rng.permutation(order[: len(order) // 3])[: POOL * 6 // 7]
    return images[np.concatenate([typical, rng.permutation(order[len(order) // 3 :])[: POOL - len(typical)]])]


def too_wide(images: Images, rng: np.random.Generator) -> Images:
    """All are turned by up to 60 degrees and scaled by 0.6 to 1.3, but for a quarter."""
    chosen = as_real(images, rng).copy()
    for row in range(POOL * 3 // 4):
        size = round(28 * rng.uniform(0.6, 1.3))
        turned = Image.fromarray(chosen[row]).resize((size, size)).rotate(rng.uniform(-60, 60))
        canvas = Image.new("L", (28, 28))
        canvas.paste(turned, ((28 - size) // 2, (28 - size) // 2))
        chosen[row] = np.asarray(canvas)
    return chosen


SUITES: dict[str, tuple[str, Plant, list[str]]] = {
    "s2r: real images": ("s2r", as_real, []),
    "s2r: half of a bad generator": ("s2r", half_bad, []),
    "s2r: too many typical ones": ("s2r", too_typical, []),
    "s2r: too wide": ("s2r", too_wide, []),
    "s2r: a third of the labels wrong, no label gate": ("s2r", as_real, ["gates.labels.on=false", "gates.manifold.on=false"]),
    "da: real images": ("da", as_real, []),
    "da: half of a bad generator": ("da", half_bad, []),
    "da: too many typical ones": ("da", too_typical, []),
}


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        reference = fashion.write_reference(Path(directory) / "reference")
        for regime in os.environ.get("REGIME", "s2r da").split():
            found: dict[str, Any] = {}
            for name, (of_regime, plant, sets) in SUITES.items():
                if of_regime == regime:
                    found[name] = measure(Path(directory), reference, regime, plant, sets, swap=1 / 3 if "labels" in name else 0)
                    worse = [suite for suite, figures in found.items() if figures["auto is significantly worse than the best"]]
                    keep("auto", "auto beside the best fixed rule, on planted pools", {**found, "significantly worse on": worse}, regime)


def measure(place: Path, reference: Path, regime: str, plant: Plant, sets: list[str], swap: float) -> dict[str, Any]:
    """One suite: what `auto` chose and what every rule is worth, over draws of the pool and seeds of training."""
    rules = PREFERENCE[regime]  # type: ignore[index]
    accuracy: dict[str, list[float]] = {rule: [] for rule in rules}
    chosen: list[str] = []
    for draw in range(DRAWS):
        pool = write_pool(place, f"{regime}-{plant.__name__}-{swap:.1f}-{draw}", plant, swap, draw)
        base = [f"regime={regime}", "selection.method=auto", f"selection.size.per_class={SELECTED}", f"selection.seed={draw}"]
        config = config_from_sets(CurationConfig, [*base, "trials.images=20000", f"trials.resolution={PIXELS}", *sets])
        sides = Sides.read([str(pool)], str(reference), config, Reporter())
        sides.load(Reporter())
        sides.embed_reference(Reporter())
        sides.embed_pool(Reporter())
        alive = sides.usable.copy()
        for gate in in_order(config):
            alive &= ~gate.test(sides.evidence, alive).fails_N
        chosen.append(choose_method(sides, alive, sides.asked, Reporter())[0])
        for rule, arm in on_test_images(sides, alive, rules).items():
            accuracy[rule] += arm.correct_SV.mean(axis=1).tolist()
    of_auto = np.concatenate([accuracy[rule][draw * SEEDS : (draw + 1) * SEEDS] for draw, rule in enumerate(chosen)])
    best = max(rules, key=lambda rule: np.mean(accuracy[rule]))
    lost_S = of_auto - np.array(accuracy[best])
    half = float(stats.t.ppf(0.975, len(lost_S) - 1) * lost_S.std(ddof=1) / len(lost_S) ** 0.5)
    return {
        "auto chose": chosen,
        "best fixed rule": best,
        "auto less the best": f"{lost_S.mean():+.4f} [{lost_S.mean() - half:+.4f}, {lost_S.mean() + half:+.4f}]",
        "auto is significantly worse than the best": bool(lost_S.mean() + half < 0),
        "test accuracy": {"auto": round(float(of_auto.mean()), 4), **{rule: round(float(np.mean(accuracy[rule])), 4) for rule in rules}},
        "n": f"{DRAWS} pools, {SEEDS} trainings each",
    }


def on_test_images(sides: Sides, alive: NDArray[np.bool_], rules: tuple[str, ...]) -> dict[str, Arm]:
    """Train on what each rule picks, with seeds that no trial used."""
    random = random_rows(sides, alive, sides.asked, SEEDS)
    picks = {rule: random if rule == "random" else [np.concatenate(pick(sides, alive, sides.asked, rule)[0])] * SEEDS for rule in rules}
    trainer = Trainer(sides, np.unique(np.concatenate([rows for by_seed in picks.values() for rows in by_seed])))
    test, labels = fashion.read("t10k")
    small = np.stack([resize(np.repeat(image[:, :, None], 3, axis=2), PIXELS).transpose(2, 0, 1) for image in test])
    trainer.validation_V = to_float(torch.from_numpy(small))
    trainer.truth_V = torch.from_numpy(np.array([sides.classes.index(fashion.CLASSES[label]) for label in labels]))
    return {rule: Arm.of([trainer.train(rows, 100 + seed) for seed, rows in enumerate(by_seed)]) for rule, by_seed in picks.items()}


def write_pool(place: Path, name: str, plant: Plant, swap: float, draw: int) -> Path:
    """A folder of images by class; a share `swap` of them lies in another class's folder."""
    images, labels = fashion.read("train")
    for number, class_name in enumerate(fashion.CLASSES):
        rng = np.random.default_rng([draw, number])
        rows = np.flatnonzero(labels == number)[PER_CLASS:]
        for place_in_pool, image in enumerate(plant(images[rows], rng)):
            other = fashion.CLASSES[(number + 1 + place_in_pool % 9) % 10]
            folder = place / name / (other if place_in_pool < swap * POOL else class_name)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number}-{place_in_pool:04d}.png").write_bytes(encode(image[:, :, None], "png", 100, marking=False))
    return place / name


if __name__ == "__main__":
    main()
