"""Load a pipeline onto its device: components, VAE, LoRAs, learned tokens, scheduler, step cache, quantisation.

All weights are local safetensors; files on the hub were fetched before (see `data.model_files`).
"""

from __future__ import annotations

import importlib
import inspect
import logging
from contextlib import contextmanager
from typing import Any

import diffusers
import torch
import transformers
from safetensors import SafetensorError, safe_open

from synthforge.data.model_files import GeneratorFiles, ModelFiles, components_in, read_config, read_index
from synthforge.errors import ModelError, RequestError
from synthforge.generators.config import SamplingConfig
from synthforge.generators.pipelines.config import DitConfig, LoraConfig, PipelineConfig, StepCacheConfig, TextToImageConfig
from synthforge.generators.pipelines.families import image_to_image_class

_LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, IndexError, SafetensorError)


def load(config: PipelineConfig, files: GeneratorFiles, sampling: SamplingConfig, device: torch.device, dtype: torch.dtype) -> Any:
    """The recipe's pipeline, in evaluation mode on its device; raises ModelError or RequestError."""
    _be_quiet()
    model = files.model
    index = read_index(model)
    components: dict[str, Any] = {}
    if isinstance(config, TextToImageConfig) and not config.safety_checker and "safety_checker" in index:
        components |= {"safety_checker": None, "requires_safety_checker": False}
    if isinstance(config, (TextToImageConfig, DitConfig)) and config.vae is not None:
        components["vae"] = _load_vae(files.others["generator.vae"], dtype)
    if config.quantization is not None and config.quantization.backend != "layerwise_float8":
        components["quantization_config"] = _quantization(config)
    pipeline_class = getattr(diffusers, index["_class_name"])
    with _in_words(f"generator.model: {model.name} can't be loaded as a {index['_class_name']}", "check or fetch the model again"):
        pipeline = pipeline_class.from_pretrained(
            str(model.folder), use_safetensors=True, local_files_only=True, dtype=dtype, variant=model.variant, **components
        )
    _check_whole(model, pipeline)
    if sampling.scheduler is not None:
        pipeline.scheduler = sampling.scheduler.build(pipeline.scheduler)
    if isinstance(config, TextToImageConfig):
        _add_words(pipeline, config, files)
        _add_loras(pipeline, config, files)
    with _in_words(f"generator.model: {model.name} can't be put onto {device}", "use another device, a smaller model or dtype: bfloat16"):
        pipeline.to(device)
    for module in pipeline.components.values():
        if isinstance(module, torch.nn.Module):
            module.eval().requires_grad_(False)
    if config.quantization is not None and config.quantization.backend == "layerwise_float8":
        for name in config.quantization.components:
            _component(pipeline, name).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=dtype)
    if config.step_cache is not None:
        _add_step_cache(pipeline, config.step_cache)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image_to_image(pipeline: Any) -> Any:
    """The image-to-image form of a text-to-image pipeline, sharing its components."""
    name = image_to_image_class(type(pipeline).__name__)
    assert name is not None
    form_class = getattr(diffusers, name)
    # Not by from_pipe, which casts every component to float32.
    known = {**pipeline.config, **pipeline.components}
    form = form_class(**{part: known[part] for part in inspect.signature(form_class.__init__).parameters if part in known})
    form.set_progress_bar_config(disable=True)
    return form


def _be_quiet() -> None:
    """Silence progress bars and notes of libraries, which would mix with ours and with JSON output."""
    for library in (diffusers, transformers):
        library.utils.logging.disable_progress_bar()
        library.utils.logging.set_verbosity_error()
    logging.getLogger("peft").setLevel(logging.ERROR)


@contextmanager
def _in_words(what: str, remedy: str, kind: type[RequestError] = ModelError) -> Any:
    try:
        yield
    except ImportError as error:
        raise kind(f"{what}: another package is needed ({_first_line(error)})") from error
    except _LOADING_ERRORS as error:
        raise kind(f"{what} ({_first_line(error)}); {remedy}") from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return " ".join(lines[:2])[:300] if lines else type(error).__name__


def _check_whole(model: ModelFiles, pipeline: Any) -> None:
    for name in components_in(read_index(model)):
        component = getattr(pipeline, name, None)
        if isinstance(component, torch.nn.Module) and any(parameter.is_meta for parameter in component.parameters()):
            raise ModelError(f"generator.model: {model.name} lacks some weights of its {name}; fetch it again")


def _load_vae(files: ModelFiles, dtype: torch.dtype) -> Any:
    name = str(read_config(files, "").get("_class_name"))
    vae_class = getattr(diffusers, name, None) if name.startswith(("Autoencoder", "AsymmetricAutoencoder", "VQModel")) else None
    if vae_class is None:
        raise ModelError(f"generator.vae: {files.name} is a {name}, not a VAE of diffusers; name another")
    with _in_words(f"generator.vae: {files.name} can't be loaded as a {name}", "name another"):
        return vae_class.from_pretrained(str(files.folder), use_safetensors=True, local_files_only=True, dtype=dtype)


