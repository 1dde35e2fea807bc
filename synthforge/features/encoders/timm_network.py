"""Image networks of timm (Wightman 2019, doi 10.5281/zenodo.4414861): pooled features before the classifier.

Images are normalised as the model's configuration says. Its crop share and interpolation are not used, so real and
synthetic images are resized in the same way.
Not covered: weights stored as pickles or .npz; networks for images that are not square RGB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timm
from numpy.typing import NDArray
from torch import Tensor, nn

from synthforge.data import model_files
from synthforge.errors import ModelError, did_you_mean
from synthforge.features.encoders.config import TimmConfig
from synthforge.features.encoders.network import DeviceNetwork
from synthforge.features.encoders.protocol import Encoder, Loading

WEIGHTS_FILES = ("model.safetensors",)
"""File name of the weights that timm takes from a folder."""


@dataclass(frozen=True)
class TimmFiles:
    """A network whose weights are on this disk."""

    name: str
    """Name for reports."""
    model: str
    """Name for timm: an architecture with its tag, or `local-dir:FOLDER`."""
    weights: Path
    config: Path | None = None
    """config.json of a folder in which timm finds the weights itself. None: an architecture with a weights file."""


class TimmEncoder(Encoder):
    """One view by a timm network. Its own classes are not the reference's, so it does not classify."""

    def __init__(self, files: TimmFiles, config: TimmConfig, device: str, where: str) -> None:
        self.name = files.name
        with model_files.in_one_line(files.name, where):
            model = create(files.model, config.resolution, files)
            data = timm.data.resolve_model_data_config(model)
        channels, height, width = data["input_size"]
        if channels != 3 or (height != width and config.resolution is None):
            raise ModelError(f"{where}: {files.name} takes images of {data['input_size']}; only square RGB ones are supported")
        self.resolution = config.resolution or int(height)
        self.network = DeviceNetwork(
            model, model, device=device, precision=config.precision, mean=data["mean"], std=data["std"], where=where
        )
        with model_files.in_one_line(f"{files.name} at {self.resolution} px", where):
            self.dim = self.network.dim(self.resolution, files.name, where)
        self._identity = {
            "kind": "timm",
            "model": files.name,
            "architecture": model_files.file_sha256(files.config, where) if files.config else files.model,
            "weights": model_files.file_sha256(files.weights, where),
            **self.network.identity(self.resolution),
        }

    def identity(self) -> dict[str, Any]:
        """See `Encoder`."""
        return self._identity

    def embed(self, images_NHWC: NDArray[np.uint8]) -> Tensor:
        """See `Encoder`."""
        return self.network.features(images_NHWC).cpu()


def load(config: TimmConfig, loading: Loading) -> list[TimmEncoder]:
    """The one encoder of a Config; raises ModelError."""
    return [TimmEncoder(find(config, loading.where), config, loading.device, loading.where)]


def find(config: TimmConfig, where: str) -> TimmFiles:
    """The files of a Config's network, fetched from the hub if necessary; raises ModelError."""
    name = config.model
    architecture = name.split(".")[0]
    if timm.is_model(architecture):
        return _of_architecture(config, where)
    if config.pretrained is not None:
        known = did_you_mean(architecture, timm.list_models(), "name one of timm's models")
        raise ModelError(f"{where}.model: `pretrained` goes with an architecture, and there is no {name}; {known}")
    folder = model_files.as_path(name)
    if folder is not None and folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelError(f"{where}.model: {folder} has no config.json, so it is no model of timm; check the path")
        weights = model_files.weights_in(folder, WEIGHTS_FILES, f"{where}.model")
        return TimmFiles(model_files.public_name(name, folder), f"local-dir:{folder}", weights, folder / "config.json")
    if identifier := model_files.hub_id(name):
        settings, weights = (model_files.fetch_file(identifier, file, f"{where}.model") for file in ("config.json", WEIGHTS_FILES[0]))
        return TimmFiles(identifier, f"local-dir:{settings.parent}", weights, settings)
    hint = did_you_mean(architecture, timm.list_models(), "name a folder with config.json, a hub id, or one of timm's models")
    raise ModelError(f"{where}.model: there is no {name}; {hint}")


def _of_architecture(config: TimmConfig, where: str) -> TimmFiles:
    """Files of a timm architecture, with weights from a file or by tag."""
    architecture, _, tag = config.model.partition(".")
    if config.pretrained is not None:
        weights = model_files.require_safetensors(model_files.as_path(config.pretrained) or Path(config.pretrained), f"{where}.pretrained")
        return TimmFiles(f"{config.model} {weights.name}", config.model, weights)
    tags = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*") if name.partition(".")[0] == architecture]
    if tag and tag not in tags:
        hint = did_you_mean(tag, tags, f"known are {', '.join(tags) or 'none'}")
        raise ModelError(f"{where}.model: {architecture} has no weights {tag}; {hint}")
    source = timm.get_pretrained_cfg(config.model)
    if source is None or not source.hf_hub_id:
        raise ModelError(f"{where}.pretrained: timm has no weights for {config.model} on the hub; give a .safetensors file")
    # Repositories in open_clip's form use another file name; each has a safetensors file beside the pickle.
    file = "open_clip_model.safetensors" if "open_clip" in (source.hf_hub_filename or "") else WEIGHTS_FILES[0]
    return TimmFiles(config.model, config.model, model_files.fetch_file(source.hf_hub_id, file, f"{where}.model"))


def create(model: str, resolution: int | None, files: TimmFiles | None, num_classes: int = 0) -> nn.Module:
    """A timm network with weights from files, or random ones if None. With 0 classes it gives pooled features."""
    options: dict[str, Any] = {"num_classes": num_classes}
    if files is not None and files.config is None:
        options["pretrained_cfg_overlay"] = {"file": str(files.weights), "custom_load": False}
    # Networks of a fixed size need it when they are made; others don't have the argument.
    if resolution is not None and timm.create_model(model, **options).pretrained_cfg.get("fixed_input_size"):
        options["img_size"] = resolution
    network: nn.Module = timm.create_model(model, pretrained=files is not None, **options)
    return network
