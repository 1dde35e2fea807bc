"""The Configs of diffusers pipelines by what they are conditioned on; no heavy import."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from synthforge.config import Config, execution, identity, location
from synthforge.data.model_files import GeneratorFiles, ModelFiles, find_model
from synthforge.generators.config import GENERATORS, GeneratorConfig
from synthforge.generators.protocol import Capabilities

Scalar = str | int | float | bool


class SmallWeightsConfig(Config):
    """One file of weights that is added to a model."""

    model: str = location()
    """A .safetensors file, a folder that holds one, or a hub id."""
    file: str | None = identity(None)
    """Which file of the folder or repository; nothing means the only one, or the usual name."""
    revision: str | None = identity(None)
    """Hub revision."""


class LoraConfig(SmallWeightsConfig):
    """Low-rank adapters added to the model's weights (Hu et al. 2021, arXiv 2106.09685)."""

    scale: float = identity(1.0, ge=-10, le=10)
    """How strongly it counts."""


class TextualInversionConfig(SmallWeightsConfig):
    """A learned word (Gal et al. 2022, arXiv 2208.01618); use its token in prompts."""

    token: str = identity(min_length=1, max_length=200)
    """The word that stands for it in prompts."""


class StepCacheConfig(Config):
    """Reuse of work between denoising steps (diffusers' cache hooks): faster, and another image; for transformer models."""

    name: Literal["FirstBlockCache", "FasterCache", "PyramidAttentionBroadcast", "TaylorSeerCache", "MagCache"] = identity()
    """Which of diffusers' caches."""
    arguments: dict[str, Scalar] = identity(dict)
    """Fields of its configuration, for example {threshold: 0.1}."""


class QuantizationConfig(Config):
    """Weights in fewer bits: less memory, often faster, and another image."""

    backend: str = identity(min_length=1)
    """As diffusers names it: bitsandbytes_8bit, bitsandbytes_4bit, torchao, quanto; or layerwise_float8, which needs nothing more."""
    arguments: dict[str, Scalar] = identity(dict)
    """What the backend takes, for example {weights_dtype: int8}."""
    components: list[str] = identity(lambda: ["transformer"], min_length=1)
    """Which components."""


class PipelineConfig(GeneratorConfig):
    """What all kinds of diffusers pipelines share."""

    checks: ClassVar[str] = "synthforge.generators.pipelines.families"
    loader: ClassVar[str] = "synthforge.generators.pipelines.generator:PipelineGenerator.load"

    model: str = location()
    """Folder that save_pretrained wrote, or a hub id."""
    variant: str | None = identity(None, pattern=r"^[\w-]+$")
    """Which weight files, for example fp16; nothing means the plain ones."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = identity("auto")
    """Precision; `auto` is bfloat16 on a GPU that has it, float32 elsewhere. A dataset keeps the one it was begun with."""
    arguments: dict[str, Scalar] = identity(dict)
    """More arguments of the pipeline's call, for example {clip_skip: 1} or {max_sequence_length: 256}."""
    step_cache: StepCacheConfig | None = None
    """Nothing means that every step is computed in full."""
    quantization: QuantizationConfig | None = None
    """Nothing means none."""
    compile: bool | None = execution(None)
    """Compile the repeated blocks of the network and the decoder; nothing means on CUDA only."""
    decode_batch: int | None = execution(None, ge=1)
    """Images that the VAE decodes at once; nothing means the whole batch, or on CUDA what is measured to be fastest."""

    def files(self, known: Mapping[str, str] | None = None) -> GeneratorFiles:
        """The model's files on this disk (fetched from the hub if need be), checked to be safetensors; raises ModelError."""
        model = find_model(self.model, self.revision, variant=self.variant, known=known)
        return GeneratorFiles(model, dict(self._other_files(known)))

    def _other_files(self, known: Mapping[str, str] | None) -> Iterator[tuple[str, ModelFiles]]:  # noqa: ARG002 - of kinds that have some
        yield from ()


class _WithVae(PipelineConfig):
    vae: str | None = location(None)
    """Another VAE: folder with its config.json, or a hub id; nothing means the model's own."""

    def _other_files(self, known: Mapping[str, str] | None) -> Iterator[tuple[str, ModelFiles]]:
        if self.vae is not None:
            yield "generator.vae", find_model(self.vae, kind="component", where="generator.vae", known=known)


@GENERATORS.add("text-to-image")
class TextToImageConfig(_WithVae):
    """Any text-to-image pipeline of diffusers: Stable Diffusion, SDXL, SD3, Flux, PixArt, few-step models, and so on."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=True, class_label=False, image=True)

    kind: Literal["text-to-image"] = identity()
    """The kind of generator."""
    loras: list[LoraConfig] = Field(default_factory=list, max_length=16)
    """Adapters, added in this order."""
    textual_inversions: list[TextualInversionConfig] = Field(default_factory=list, max_length=1000)
    """Learned words."""
    safety_checker: bool = identity(True)
    """Whether the pipeline's safety checker, if it has one, may reject images; they are made again with the next attempt."""

    def _other_files(self, known: Mapping[str, str] | None) -> Iterator[tuple[str, ModelFiles]]:
        yield from super()._other_files(known)
        small: list[tuple[str, SmallWeightsConfig]] = [(f"loras.{number}", item) for number, item in enumerate(self.loras)]
        small += [(f"textual_inversions.{number}", item) for number, item in enumerate(self.textual_inversions)]
        for where, item in small:
            path = f"generator.{where}.model"
            yield path, find_model(item.model, item.revision, kind="weights", file=item.file, where=path, known=known)


@GENERATORS.add("dit")
class DitConfig(_WithVae):
    """DiTPipeline: ImageNet classes, by number or name (Peebles and Xie 2022, arXiv 2212.09748)."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=True, image=False)

    kind: Literal["dit"] = identity()
    """The kind of generator."""


@GENERATORS.add("unconditional")
class UnconditionalConfig(PipelineConfig):
    """A pipeline that takes neither text nor label, such as DDPMPipeline: all its images are of one class."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=False, image=False)

    kind: Literal["unconditional"] = identity()
    """The kind of generator."""
