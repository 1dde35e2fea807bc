"""The same picture by pixels. Pictures are smooth textures with edges, and differ."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from synthforge.features.pictures import EQUAL, LIMIT, Pictures, limit_for, repeated, thumbnail


def picture(seed: int, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Areas of several sizes and colours, as in a photograph."""
    rng = np.random.default_rng(seed)
    image = Image.new("RGB", size)
    for side in (4, 9, 20):
        layer = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        image = Image.blend(image, layer, 0.5) if side > 4 else layer
    return image


def encoded(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=60)
    return Image.open(buffer).convert("RGB")


def part(left: float, top: float, right: float, bottom: float) -> Callable[[Image.Image], Image.Image]:
    def cropped(image: Image.Image) -> Image.Image:
        w, h = image.size
        return image.crop((round(left * w), round(top * h), round(right * w), round(bottom * h))).resize((w, h), Image.Resampling.BICUBIC)

    return cropped


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "equal": lambda image: image,
    "encoded again": encoded,
    "scaled": lambda image: image.resize((40, 30), Image.Resampling.BICUBIC),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "darker": lambda image: Image.fromarray((np.asarray(image) * 0.6).astype(np.uint8)),
    "middle": part(1 / 16, 1 / 16, 15 / 16, 15 / 16),
    "corner": part(0, 0, 0.8, 0.8),
    "side": part(0.12, 0, 1, 1),
    "mirrored corner": lambda image: part(0.2, 0.2, 1, 1)(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def thumbnails(images: list[Image.Image]) -> np.ndarray:
    return np.stack([thumbnail(np.asarray(image)) for image in images])


REFERENCE = [picture(seed) for seed in range(60)]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_picture_is_found(change: str) -> None:
    found = Pictures(thumbnails(REFERENCE)).most_like(thumbnails([CHANGES[change](image) for image in REFERENCE]))
    assert found.row_N.tolist() == list(range(60))
    assert found.correlation_N.min() >= LIMIT


def test_other_pictures_are_not() -> None:
    found = Pictures(thumbnails(REFERENCE)).most_like(thumbnails([picture(1000 + seed) for seed in range(200)]))
    assert found.correlation_N.max() < 0.8


def test_flat_noisy_and_blurred_pictures_are_nothings_copy() -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (72, 96, 3), dtype=np.uint8))
    strange = [Image.new("RGB", (96, 72), 128), noise, REFERENCE[0].filter(ImageFilter.GaussianBlur(12))]
    assert Pictures(thumbnails(REFERENCE)).most_like(thumbnails(strange)).correlation_N.max() < LIMIT


def test_a_pictures_own_source_does_not_count() -> None:
    queries = thumbnails(REFERENCE)
    found = Pictures(queries).most_like(queries, np.arange(60))
    assert found.correlation_N.max() < 0.8
    assert (found.row_N != np.arange(60)).all()


def test_of_repeated_pictures_the_first_stays() -> None:
    mirrored, again = CHANGES["mirrored"](REFERENCE[3]), encoded(REFERENCE[3])
    images = [*REFERENCE[:10], mirrored, again, *[REFERENCE[5]] * 12, CHANGES["mirrored"](REFERENCE[7])]
    assert repeated(thumbnails(images), LIMIT).tolist() == list(range(10, 25))


def test_what_is_like_a_dropped_picture_only_stays() -> None:
    """A chain: each is the same as the one before, the last is not the same as the first."""
    first, last = (np.asarray(picture(seed), float) for seed in (0, 1))
    chain = [Image.fromarray((first + share * (last - first)).astype(np.uint8)) for share in (0.0, 0.25, 0.45)]
    a, b, c = (thumbnails([one]) for one in chain)
    found = [Pictures(one).most_like(other).correlation_N[0] for one, other in ((a, b), (b, c), (a, c))]
    limit = float(min(found[:2])) - 1e-3
    assert found[2] < limit
    assert repeated(thumbnails(chain), limit).tolist() == [1]


def test_the_limit_rises_where_real_pictures_are_alike_and_equal_ones_do_not_count() -> None:
    assert limit_for(np.full(1000, 0.3, np.float32)) == (LIMIT, 0)
    alike = np.linspace(0.5, 0.99, 3000, dtype=np.float32)
    limit, _ = limit_for(alike)
    assert 0.98 < limit < 0.99 and np.mean(alike >= limit) <= 0.001
    limit, num_equal = limit_for(np.concatenate([alike, np.ones(50, np.float32)]))
    assert num_equal == 50 and limit < EQUAL


def test_one_picture_and_none() -> None:
    assert repeated(thumbnails(REFERENCE[:1]), LIMIT).tolist() == []
    assert limit_for(np.zeros(0, np.float32)) == (LIMIT, 0)
