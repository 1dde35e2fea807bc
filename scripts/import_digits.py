"""Make the built-in digits: scikit-learn's copy of the UCI handwritten digits as two dataset folders, reference and
holdout.

    python scripts/import_digits.py synthforge/assets/digits

Split by position, because neighbours in the file come from the same hands: the first 1,000 are the reference (800 fit,
200
validation), the last 797 the holdout.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from synthforge.data.folder import import_shard
from synthforge.data.images import encode
from synthforge.data.layout import Manifest, Segment, digest_of, key_of
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar

ORIGIN = {
    "name": "Optical Recognition of Handwritten Digits (test part), as in scikit-learn's load_digits",
    "authors": "E. Alpaydin, C. Kaynak (1998), UCI Machine Learning Repository",
    "doi": "10.24432/C50P49",
    "licence": "CC BY 4.0",
    "change": "grey levels 0 to 16 scaled to 0 to 255 (times 255/16, rounded)",
}


def import_part(out: Path, name: str, start: int, stop: int, parts: dict[str, tuple[int, int]]) -> None:
    digits = load_digits()
    images = np.rint(digits.images[start:stop] * 255 / 16).astype(np.uint8)[..., None]
    labels = digits.target[start:stop]
    origin = {**ORIGIN, "rows": [start, stop]}
    manifest = Manifest(
        kind="real",
        classes=[str(digit) for digit in range(10)],
        image_format="png",
        plan_digest=digest_of(origin),
        recipe=origin,
        generator=None,
        segment=Segment(first_sample=0, num_samples=stop - start, first_shard=0, samples_per_shard=stop - start),
        parts=parts,
    )
    samples = [
        EncodedSample(key_of(index), encode(image, "png", 100, marking=False), "png", int(label), str(label), {"class": str(label)})
        for index, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    import_shard(Folder(str((out / name).resolve())), manifest, lambda path: write_tar(path, samples))


if __name__ == "__main__":
    out = Path(sys.argv[1])
    import_part(out, "reference", 0, 1000, {"fit": (0, 800), "validation": (800, 1000)})
    import_part(out, "holdout", 1000, 1797, {})
