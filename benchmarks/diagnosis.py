"""Does `diagnose` name the right cause? Pools of real Fashion-MNIST images, spoilt in one known way, 10 times each with
other images.

content: of each class only the half that lies lowest along its first principal component. appearance: blurred. labels:
three in ten wrong. Of the loss as it was measured, the share that is attributed to the part that was planted is to be
80 % or more in at least 9 of 10. real: not spoilt, so that no loss is to be proven. unrendered: blurred, but what
renderings look like is not given, so that the rest is to take the loss. shown: how often a class of few real images
shows that half of its kinds are absent, or all there. Images are shrunk to 12 px; 150 real images of a class, of which
30 are for validation, pools of 400, tests on 2,000 test images. The real images are given as they look after the same
blur (--rendered), or as they are. Some two and a half minutes each on two cores. KINDS=content,real and TIMES=3 measure
less.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks import fashion
from benchmarks.harness import keep
from synthforge.data.images import encode, resize
from synthforge.evaluation.diagnosis.content import SIGNIFICANT, content_weights
from synthforge.evaluation.diagnosis.request import diagnosis_of
from synthforge.evaluation.diagnosis.run import diagnose
from synthforge.evaluation.results.types import DiagnoseResult

CLAIM = "the planted cause of a loss is named by `diagnose`"
KINDS = ("shown", "content", "appearance", "labels", "real", "unrendered")
SIDE, REAL, POOL, HOLDOUT = 12, 150, 400, 2000
BLUR, WRONG, KEPT = 1.2, 0.3, 0.5
FIRST = 100
"""Number of the first pool; on the first few the constants of `labels` and `content` were tried."""
SETTINGS = [
    "trainer={steps: 300, batch: 32, width: 16, learning_rate: 0.01, augment: {shift: 0.08}}",
    "tuning.on=false",
    "seeds=5",
]


def main() -> None:
    if not fashion.is_there():
        print(f"not measured: {fashion.PLACE} is not there; apt-get install dataset-fashion-mnist")
        return
    times = int(os.environ.get("TIMES", "10"))
    for kind in os.environ.get("KINDS", ",".join(KINDS)).split(","):
        if kind == "shown":
            keep("diagnosis", "how often a class of few real images shows another distribution", shown(times), part=kind)
            continue
        rows: list[dict[str, float]] = []
        proven: list[str] = []
        for seed in range(FIRST, FIRST + times):
            with tempfile.TemporaryDirectory() as place:
                result = planted(Path(place), kind, seed)
            loss = result.tables[0].settings[0].loss
            of_parts = {name: part.loss.value if part.loss is not None else 0.0 for name, part in loss.parts.items()}
            assert loss.whole.loss is not None
            row = {"whole": loss.whole.loss.value, **of_parts}
            rows.append(row)
            parts = {"whole": loss.whole, **loss.parts}
            proven.append(", ".join(name for name, part in parts.items() if part.verdict == "loss"))
            print(kind, seed, {name: round(100 * value, 1) for name, value in row.items()}, result.verdict, flush=True)
        keep("diagnosis", CLAIM, {**_summed(kind, rows), "proven to be a loss": proven}, part=kind)


def shown(times: int) -> dict[str, str]:
    """Classes that are shown to be distributed otherwise, by the number of real images and what the pool is."""
    images, labels = fashion.read("train")
    found = {}
    for num, kind in itertools.product((5, 10, 20, 60, 120), ("half of the kinds", "all kinds")):
        told: list[float] = []
        for seed in range(FIRST, FIRST + times):
            chooser = np.random.default_rng(seed)
            for number in range(len(fashion.CLASSES)):
                rows = chooser.permutation(np.flatnonzero(labels == number))[: num + 2 * POOL]
                pool = _lowest(images[rows[num:]], rows[num:]) if kind == "half of the kinds" else rows[-POOL:]
                of_real, of_pool = (
                    np.stack([resize(images[row][:, :, None], SIDE).ravel() / 255 for row in side]) for side in (rows[:num], pool)
                )
                told += content_weights(of_real, np.zeros(num, np.int64), of_pool, np.zeros(POOL, np.int64))[1].values()
        found[f"{num} real images, {kind}"] = f"{sum(p_value <= SIGNIFICANT for p_value in told)} of {len(told)}"
        print(num, kind, found[f"{num} real images, {kind}"], flush=True)
    return found


def _summed(kind: str, rows: list[dict[str, float]]) -> dict[str, object]:
    points = [{name: round(100 * value, 2) for name, value in row.items()} for row in rows]
    summed: dict[str, object] = {"mean points": {name: round(float(np.mean([row[name] for row in points])), 2) for name in points[0]}}
    if kind in rows[0]:
        shares = [round(row[kind] / row["whole"], 3) for row in rows]
        summed |= {"share of the planted part": shares, "at least 0.8": f"{sum(share >= 0.8 for share in shares)} of {len(shares)}"}
    return {**summed, "points": points}


def planted(place: Path, kind: str, seed: int) -> DiagnoseResult:
    """Diagnose one spoilt pool."""
    images, labels = fashion.read("train")
    chooser = np.random.default_rng(seed)
    real, pool = [], []
    for number in range(len(fashion.CLASSES)):
        rows = chooser.permutation(np.flatnonzero(labels == number))
        others = rows[REAL : REAL + int(POOL / KEPT)]
        real.append(rows[:REAL])
        pool.append(_lowest(images[others], others) if kind == "content" else others[:POOL])
    look = BLUR if kind in {"appearance", "unrendered"} else 0.0
    shown = labels.copy()
    if kind == "labels":
        wrong = np.concatenate([rows[: int(WRONG * POOL)] for rows in pool])
        shown[wrong] = (labels[wrong] + chooser.integers(1, 10, len(wrong))) % 10
    tests, truth = fashion.read("t10k")
    _write(place / "real", images, labels, np.concatenate(real), 0.0)
    _write(place / "rendered", images, labels, np.concatenate(real), look)
    _write(place / "pool", images, shown, np.concatenate(pool), look)
    _write(place / "holdout", tests, truth, np.arange(HOLDOUT), 0.0)
    addresses = {name: str(place / name) for name in ("real", "holdout", "rendered") if (kind, name) != ("unrendered", "rendered")}
    os.environ["SYNTHFORGE_CACHE"] = str(place / "cache")
    return diagnose(diagnosis_of(None, synthetic=str(place / "pool"), out=str(place / "diagnosis.json"), sets=SETTINGS, **addresses))


def _lowest(images: NDArray[np.uint8], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The part of a class that lies lowest along its first principal component."""
    pixels = images.reshape(len(images), -1).astype(np.float64)
    pixels -= pixels.mean(axis=0)
    along = pixels @ np.linalg.svd(pixels, full_matrices=False)[2][0]
    return rows[np.argsort(along)[:POOL]]


def _write(place: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], rows: NDArray[np.int64], blur: float) -> None:
    for row in rows.tolist():
        small = Image.fromarray(resize(images[row][:, :, None], SIDE)[:, :, 0])
        pixels = np.asarray(small.filter(ImageFilter.GaussianBlur(blur)) if blur else small)
        path = place / fashion.CLASSES[labels[row]] / f"{row:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(pixels[:, :, None], "png", 100, marking=False))


if __name__ == "__main__":
    main()
