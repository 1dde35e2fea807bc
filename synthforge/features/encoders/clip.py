"""CLIP models, loaded by open_clip (Radford et al. 2021, arXiv 2103.00020; Ilharco et al. 2021, doi
10.5281/zenodo.5143773).

Features are the model's `encode_image`, scaled to length 1. Images are normalised as its configuration says.
open_clip's own transform is not used, so real and synthetic images are resized in the same way.
SigLIP models are used with a softmax over texts too; their bias is the same for all texts and has no effect there.
Not covered: weights stored as pickles.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.pretrained import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional

from synthforge.data import model_files
from synthforge.data.layout import digest_of
from synthforge.errors import ModelError, did_you_mean
from synthforge.features.encoders.config import OpenClipConfig
from synthforge.features.encoders.folds import folds_in, read_report
from synthforge.features.encoders.network import DeviceNetwork
from synthforge.features.encoders.protocol import Encoder, Loading

CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
"""File names of weights, in open_clip's order of preference."""
_TEXTS_AT_ONCE = 256


@dataclass(frozen=True)
class ClipFiles:
    """A CLIP model whose files are on this disk."""

    name: str
    """Name for reports."""
    model: str
    """Name for open_clip: an architecture, `local-dir:FOLDER` or `hf-hub:ID`."""
    pretrained: str | None
    """Weights for open_clip. None: the model name includes them."""
    weights: Path
    quick_gelu: bool = False
    """Whether the weights were trained with QuickGELU, whatever the architecture says."""
    folder: Path | None = None
    """Folder that may hold fitted.json. None: a pretrained model."""

    @property
    def is_of_hub(self) -> bool:
        """Whether open_clip finds the model by a name of the hub."""
        return self.folder is None and self.pretrained != str(self.weights)


class ClipEncoder(Encoder):
    """One view by a CLIP model. Classes are given as texts, so it does not classify by itself."""

    def __init__(self, files: ClipFiles, config: OpenClipConfig, device: str, where: str) -> None:
        self.name = files.name
        self.seen = frozenset(read_report(files.folder, where).get("seen", [])) if files.folder else frozenset[str]()
        self._where, self._files = where, files
        with model_files.in_one_line(files.name, where, asks_hub=files.is_of_hub):
            model: nn.Module = open_clip.create_model(
                files.model, files.pretrained, require_pretrained=True, force_quick_gelu=files.quick_gelu
            )
            preprocessing = open_clip.get_model_preprocess_cfg(model)
            self._model = model.float()
            architecture = {**open_clip.get_model_config(files.model), "forced_quick_gelu": files.quick_gelu}
        size = preprocessing["size"]
        sides = {size} if isinstance(size, int) else set(size)
        if len(sides) != 1:
            raise ModelError(f"{where}: {files.name} takes images of {size} pixels; only squares are supported")
        self.resolution = int(sides.pop())
        self.network = DeviceNetwork(
            self._model,
            model.encode_image,  # type: ignore[arg-type]
            device=device,
            precision=config.precision,
            mean=preprocessing["mean"],
            std=preprocessing["std"],
            where=where,
        )
        self.dim = self.network.dim(self.resolution, files.name, where)
        self.logit_scale = float(model.logit_scale.exp())  # type: ignore[operator]
        self._tokenizer: Any = None
        self._has_hub_tokenizer = files.is_of_hub or (files.folder is None and "hf_tokenizer_name" in architecture.get("text_cfg", {}))
        self._identity = {
            "kind": "open_clip",
            "model": files.name,
            "architecture": digest_of(architecture),
            "weights": model_files.file_sha256(files.weights, where),
            **self.network.identity(self.resolution),
        }

    def identity(self) -> dict[str, Any]:
        """See `Encoder`."""
        return self._identity

    def embed(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """See `Encoder`; of length 1."""
        return functional.normalize(self.network.features(images_NHWC), dim=1).cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: list[str]) -> NDArray[np.float32]:
        """See `Encoder`."""
        if self._tokenizer is None:
            # Some architectures with weights of one's own have a tokenizer on the hub.
            with model_files.in_one_line(f"the tokenizer of {self.name}", self._where, asks_hub=self._has_hub_tokenizer):
                self._tokenizer = open_clip.get_tokenizer(self._files.model)
        features = [np.zeros((0, self.dim), dtype=np.float32)]
        for start in range(0, len(texts), _TEXTS_AT_ONCE):
            tokens = self._tokenizer(texts[start : start + _TEXTS_AT_ONCE]).to(self.network.device)
            with self.network.autocast():
                features_TD = self._model.encode_text(tokens).float()  # type: ignore[operator]
            features.append(functional.normalize(features_TD, dim=1).cpu().numpy())
        return np.concatenate(features)


