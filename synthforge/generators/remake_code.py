"""From a sample's record, Python code with plain diffusers that makes its image again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from synthforge.data.read_config import Reading
from synthforge.generators.pipelines.families import DIT, UNCONDITIONAL


def remake_code(record: Mapping[str, Any], places: Mapping[str, str], reference: str | None, reading: Reading | None = None) -> str:
    """Python that makes the image of a record.

    Args:
        record: KEY.json of a synthetic sample.
        places: SHA-256 of weights to their path on this machine. Others are named as in the record.
        reference: the real images that generation started from; None: unknown.
        reading: how these are read.
    """
    generator = record.get("generator") or {}
    if "class" not in generator or "scheduler_config" not in generator:
        return "# made elsewhere: the record does not say how"
    place = places.get(generator["sha256"], generator["model"])
    is_pixel = generator["class"] == "PixelPipeline"
    lines = ["import diffusers, torch"]
    if is_pixel:
        lines.append("from synthforge.generators.pixel.pipeline import PixelPipeline")
    lines += [f"# weights: sha256 {generator['sha256']}", *_loading(generator, place, "" if is_pixel else "diffusers.")]
    lines += _additions(generator, places)
    arguments = _arguments(record, generator)
    if record.get("source") is not None:
        lines += _source(record, reference, reading or Reading(), is_pixel)
        arguments |= {"image": "source", "strength": repr(record["strength"])}
    call = ", ".join(f"{name}={value}" for name, value in arguments.items())
    lines += [f"noise = torch.Generator().manual_seed({record['seed']})", f"image = pipeline({call}, generator=[noise]).images[0]"]
    return "\n".join(lines)


def _loading(generator: Mapping[str, Any], place: str, prefix: str) -> list[str]:
    loaded = {"dtype": f"torch.{generator['dtype']}", "use_safetensors": "True"}
    if generator.get("variant"):
        loaded["variant"] = repr(generator["variant"])
    if generator.get("revision") and not Path(place).exists():
        loaded["revision"] = repr(generator["revision"])
    if generator.get("safety_checker") is False:
        loaded["safety_checker"] = "None"
    options = ", ".join(f"{name}={value}" for name, value in loaded.items() if prefix or name == "use_safetensors")
    scheduler = {key: value for key, value in generator["scheduler_config"].items() if value is not None}
    settings = re.sub(r"'(-?inf|nan)'", r"float('\1')", repr(scheduler))  # JSON has no infinity
    lines = [
        f"pipeline = {prefix}{generator['class']}.from_pretrained({place!r}, {options})",
        f"pipeline.scheduler = diffusers.{generator['scheduler']}.from_config({settings})",
    ]
    return lines if prefix else [lines[0] + f".to(torch.{generator['dtype']})", lines[1]]


def _additions(generator: Mapping[str, Any], places: Mapping[str, str]) -> list[str]:
    """Code for VAE, learned tokens, LoRAs and step cache."""
    lines = []
    if vae := generator.get("vae"):
        place = places.get(vae["sha256"], vae["model"])
        lines.append(f"pipeline.vae = diffusers.AutoModel.from_pretrained({place!r}, dtype=torch.{generator['dtype']})")
    words = [(places.get(word["sha256"], word["model"]), word["token"]) for word in generator.get("textual_inversions") or []]
    lines += [f"pipeline.load_textual_inversion({place!r}, token={token!r})" for place, token in words]
    loras = generator.get("loras") or []
    for number, lora in enumerate(loras):
        path = Path(places.get(lora["sha256"], lora["model"]))
        where = f"{str(path.parent)!r}, weight_name={path.name!r}" if path.suffix else repr(str(path))
        lines.append(f"pipeline.load_lora_weights({where}, adapter_name='lora_{number}')")
    if loras:
        names = [f"lora_{number}" for number in range(len(loras))]
        lines.append(f"pipeline.set_adapters({names!r}, {[lora['scale'] for lora in loras]!r})")
    if cache := generator.get("step_cache"):
        settings = ", ".join(f"{name}={value!r}" for name, value in cache["arguments"].items())
        lines.append(f"pipeline.transformer.enable_cache(diffusers.hooks.{cache['name']}Config({settings}))")
    if quantization := generator.get("quantization"):
        lines.append(f"# and quantised: {quantization!r}")
    return lines


def _arguments(record: Mapping[str, Any], generator: Mapping[str, Any]) -> dict[str, str]:
    """Arguments of the pipeline's call, as code."""
    arguments: dict[str, str] = {}
    if generator["class"] == "PixelPipeline":
        arguments |= {"class_labels": _pixel_label(record), "guided_by": repr(generator["guided_by"])}
    elif generator["class"] in DIT:
        arguments["class_labels"] = _dit_label(str(record.get("label", record["class"])))
    elif generator["class"] in UNCONDITIONAL:
        arguments["batch_size"] = "1"
    else:
        arguments["prompt"] = repr([record["prompt"]])
        if record.get("negative") is not None:
            arguments["negative_prompt"] = repr([record["negative"]])
    if generator.get("guided", generator["class"] not in UNCONDITIONAL):
        arguments["guidance_scale"] = repr(record["guidance"])
    arguments["num_inference_steps"] = repr(generator["steps"])
    return arguments | {name: repr(value) for name, value in (generator.get("arguments") or {}).items()}


def _pixel_label(record: Mapping[str, Any]) -> str:
    label = str(record.get("label", record["class"]))
    return f"[{label!r}] if {label!r} in pipeline.denoiser.config.class_names else [{label}]" if label.isdecimal() else f"[{label!r}]"


def _dit_label(label: str) -> str:
    names = f"[number for name, number in pipeline.labels.items() if name.lower() == {label.strip().lower()!r}][:1]"
    return f"{names} or [{int(label)}]" if label.strip().isdecimal() else names


def _source(record: Mapping[str, Any], reference: str | None, reading: Reading, is_pixel: bool) -> list[str]:
    size = "pipeline.denoiser.config.resolution" if is_pixel else repr(record["generator"]["resolution"])
    channels = "pipeline.denoiser.config.channels" if is_pixel else "3"
    place = reference if reference is not None else "WHERE THE REAL IMAGES LIE"
    pixels = f"resize(real.pixels({channels}), {size})"
    how = f", reading={reading!r}" if reading != Reading() else ""
    return [
        "from PIL import Image",
        "from synthforge.data.images import resize",
        *(["from synthforge.data.read_config import ColumnsConfig, Reading"] if how else []),
        "from synthforge.data.reading import Sources",
        f"real = Sources.read({place!r}{how}).find({record['source']!r})",
        f"source = [Image.fromarray({pixels}.squeeze())]",
    ]
