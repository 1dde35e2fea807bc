"""The classifiers: our small residual network, and any image model of timm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from synthforge.data.model_files import file_sha256, in_one_line
from synthforge.devices import pick_device
from synthforge.errors import ModelError, RequestError
from synthforge.features.encoders.config import TimmConfig
from synthforge.recipe.evaluation import TrainerConfig
from synthforge.training.networks import Classifier, Norm, resolution_for

if TYPE_CHECKING:
    from synthforge.features.encoders.timm_network import TimmFiles

WHERE = "evaluation.trainer"


def filled_in(config: TrainerConfig, image_size: int) -> TrainerConfig:
    """Fill in the resolution, and check that the network can be found and built; raises ModelError or RequestError.

    Weights from the Hugging Face hub are fetched.

    Args:
        image_size: the shorter side of the real images.
    """
    if config.resolution is None:
        resolution = resolution_for(image_size) if config.network == "residual" else int(_timm(config, 2)[1]["input_size"][1])
        config = config.model_copy(update={"resolution": resolution})
    if config.network != "residual":
        size = config.resolution or 0
        try:
            with torch.inference_mode():
                build(config, 2, "batch").eval()(torch.zeros(2, 3, size, size))
        except (RuntimeError, AssertionError, ValueError) as error:  # networks raise different errors
            raise RequestError(f"{WHERE}: {config.network} can't take images of {size} px ({str(error)[:200]})") from error
    return config


def platform_of(config: TrainerConfig) -> str:
    """What results depend on besides settings, seed and images: the kind of device, and the pretrained weights."""
    device = pick_device(config.device, f"{WHERE}.device").type
    return device if config.start == "scratch" else f"{device} {file_sha256(_find(config).weights, WHERE)}"


def build(config: TrainerConfig, num_classes: int, norm: Norm) -> nn.Module:
    """Build a network from images (n, 3, H, W) in -1 to 1 to logits (n, C); weights come from torch's global RNG."""
    assert config.resolution is not None
    if config.network == "residual":
        return Classifier(config.resolution, config.width, num_classes, norm)
    if norm == "parts":
        raise RequestError(f"{WHERE}: split-norm is for the residual network only; choose another mixing.policy for {config.network}")
    network, data = _timm(config, num_classes)
    normalised = _Normalised(network, data["mean"], data["std"])
    if config.start != "probe":
        return normalised
    with torch.no_grad():
        dim = normalised.eval()(torch.zeros(1, 3, config.resolution, config.resolution)).shape[1]
    return _Probe(normalised, dim, num_classes)


class _Normalised(nn.Module):
    """Turns images in -1 to 1 into those that a network was normalised for."""

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        mean_C, std_C = torch.tensor(mean), torch.tensor(std)
        self.register_buffer("scale", (0.5 / std_C).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", ((0.5 - mean_C) / std_C).view(1, -1, 1, 1), persistent=False)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        output: Tensor = self.network(images_NCHW * self.scale + self.shift)
        return output


class _Probe(nn.Module):
    """A linear layer on the features of a frozen network."""

    def __init__(self, backbone: nn.Module, dim: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.head = nn.Linear(dim, num_classes)

    def train(self, mode: bool = True) -> _Probe:
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, images_NCHW: Tensor) -> Tensor:
        with torch.no_grad():
            features_ND = self.backbone(images_NCHW)
        logits_NC: Tensor = self.head(features_ND)
        return logits_NC


def _find(config: TrainerConfig) -> TimmFiles:
    from synthforge.features.encoders.timm_network import find

    try:
        return find(TimmConfig(model=config.network, pretrained=config.pretrained, resolution=config.resolution), WHERE)
    except ModelError as error:
        raise ModelError(str(error).replace(f"{WHERE}.model", f"{WHERE}.network")) from error


def _timm(config: TrainerConfig, num_classes: int) -> tuple[nn.Module, dict[str, Any]]:
    """A network of timm and its preprocessing; raises ModelError."""
    import timm

    from synthforge.features.encoders.timm_network import create

    name = config.network
    # Without pretrained weights the name of an architecture is enough. Folders and hub ids need their files.
    by_name = config.start == "scratch" and timm.is_model(name.split(".")[0])
    files = None if by_name else _find(config)
    model, weights = files.model if files is not None else name.split(".")[0], None if config.start == "scratch" else files
    with in_one_line(name, f"{WHERE}.network"):
        network = create(model, config.resolution, weights, 0 if config.start == "probe" else num_classes)
    data: dict[str, Any] = timm.data.resolve_model_data_config(network)
    if data["input_size"][0] != 3:
        raise ModelError(f"{WHERE}.network: {name} takes {data['input_size'][0]} channels; only RGB ones are supported")
    return network, data