def _quantization(config: PipelineConfig) -> Any:
    assert config.quantization is not None
    with _in_words(
        f"generator.quantization: {config.quantization.backend} can't be used", "give the arguments it needs, see diffusers", RequestError
    ):
        return diffusers.PipelineQuantizationConfig(
            quant_backend=config.quantization.backend,
            quant_kwargs=dict(config.quantization.arguments),
            components_to_quantize=list(config.quantization.components),
        )


def _component(pipeline: Any, name: str) -> Any:
    component = getattr(pipeline, name, None)
    if not isinstance(component, torch.nn.Module):
        known = ", ".join(part for part, module in pipeline.components.items() if isinstance(module, torch.nn.Module))
        raise RequestError(f"generator.quantization.components: {type(pipeline).__name__} has no {name!r}; it has {known}")
    return component


def _add_step_cache(pipeline: Any, config: StepCacheConfig) -> None:
    network = getattr(pipeline, "transformer", None)
    if network is None or not hasattr(network, "enable_cache"):
        raise RequestError(f"generator.step_cache: {type(pipeline).__name__} has no transformer that can cache its steps; remove it")
    config_class = getattr(importlib.import_module("diffusers.hooks"), f"{config.name}Config", None)
    if config_class is None:
        raise RequestError(f"generator.step_cache.name: the installed diffusers has no {config.name}; upgrade it or name another")
    with _in_words(f"generator.step_cache: {config.name} can't be used with this model", "check its arguments or remove it", RequestError):
        # Some caches must know how far the denoising is.
        needs_time = "current_timestep_callback" in inspect.signature(config_class).parameters
        more = {"current_timestep_callback": lambda: pipeline.current_timestep} if needs_time else {}
        network.enable_cache(config_class(**config.arguments, **more))


def _add_words(pipeline: Any, config: TextToImageConfig, files: GeneratorFiles) -> None:
    for number, item in enumerate(config.textual_inversions):
        where = f"generator.textual_inversions.{number}"
        if not hasattr(pipeline, "load_textual_inversion"):
            raise RequestError(f"{where}: {type(pipeline).__name__} takes no learned words; remove it")
        path = files.others[f"{where}.model"].folder
        with _in_words(f"{where}: {item.model} does not fit this model", "name one that was learned for it"):
            pipeline.load_textual_inversion(str(path), token=item.token, use_safetensors=True, local_files_only=True)


def _add_loras(pipeline: Any, config: TextToImageConfig, files: GeneratorFiles) -> None:
    """Load, scale and fuse LoRAs. Fused weights cost no time in sampling."""
    if not config.loras:
        return
    if not hasattr(pipeline, "load_lora_weights"):
        raise RequestError(f"generator.loras: {type(pipeline).__name__} takes no LoRAs; remove them")
    names = [f"lora_{number}" for number in range(len(config.loras))]
    for number, (name, lora) in enumerate(zip(names, config.loras, strict=True)):
        where = f"generator.loras.{number}.model"
        _load_lora(pipeline, where, name, lora, files.others[where])
    pipeline.set_adapters(names, [lora.scale for lora in config.loras])
    # All components with a LoRA: by default the text encoder of some families is left out.
    adapted = [part for part in pipeline._lora_loadable_modules if any(_num_layers(getattr(pipeline, part, None), name) for name in names)]
    pipeline.fuse_lora(components=adapted, adapter_names=names)
    if not getattr(getattr(pipeline, "transformer", None), "_transformer_norm_layers", None):  # unloading would undo these
        pipeline.unload_lora_weights()


def _load_lora(pipeline: Any, where: str, name: str, lora: LoraConfig, files: ModelFiles) -> None:
    path = files.folder
    remedy = f"name one that was made for a {type(pipeline).__name__}"
    with _in_words(f"{where}: {lora.model} does not fit this model", remedy):
        pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name=name, use_safetensors=True, local_files_only=True)
        fitted = sum(_num_layers(component, name) for component in pipeline.components.values())
        with safe_open(path, "pt") as file:
            num_layers = sum(key.endswith((".lora_A.weight", ".lora_down.weight", ".lora.down.weight")) for key in file.keys())  # noqa: SIM118
    if fitted == 0 or fitted < num_layers:
        raise ModelError(f"{where}: {lora.model} does not fit this model ({fitted} of its {num_layers} layers are there); {remedy}")


def _num_layers(module: Any, adapter: str) -> int:
    if not isinstance(module, torch.nn.Module):
        return 0
    return sum(key.endswith(f".lora_A.{adapter}.weight") for key, _ in module.named_parameters())
