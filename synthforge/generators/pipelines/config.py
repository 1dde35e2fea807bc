"""The Configs of diffusers pipelines, one for each kind of conditioning; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Literal

from pydantic import Field

from synthforge.config import Config, execution, identity, location
from synthforge.data.model_files import GeneratorFiles, ModelFiles, find_model
from synthforge.generators.config import GENERATORS, GeneratorConfig, SamplingConfig
from synthforge.generators.protocol import Capabilities, TextLimit, Unheard

Scalar = str | int | float | bool


class SmallWeightsConfig(Config):
    """One file of weights added to a model."""

    model: str = location()
    """A .safetensors file, a folder that holds one, or a hub id."""
    file: str | None = identity(None)
    """File name in the folder or repository. None: the only file, or the usual name."""
    revision: str | None = identity(None)
    """Hub revision. None: the default branch."""


class LoraConfig(SmallWeightsConfig):
    """Low-rank adapters added to the model's weights (Hu et al. 2021, arXiv 2106.09685)."""

    scale: float = identity(1.0, ge=-10, le=10)
    """Weight of the adapter."""


class TextualInversionConfig(SmallWeightsConfig):
    """A learned token (Gal et al. 2022, arXiv 2208.01618)."""

    token: str = identity(min_length=1, max_length=200)
    """The token, as it is written in prompts."""


class StepCacheConfig(Config):
    """Caching between denoising steps (diffusers' cache hooks). Faster, but changes the images; transformers only."""

    name: Literal["FirstBlockCache", "FasterCache", "PyramidAttentionBroadcast", "TaylorSeerCache", "MagCache"] = identity()
    """Name of diffusers' cache."""
    arguments: dict[str, Scalar] = identity(dict)
    """Fields of the cache's configuration, for example {threshold: 0.1}."""


class QuantizationConfig(Config):
    """Weights in fewer bits. Less memory and often faster, but changes the images."""

    backend: str = identity(min_length=1)
    """diffusers' name: bitsandbytes_8bit, bitsandbytes_4bit, torchao, quanto; or layerwise_float8 (no extra
    package)."""
    arguments: dict[str, Scalar] = identity(dict)
    """Arguments of the backend, for example {weights_dtype: int8}."""
    components: list[str] = identity(lambda: ["transformer"], min_length=1)
    """Components of the pipeline to quantise."""


class PipelineConfig(GeneratorConfig):
    """Settings that all kinds of diffusers pipelines share."""

    checks: ClassVar[str] = "synthforge.generators.pipelines.checks"
    loader: ClassVar[str] = "synthforge.generators.pipelines.generator:PipelineGenerator.load"

    model: str = location()
    """Folder written by save_pretrained, or a hub id."""
    variant: str | None = identity(None, pattern=r"^[\w-]+$")
    """Variant of the weight files, for example fp16. None: the plain files."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = identity("auto")
    """Precision; `auto`: bfloat16 on a GPU that has it, else float32. A dataset keeps the one it was begun with."""
    arguments: dict[str, Scalar] = identity(dict)
    """More arguments of the pipeline's call, for example {clip_skip: 1} or {max_sequence_length: 256}."""
    step_cache: StepCacheConfig | None = None
    """Caching between denoising steps. None: every step is computed in full."""
    quantization: QuantizationConfig | None = None
    """Weights in fewer bits. None: full weights."""
    compile: bool | None = execution(None)
    """Compile the repeated blocks of the network, and the decoder. None: on CUDA only."""
    decode_batch: int | None = execution(None, ge=1)
    """Images that the VAE decodes at once. None: the whole batch; on CUDA the fastest size by measurement."""

    def files(self, known: Mapping[str, str] | None = None) -> GeneratorFiles:
        """The model's local files, fetched from the hub if necessary, checked to be safetensors; raises ModelError."""
        model = find_model(self.model, self.revision, variant=self.variant, known=known)
        return GeneratorFiles(model, dict(self._other_files(known)))

    def _other_files(self, known: Mapping[str, str] | None) -> Iterator[tuple[str, ModelFiles]]:  # noqa: ARG002 - of kinds that have some
        yield from ()


class _WithVae(PipelineConfig):
    vae: str | None = location(None)
    """Another VAE: folder with config.json, or a hub id. None: the model's own."""

    def _other_files(self, known: Mapping[str, str] | None) -> Iterator[tuple[str, ModelFiles]]:
        if self.vae is not None:
            yield "generator.vae", find_model(self.vae, kind="component", where="generator.vae", known=known)


@GENERATORS.add("text-to-image")
class TextToImageConfig(_WithVae):
    """Any text-to-image pipeline of diffusers: Stable Diffusion, SDXL, SD3, Flux, PixArt, few-step models."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=True, class_label=False, image=True)

    kind: Literal["text-to-image"] = identity()
    """The kind of generator."""
    loras: list[LoraConfig] = Field(default_factory=list, max_length=16)
    """LoRA adapters, added in this order."""
    textual_inversions: list[TextualInversionConfig] = Field(default_factory=list, max_length=1000)
    """Learned tokens for prompts."""
    safety_checker: bool = identity(True)
    """Let the pipeline's safety checker, if any, reject images. A rejected image is made again."""

    def _other_files(self, known: Mapping[str, str] | None) -> Iterator[tuple[str, ModelFiles]]:
        yield from super()._other_files(known)
        small: list[tuple[str, SmallWeightsConfig]] = [(f"loras.{number}", item) for number, item in enumerate(self.loras)]
        small += [(f"textual_inversions.{number}", item) for number, item in enumerate(self.textual_inversions)]
        for where, item in small:
            path = f"generator.{where}.model"
            yield path, find_model(item.model, item.revision, kind="weights", file=item.file, where=path, known=known)

    def text_limit(self, files: GeneratorFiles, sampling: SamplingConfig) -> TextLimit | None:
        """See `GeneratorConfig`."""
        from synthforge.generators.pipelines.prompts import text_limit

        return text_limit(self, files, sampling)

    def with_room_for(self, texts: Iterable[str], files: GeneratorFiles, sampling: SamplingConfig) -> TextToImageConfig:
        """See `GeneratorConfig`."""
        from synthforge.generators.pipelines.prompts import with_room_for

        return with_room_for(self, texts, files, sampling)

    def unheard_negative(self, files: GeneratorFiles, sampling: SamplingConfig) -> Unheard | None:
        """See `GeneratorConfig`."""
        from synthforge.generators.pipelines.prompts import unheard_negative

        return unheard_negative(self, files, sampling)


@GENERATORS.add("dit")
class DitConfig(_WithVae):
    """DiTPipeline: ImageNet classes by number or name (Peebles and Xie 2022, arXiv 2212.09748)."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=True, image=False)

    kind: Literal["dit"] = identity()
    """The kind of generator."""


@GENERATORS.add("unconditional")
class UnconditionalConfig(PipelineConfig):
    """A pipeline without text or label, such as DDPMPipeline. All its images are of one class."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=False, image=False)

    kind: Literal["unconditional"] = identity()
    """The kind of generator."""
