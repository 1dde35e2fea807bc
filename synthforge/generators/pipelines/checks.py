"""Checks of a pipeline from its configuration files alone, before weights are loaded."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from synthforge.data.model_files import GeneratorFiles, ModelFiles, components_in, read_config, read_index
from synthforge.errors import ModelError, RequestError, did_you_mean, some
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pipelines.config import DitConfig, PipelineConfig, TextToImageConfig, UnconditionalConfig
from synthforge.generators.pipelines.families import DIT, UNCONDITIONAL, image_to_image_class, text_to_image_classes
from synthforge.generators.schedulers import diffusers_folder

_USUAL_RESOLUTION = 1024
_OURS = frozenset(
    (
        *("prompt", "negative_prompt", "class_labels", "batch_size", "image", "strength", "height", "width", "num_inference_steps"),
        *("guidance_scale", "generator", "output_type", "return_dict", "num_images_per_prompt", "latents", "callback", "callback_steps"),
        *("callback_on_step_end", "callback_on_step_end_tensor_inputs"),
    )
)
"""Arguments of the call that other fields of the recipe set."""
_DENOISERS = ("unet", "transformer", "prior_prior")


def check(config: PipelineConfig, files: GeneratorFiles, sampling: SamplingConfig, labels: Sequence[str]) -> None:
    """Raise ModelError or RequestError if a model is of another kind or doesn't fit the recipe."""
    name = str(read_index(files.model).get("_class_name"))
    kinds: Mapping[type[PipelineConfig], Mapping[str, Any] | frozenset[str]] = {
        TextToImageConfig: text_to_image_classes(),
        DitConfig: DIT,
        UnconditionalConfig: UNCONDITIONAL,
    }
    if name not in kinds[type(config)]:
        fitting = next((kind.model_fields["kind"].annotation.__args__[0] for kind, of in kinds.items() if name in of), None)  # type: ignore[union-attr]
        hint = "is what `kind: pixel` takes" if name == "PixelPipeline" else f"is what `kind: {fitting}` takes" if fitting else None
        raise ModelError(
            f"generator.model: {files.model.name} is a {name}, which "
            + (hint or f"can't be used here; `kind: {config.kind}` takes {some(sorted(kinds[type(config)]))}")
        )
    _check_libraries(files.model)
    if isinstance(config, TextToImageConfig):
        _check_text_to_image(files.model, name, sampling)
    elif sampling.resolution not in {None, made_for := image_size(files.model, sampling.model_copy(update={"resolution": None}))[0]}:
        raise RequestError(f"sampling.resolution: the model makes {made_for} px, not {sampling.resolution}; remove the field")
    if isinstance(config, DitConfig):
        label_numbers(files.model, labels)
    _check_call(config, image_to_image_class(name) or name if sampling.real_guidance is not None else name, sampling)


def _check_call(config: PipelineConfig, name: str, sampling: SamplingConfig) -> None:
    """Check arguments of the pipeline's call. This imports diffusers, so it is skipped where nothing special is
    requested.
    """
    guided = sampling.guidance != [1.0]
    if not (config.arguments or config.step_cache or guided or sampling.real_guidance or sampling.scheduler):
        return
    import diffusers

    taken = inspect.signature(getattr(diffusers, name).__call__).parameters
    for argument in config.arguments:
        where = f"generator.arguments.{argument}"
        if argument in _OURS:
            raise RequestError(f"{where}: other fields of the recipe decide it; remove it")
        if argument not in taken:
            raise RequestError(f"{where}: {name} takes no such argument; {did_you_mean(argument, taken.keys() - _OURS, 'remove it')}")
    if guided and "guidance_scale" not in taken:
        raise RequestError(f"sampling.guidance: {name} takes no guidance; leave the field out")
    if sampling.real_guidance is not None and "strength" not in taken:
        raise RequestError(f"sampling.real_guidance: {name} takes an image but no strength; use another model")
    if config.step_cache is not None and "transformer" not in inspect.signature(getattr(diffusers, name).__init__).parameters:
        raise RequestError(f"generator.step_cache: {name} has no transformer that can cache its steps; remove it")
    if sampling.scheduler is not None:
        sampling.scheduler.check()


def _check_libraries(model: ModelFiles) -> None:
    """Allow classes of diffusers and transformers only; an index could name any module to import."""
    for component, (library, class_name) in components_in(read_index(model)).items():
        if library not in {"diffusers", "transformers"} and not (
            library.isidentifier() and (diffusers_folder() / "pipelines" / library).is_dir()
        ):
            raise ModelError(
                f"generator.model: {model.name} wants {class_name} from {library} for its {component}; "
                "only classes of diffusers and transformers are loaded"
            )


def _check_text_to_image(model: ModelFiles, name: str, sampling: SamplingConfig) -> None:
    if sampling.real_guidance is not None and image_to_image_class(name) is None:
        able = some(sorted(cls for cls in text_to_image_classes() if image_to_image_class(cls)))
        raise RequestError(f"sampling.real_guidance: {name} has no image-to-image form; those of {able} can start from an image")
    scale = vae_scale(model)
    resolution = image_size(model, sampling)[0]
    if resolution % scale:
        raise RequestError(f"sampling.resolution: {resolution} is no multiple of {scale}, in which this model works; use a multiple")


def image_size(model: ModelFiles, sampling: SamplingConfig) -> tuple[int, int]:
    """Resolution and channels: the recipe's, else the model's own; raises ModelError."""
    index = read_index(model)
    name = str(index.get("_class_name"))
    denoiser = next((component for component in _DENOISERS if component in components_in(index)), None)
    config = read_config(model, denoiser) if denoiser else {}
    size = config.get("sample_size")
    size = max(size) if isinstance(size, list) and size else size
    if name in UNCONDITIONAL:
        channels = config.get("out_channels", 3) if not _decoder(index) else 3
        if not isinstance(size, int) or channels not in {1, 3}:
            raise ModelError(f"generator.model: {model.name} does not say a possible size and channels; fetch it again")
        return size * (vae_scale(model) if _decoder(index) else 1), int(channels)
    if sampling.resolution is not None:
        return sampling.resolution, 3
    return (size * vae_scale(model) if isinstance(size, int) else _USUAL_RESOLUTION), 3


def _decoder(index: Mapping[str, Any]) -> str | None:
    return next((name for name in ("vae", "vqvae", "movq") if name in components_in(index)), None)


def vae_scale(model: ModelFiles) -> int:
    """Pixels per latent."""
    decoder = _decoder(read_index(model))
    config = read_config(model, decoder) if decoder else {}
    channels = config.get("block_out_channels") or config.get("encoder_block_out_channels")
    return int(2 ** (len(channels) - 1)) if isinstance(channels, list) and channels else 8 if decoder else 1


def label_numbers(model: ModelFiles, labels: Sequence[str]) -> list[int]:
    """Class numbers of a DiT from names or numbers; raises RequestError for the first unknown one."""
    names = {}
    for number, synonyms in (read_index(model).get("id2label") or {}).items():
        names.update({name.strip().lower(): int(number) for name in str(synonyms).split(",")})
        names[str(synonyms).strip().lower()] = int(number)
    num_classes = read_config(model, "transformer").get("num_embeds_ada_norm") or 1000
    numbers = []
    for label in labels:
        number = names.get(label.strip().lower(), int(label) if label.strip().isdecimal() else -1)
        if not 0 <= number < num_classes:
            hint = did_you_mean(label, names, "say which with label:, by name or number")
            raise RequestError(f"classes: the model knows no class {label!r}, its numbers go from 0 to {num_classes - 1}; {hint}")
        numbers.append(number)
    return numbers
