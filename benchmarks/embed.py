"""The whole embedding stage beside its model alone: images per second from a tar of files, and from arrays that are
ready."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from benchmarks.harness import keep, paired, seconds
from synthforge.data.images import ImageFormat, decode, encode, resize
from synthforge.data.opening import open_collection
from synthforge.data.read_config import Reading
from synthforge.errors import SynthforgeError
from synthforge.features.embed import EmbedStream, EmbedWork
from synthforge.features.encoders.clip import CONFIG_FILE, WEIGHTS_FILES
from synthforge.features.encoders.config import OpenClipConfig
from synthforge.features.encoders.protocol import Encoder, Loading

BATCH, PAIRS = 64, 3
FORMATS: tuple[ImageFormat, ...] = ("png", "jpg")
TEXTS = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
SMALL = {"image_size": 96, "patch_size": 16, "width": 256, "layers": 6, "head_width": 64}
"""A vision transformer far smaller than those of use: a larger one hides more of the rest."""
DEFAULT = {"image_size": 224, "patch_size": 32, "width": 768, "layers": 12, "head_width": 64}
"""That of ViT-B-32, which is the default encoder."""


def main() -> None:
    found: dict[str, Any] = {"threads": torch.get_num_threads()}
    for name, vision, num, size in (("the default, ViT-B-32", DEFAULT, 256, 256), ("a far smaller one", SMALL, 600, 128)):
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory)
            (encoder,) = _model(place / "model", vision).build(Loading(place))
            files = f"{num} files of {size} px, half PNG, half JPEG, images per second"
            found[name] = {"vision": vision, files: _measure(place, _tar(place / "images.tar", num, size), num, encoder)}
    keep("embed", "images per second of the whole embedding stage over its model alone; the target is 0.9", found)


def _model(folder: Path, vision: dict[str, int]) -> OpenClipConfig:
    """With random weights, which take as long as others."""
    folder.mkdir()
    torch.manual_seed(0)
    settings: dict[str, Any] = {"embed_dim": 512, "vision_cfg": vision, "text_cfg": TEXTS}
    save_file(open_clip.CLIP(**settings).state_dict(), folder / WEIGHTS_FILES[0])
    (folder / CONFIG_FILE).write_text(
        json.dumps({"model_cfg": settings, "preprocess_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.3, 0.3, 0.3]}})
    )
    return OpenClipConfig(model=str(folder))


def _tar(path: Path, num: int, size: int) -> Path:
    """Smooth images with a little noise, which compress about as photographs do."""
    rng = np.random.default_rng(0)
    with tarfile.open(path, "w") as tar:
        for number in range(num):
            smooth = resize(rng.integers(0, 248, (8, 8, 3), dtype=np.uint8), size)
            image = np.minimum(smooth, 247) + rng.integers(0, 8, smooth.shape, dtype=np.uint8)
            image_format = FORMATS[number % len(FORMATS)]
            for extension, data in ((image_format, encode(image, image_format, 90, marking=False)), ("cls", b"0")):
                member = tarfile.TarInfo(f"{number:06d}.{extension}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


def _measure(place: Path, tar: Path, num: int, encoder: Encoder) -> dict[str, Any]:
    """The stage begins with nothing: no index of the tar and no features."""
    ready = _ready(tar, encoder.resolution)

    def stage() -> float:
        with tempfile.TemporaryDirectory(dir=place) as cache:
            work = EmbedWork(str(tar), ["a"], Reading(), (), Path(cache), "auto", BATCH, None, "")
            taken = seconds(lambda: _embed(work, encoder))
            (features,) = Path(cache).rglob("*.npy")
            assert np.isfinite(np.load(features)).all()
        return num / taken

    def bare() -> float:
        return num / seconds(lambda: [encoder.embed(batch).numpy() for batch in ready])

    return paired(stage, bare, PAIRS)


def _embed(work: EmbedWork, encoder: Encoder) -> None:
    collection = open_collection(work.address, work.cache, classes=work.classes)
    for _, outcome in EmbedStream(work, [encoder]).run(iter(collection.blocks), lambda _: None):
        assert not isinstance(outcome, SynthforgeError) and outcome == 0


def _ready(tar: Path, resolution: int) -> list[NDArray[np.uint8]]:
    with tarfile.open(tar) as opened:
        names = [name for name in opened.getnames() if not name.endswith(".cls")]
        images = np.stack([resize(decode(opened.extractfile(name).read(), 3), resolution) for name in names])  # type: ignore[union-attr]
    return [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
