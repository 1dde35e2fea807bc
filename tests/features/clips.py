"""A tiny, randomly initialised CLIP, saved as open_clip's models are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from synthforge.features.encoders.clip import CONFIG_FILE, WEIGHTS_FILES

TINY_CLIP: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
NORMALISED = {"mean": [0.3, 0.4, 0.5], "std": [0.2, 0.3, 0.4]}


def write_clip(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    save_file(open_clip.CLIP(**TINY_CLIP).state_dict(), folder / WEIGHTS_FILES[0])
    (folder / CONFIG_FILE).write_text(json.dumps({"model_cfg": TINY_CLIP, "preprocess_cfg": NORMALISED}))
    return folder