def load(config: OpenClipConfig, loading: Loading) -> list[ClipEncoder]:
    """The encoders of a Config, one for each fold of a cross-fitted model; raises ModelError."""
    return [ClipEncoder(files, config, loading.device, loading.where) for files in find(config, loading.where)]


def find(config: OpenClipConfig, where: str) -> list[ClipFiles]:
    """The files of a Config's models, fetched from the hub if necessary; raises ModelError."""
    name, pretrained = config.model, config.pretrained
    path = model_files.as_path(name)
    if path is not None and path.is_dir() and name not in open_clip.list_models():
        if pretrained is not None:
            raise ModelError(f"{where}.pretrained: {name} is a folder, which holds its own weights; remove `pretrained`")
        return _in_folder(name, path, where)
    if path is not None and path.suffix == ".json":
        return [_of_architecture(_registered(path, where), pretrained, where, path.stem)]
    if name.replace("/", "-") in open_clip.list_models():
        return [_of_architecture(name.replace("/", "-"), pretrained, where, name)]
    if identifier := model_files.hub_id(name):
        weights = model_files.fetch_file(identifier, WEIGHTS_FILES[0], f"{where}.model")
        return [ClipFiles(identifier, f"hf-hub:{identifier}", None, weights)]
    hint = did_you_mean(name, open_clip.list_models(), "name a folder with open_clip_config.json, a hub id, or one of open_clip's models")
    raise ModelError(f"{where}.model: there is no {name}; {hint}")


def _in_folder(name: str, folder: Path, where: str) -> list[ClipFiles]:
    models = []
    for number, place in enumerate(folds := folds_in(folder) or [folder]):
        if not (place / CONFIG_FILE).is_file():
            raise ModelError(f"{where}.model: {place} has no {CONFIG_FILE}, so it is no model of open_clip; check the path")
        weights = model_files.weights_in(place, WEIGHTS_FILES, f"{where}.model")
        title = model_files.public_name(name, folder) + (f", fold {number + 1} of {len(folds)}" if place != folder else "")
        models.append(ClipFiles(title, f"local-dir:{place}", None, weights, folder=place))
    return models


def _of_architecture(model: str, pretrained: str | None, where: str, name: str) -> ClipFiles:
    """Files of an open_clip architecture, with weights from a file or by tag."""
    where = f"{where}.pretrained"
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained is None:
        some = f"one of {', '.join(tags)}, or " if tags else ""
        raise ModelError(f"{where}: {name} is an architecture without weights; give {some}a .safetensors file")
    path = model_files.as_path(pretrained)
    if path is not None or Path(pretrained).suffix in {".safetensors", ".bin", ".pt", ".pth"}:
        weights = model_files.require_safetensors(path or Path(pretrained), where)
        return ClipFiles(f"{name} {weights.name}", model, str(weights), weights)
    tag = get_pretrained_cfg(model, pretrained)
    if not tag:
        known = f"known are {', '.join(tags)}" if tags else "none are known; give a .safetensors file"
        raise ModelError(f"{where}: {name} has no weights {pretrained}; {did_you_mean(pretrained, tags, known)}")
    repository, _, file = tag.get("hf_hub", "").rpartition("/")
    if not repository:
        raise ModelError(f"{where}: {name} {pretrained} is on no hub as safetensors, only as a pickle; choose other weights")
    weights = model_files.fetch_file(repository, f"{Path(file).stem}.safetensors" if file else WEIGHTS_FILES[0], where)  # as open_clip does
    return ClipFiles(f"{name} {pretrained}", model, pretrained, weights, quick_gelu=bool(tag.get("quick_gelu")))


def _registered(path: Path, where: str) -> str:
    """Register an architecture file with open_clip; the name holds its digest, so no other is replaced."""
    try:
        architecture = json.loads(path.read_bytes())
        architecture = architecture.get("model_cfg", architecture)
        missing = [part for part in ("embed_dim", "vision_cfg", "text_cfg") if part not in architecture]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(f"{where}.model: {path} can't be read ({error}); it should be an architecture as open_clip has them") from error
    if missing:
        raise ModelError(f"{where}.model: {path} has no {missing[0]}; it should be an architecture as open_clip has them")
    name = f"{path.stem}-{digest_of(architecture)[:12]}"
    if name not in open_clip.list_models():
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / f"{name}.json"
            copy.write_text(json.dumps(architecture))
            open_clip.add_model_config(copy)
    return name
