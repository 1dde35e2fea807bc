"""Checks of a pixel pipeline from its configuration files alone, before weights are loaded."""

from __future__ import annotations

from collections.abc import Sequence

from synthforge.data.model_files import GeneratorFiles, ModelFiles, read_config, read_index
from synthforge.errors import ModelError, RequestError, did_you_mean, some
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pixel.config import PixelConfig
from synthforge.generators.schedulers import scheduler_names

_NETWORK = "synthforge.generators.pixel.network"


def check(config: PixelConfig, files: GeneratorFiles, sampling: SamplingConfig, labels: Sequence[str]) -> None:
    """Raise ModelError or RequestError if the model is no pixel pipeline or doesn't fit the recipe."""
    model = files.model
    _check_components(model)
    made_for = image_size(model, sampling)[0]
    if sampling.resolution not in {None, made_for}:
        raise RequestError(
            f"sampling.resolution: the model makes {made_for} px, not {sampling.resolution}; remove the field or fit a model of that size"
        )
    if config.guide == "less_trained" and read_index(model).get("guide", [None])[0] is None:
        raise ModelError(
            f"generator.guide: {config.model} was saved without a less trained copy; use unconditional, or fit it with guide_at"
        )
    names = class_names(model)
    unknown = [label for label in labels if label_number(label, names) is None]
    if unknown:
        hint = did_you_mean(unknown[0], names, f"it knows {some(names)}; say which with label:")
        raise RequestError(f"classes: the model knows no class {some([repr(name) for name in unknown])}; {hint}")


def class_names(files: ModelFiles) -> list[str]:
    """The model's names of its classes, in the order of their numbers."""
    names = read_config(files, "denoiser").get("class_names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ModelError(f"generator.model: {files.name} does not say its classes; fit it again")
    return names


def label_number(label: str, names: Sequence[str]) -> int | None:
    """A class's number, by name, else by number; None if unknown."""
    if label in names:
        return list(names).index(label)
    return int(label) if label.isdecimal() and int(label) < len(names) else None


def image_size(files: ModelFiles, _: SamplingConfig) -> tuple[int, int]:
    """Resolution and channels of the model."""
    config = read_config(files, "denoiser")
    resolution, channels = config.get("resolution"), config.get("channels")
    if not isinstance(resolution, int) or not 1 <= resolution <= 4096 or channels not in {1, 3}:
        raise ModelError(f"generator.model: {files.name} does not say a possible resolution and channels; fit it again")
    return resolution, channels


def _check_components(files: ModelFiles) -> None:
    """Allow only the components of a pixel pipeline; an index could name any module for diffusers to import."""
    expected: dict[str, set[str | None]] = {
        "denoiser": {"PixelDenoiser"},
        "guide": {"PixelDenoiser", None},
        "scheduler": set(scheduler_names()),
    }
    index = read_index(files)
    components = {
        name: value[1] if isinstance(value, list) and len(value) == 2 else "?" for name, value in index.items() if not name.startswith("_")
    }
    wrong = [name for name in expected if components.get(name) not in expected[name]] + sorted(components.keys() - expected.keys())
    if index.get("_class_name") != "PixelPipeline" or wrong:
        what = f"its {wrong[0]} is {components.get(wrong[0])}" if wrong else f"it is a {index.get('_class_name')}"
        raise ModelError(f"generator.model: {files.name} is not a pixel pipeline, {what}; fit one with `synthforge fit`")
    libraries = {value[0] for name, value in index.items() if name in expected and value[0] is not None}
    if not libraries <= {"diffusers", _NETWORK}:
        raise ModelError(f"generator.model: {files.name} wants code from {min(libraries - {'diffusers'})}; only synthforge's own is loaded")
