"""Fit the built-in encoder and judge on the fit part of the built-in digits, each in two folds.

    python scripts/fit_encoder.py clip synthforge/assets/digits/encoder
    python scripts/fit_encoder.py judge synthforge/assets/digits/judge

The encoder is a tiny CLIP, trained with open_clip's own model, tokenizer and loss on images and captions of their
classes; the metric
encoder
is the library's own classifier, so that the two share neither architecture nor objective. Neither is fitted on a
validation image;
how well they do on those, and on the fold that each did not see, stands in fitted.json.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import Tensor, nn

from synthforge.data.layout import canonical_json
from synthforge.data.reading import Labelled, read_labelled
from synthforge.features.encoders.clip import CONFIG_FILE, WEIGHTS_FILES, ClipEncoder
from synthforge.features.encoders.config import FittedConfig, OpenClipConfig
from synthforge.features.encoders.fitted import fit_folds, seen_in, without_fold
from synthforge.features.encoders.folds import REPORT
from synthforge.features.encoders.protocol import Loading
from synthforge.training.augmentation import augment
from synthforge.training.config import AugmentConfig, LoopConfig
from synthforge.training.data import to_float
from synthforge.training.loop import TrainingLoop

NUM_FOLDS = 2
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "{}",
    "the digit {}",
    "the number {}",
    "a handwritten {}",
    "a handwritten digit {}",
    "a photo of a {}",
    "a photo of the digit {}",
    "a picture of the number {}",
    "an image of a handwritten {}",
    "a scan of a handwritten digit {}",
)
ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 16, "patch_size": 4, "width": 96, "layers": 4, "head_width": 24, "mlp_ratio": 2.0},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2, "mlp_ratio": 2.0},
}
PREPROCESSING = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
GROUPS = 8
"""Images of each class in a batch. They are contrasted in groups with one image of each class, so that no wrong pair is
right."""
LOOP = LoopConfig(images=64_000, batch=GROUPS * len(WORDS), learning_rate=2e-3, weight_decay=0.05, checks=1, seed=1, compile=False)
JUDGE = FittedConfig(
    folds=NUM_FOLDS,
    width=24,
    loop=LoopConfig(images=40_000, batch=128, learning_rate=3e-3, weight_decay=0.05, checks=1, seed=2, compile=False),
)


def fit_clip(out: Path, parts: dict[str, Labelled]) -> None:
    """Fit one CLIP for each fold and write it as open_clip stores models."""
    for fold in range(NUM_FOLDS):
        fitted, left_out = without_fold(parts["fit"], fold, NUM_FOLDS)
        folder = out / f"fold-{fold}"
        folder.mkdir(parents=True)
        model = fit_one(fitted, LOOP.seed + fold)
        (folder / CONFIG_FILE).write_bytes(canonical_json({"model_cfg": ARCHITECTURE, "preprocess_cfg": PREPROCESSING}))
        tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
        used = torch.unique(open_clip.SimpleTokenizer(context_length=16)(captions()))
        # The other rows were never trained; zeros take no room once compressed, and unknown words say nothing.
        table = torch.zeros_like(tensors["token_embedding.weight"])
        table[used] = tensors["token_embedding.weight"][used]
        save_file(tensors | {"token_embedding.weight": table}, folder / WEIGHTS_FILES[0])
        report = {
            "seen": seen_in(fitted),
            "images_fitted": len(fitted.examples),
            "templates": TEMPLATES,
            "loop": LOOP.model_dump(mode="json"),
        }
        report |= {"command": f"python scripts/fit_encoder.py clip {out}", "open_clip": open_clip.__version__, "torch": torch.__version__}
        report["parameters_besides_token_table"] = sum(value.numel() for value in tensors.values()) - table.numel()
        (folder / REPORT).write_bytes(canonical_json(report))
        encoder = OpenClipConfig(model=str(folder)).build(Loading(folder, "cpu"))[0]
        report["zero_shot_accuracy"] = {
            name: zero_shot(encoder, part) for name, part in (("left_out_fold", left_out), ("validation", parts["validation"]))
        }
        (folder / REPORT).write_bytes(canonical_json(report))
        print(f"fold {fold}: {report['parameters_besides_token_table']:,} parameters, {report['zero_shot_accuracy']}")


def captions() -> list[str]:
    """Every caption, class by class; (class, template, numeral or word)."""
    return [template.format(name) for number, word in enumerate(WORDS) for template in TEMPLATES for name in (str(number), word)]


def fit_one(fitted: Labelled, seed: int) -> nn.Module:
    images_NCHW, labels_N = fitted.arrays(ARCHITECTURE["vision_cfg"]["image_size"], 3)
    images_NCHW_float = to_float(torch.from_numpy(images_NCHW))
    rows_by_class = [torch.from_numpy(np.flatnonzero(labels_N == label)) for label in range(len(WORDS))]
    tokens_KPL = open_clip.SimpleTokenizer(context_length=16)(captions()).view(len(WORDS), -1, 16)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**ARCHITECTURE)
    contrast = ClipLoss()

    def loss(network: nn.Module, step: int, generator: torch.Generator) -> Tensor:  # noqa: ARG001 - rows are drawn, not numbered
        with torch.no_grad():
            network.logit_scale.clamp_(0, np.log(100))
        rows = torch.stack([choose(rows, GROUPS, generator) for rows in rows_by_class], dim=1).flatten()
        order = torch.randperm(len(rows), generator=generator)  # the first of a batch are augmented
        moved_BCHW, _ = augment(images_NCHW_float[rows[order]], AugmentConfig(), generator)
        image_BD = network.encode_image(moved_BCHW, normalize=True)[order.argsort()]
        which = torch.randint(tokens_KPL.shape[1], (GROUPS, len(WORDS)), generator=generator)
        text_BD = network.encode_text(tokens_KPL[torch.arange(len(WORDS)), which].flatten(0, 1), normalize=True)
        scale = network.logit_scale.exp()
        pairs = zip(image_BD.chunk(GROUPS), text_BD.chunk(GROUPS), strict=True)
        return torch.stack([contrast(image_KD, text_KD, scale) for image_KD, text_KD in pairs]).mean()

    loop = TrainingLoop(model, loss, LOOP.model_copy(update={"seed": seed}))
    for _ in loop.run():
        pass
    return loop.ema


def choose(rows: Tensor, num: int, generator: torch.Generator) -> Tensor:
    return rows[torch.randint(len(rows), (num,), generator=generator)]


def zero_shot(encoder: ClipEncoder, labelled: Labelled) -> float:
    """Share of images that are nearest to the mean text of their class."""
    images_NCHW, labels_N = labelled.arrays(encoder.resolution, 3)
    image_ND = encoder.embed(images_NCHW.transpose(0, 2, 3, 1)).numpy()
    texts_KD = encoder.embed_texts(captions()).reshape(len(WORDS), -1, encoder.dim).mean(axis=1)
    texts_KD /= np.linalg.norm(texts_KD, axis=1, keepdims=True)
    return round(float(((image_ND @ texts_KD.T).argmax(axis=1) == labels_N).mean()), 4)


def fit_judge(out: Path, parts: dict[str, Labelled]) -> None:
    command = f"python scripts/fit_encoder.py judge {out}"
    fit_folds(parts["fit"], JUDGE, out, validation=parts["validation"], device="cpu", half=True, command=command)
    (out.parent / f".{out.name}.lock").unlink()
    for fold in range(NUM_FOLDS):
        print(f"fold {fold}: {json.loads((out / f'fold-{fold}' / REPORT).read_bytes())['accuracy']}")


if __name__ == "__main__":
    kind, out = sys.argv[1], Path(sys.argv[2])
    torch.set_num_threads(1)  # the order of sums, and so the weights, depend on it
    if out.exists():
        shutil.rmtree(out)
    {"clip": fit_clip, "judge": fit_judge}[kind](out, read_labelled("builtin:digits/reference"))
