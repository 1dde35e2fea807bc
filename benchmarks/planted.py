"""Faults planted in a pool of real photographs, and the share of each kind that curation drops.

    python -m benchmarks planted --real photos/ --spare other-photos/ --name clothing

REAL is the reference; SPARE holds other images of the same classes, of which a good pool is made. Both are folders of
images by class. Of a pair of duplicates one has to go, whichever: the pair counts as caught if at most one passes.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image, ImageFilter
from scipy.stats import binomtest

from benchmarks.harness import keep
from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
SHARE = 0.1
"""Images of each kind of fault, as a share of the spare images of a class."""
GATES = {
    "the gates that are on by default": [],
    "and the gate `pictures`": ["gates.pictures.on=true"],
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks planted")
    for name in ("real", "spare"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--name", required=True, help="name of the data, for the file of results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--encoder", default="{kind: lite0}")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        found = {name: _measure(given, Path(directory), sets) for name, sets in GATES.items()}
    real = sum(1 for path in given.real.glob("*/*") if path.is_file())
    setting = {"real images": real, "seeds": given.seeds, "encoder": given.encoder}
    keep("planted", "share of planted faults that curation drops, in %", setting | found, part=given.name)


def _measure(given: argparse.Namespace, place: Path, sets: list[str]) -> dict[str, Any]:
    caught: dict[str, Counter[bool]] = defaultdict(Counter)
    seconds, kept, faults = 0.0, 0, 0
    for seed in range(given.seeds):
        pool = place / f"pool-{seed}"
        kinds, partner = plant(given.real, given.spare, pool, seed)
        base = [f"encoder={given.encoder}", "metric_encoder={kind: pixels, resolution: 16}", "trials.check=false", f"cache={place}/cache"]
        config = config_from_sets(CurationConfig, [*base, *sets])
        out, started = place / f"out-{seed}-{len(sets)}", time.perf_counter()
        curate(CurationRequest([str(pool)], str(given.real), str(out), config))
        seconds += time.perf_counter() - started
        rows = pq.read_table(out / "decisions.parquet", columns=["key", "kept", "reason"]).to_pylist()
        fate = {row["key"].replace("~", "/"): (row["kept"] or row["reason"] == "not selected", row["kept"]) for row in rows}
        for key, kind in kinds.items():
            if kind.startswith("duplicate"):
                caught[kind][not (fate[key][0] and fate[partner[key]][0])] += 1
                faults += fate[key][1] and fate[partner[key]][1]
            elif key not in partner.values():
                caught[kind][not fate[key][0]] += 1
                faults += fate[key][1] and kind != "good"
        kept += sum(is_kept for _, is_kept in fate.values())
    shares: dict[str, Any] = {}
    for kind, marks in sorted(caught.items(), key=lambda item: item[0] != "good"):
        interval = binomtest(marks[True], marks.total()).proportion_ci(method="wilson")
        shares[kind] = [round(100 * value, 1) for value in (marks[True] / marks.total(), interval.low, interval.high)] + [marks.total()]
    return {
        "dropped: share, 95 % interval (Wilson), n": shares,
        "faults among the kept, %": round(100 * faults / max(kept, 1), 1),
        "seconds": round(seconds / given.seeds, 1),
    }


def plant(real: Path, spare: Path, pool: Path, seed: int) -> tuple[dict[str, str], dict[str, str]]:
    """Write a pool; returns the kind of each image by CLASS/NUMBER, and of each duplicate the image that it repeats."""
    rng = np.random.default_rng(seed)
    kinds: dict[str, str] = {}
    partner: dict[str, str] = {}
    numbers = iter(rng.permutation(10**6).tolist())
    classes = sorted(path.name for path in real.iterdir() if path.is_dir())

    def put(image: Image.Image, label: str, kind: str) -> str:
        key = f"{label}/{next(numbers):06d}"
        (pool / label).mkdir(parents=True, exist_ok=True)
        image.save(pool / f"{key}.png")
        kinds[key] = kind
        return key

    for label in classes:
        good, originals = (list(rng.permutation(sorted((side / label).iterdir()))) for side in (spare, real))
        num = max(1, int(SHARE * len(good)))
        for path in good[:num]:
            put(_opened(path), str(rng.choice([name for name in classes if name != label])), "wrong label")
        keys = [put(_opened(path), label, "good") for path in good[num:]]
        for number, (kind, change) in enumerate(CHANGES.items()):
            for path in originals[number * num : (number + 1) * num]:
                put(change(_opened(path), rng), label, f"copy, {kind}")
        for number, kind in enumerate(("equal", "mirrored", "encoded again")):
            for place in range(number * num, (number + 1) * num):
                image = _opened(good[num + place])
                again = put(image if kind == "equal" else CHANGES[kind](image, rng), label, f"duplicate, {kind}")
                partner[again] = keys[place]
        for place in range(3 * num, 4 * num):
            image = _opened(good[num + place % (len(good) - num)])
            for kind, fault in FAULTS.items():
                put(fault(image, rng), label, kind)
    return kinds, partner


def _opened(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def _encoded(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(60, 91)))
    return Image.open(buffer).convert("RGB")


def _scaled(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    share = rng.uniform(0.5, 0.75)
    return image.resize((round(share * image.width), round(share * image.height)), Image.Resampling.BICUBIC)


def _mirrored(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def _cropped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """By up to a fifth of each side, anywhere."""
    share, down, right = rng.uniform(0.8, 0.95), rng.random(), rng.random()
    width, height = share * image.width, share * image.height
    left, top = right * (image.width - width), down * (image.height - height)
    return image.crop((round(left), round(top), round(left + width), round(top + height))).resize(image.size, Image.Resampling.BICUBIC)


def _darker(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray((np.asarray(image) * rng.uniform(0.6, 0.9)).astype(np.uint8))


def _noise(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (image.height, image.width, 3), dtype=np.uint8))


def _blurred(image: Image.Image, rng: np.random.Generator) -> Image.Image:  # noqa: ARG001
    return image.filter(ImageFilter.GaussianBlur(max(2, min(image.size) / 12)))


def _flat(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return Image.new("RGB", image.size, tuple(rng.integers(0, 256, 3).tolist()))


def _ramp(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    along = np.linspace(0, 255, image.width)[None, :, None] * np.ones((image.height, 1, 3)) * rng.uniform(0.3, 1, 3)
    return Image.fromarray(along.astype(np.uint8))


CHANGES: dict[str, Change] = {"encoded again": _encoded, "scaled": _scaled, "mirrored": _mirrored, "cropped": _cropped, "darker": _darker}
FAULTS: dict[str, Change] = {"noise": _noise, "blur": _blurred, "flat": _flat, "gradient": _ramp}
