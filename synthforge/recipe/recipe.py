"""The recipe: what the one YAML file that says everything a run depends on may hold.

Sections are the Configs of the stages; they stand beside the code that they configure and are only composed here. `recipe_file`
reads them from a file.
"""

from __future__ import annotations

import difflib
import hashlib
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from synthforge.config import Config, execution, identity, location, walk
from synthforge.data.images import ImageFormat
from synthforge.data.storage import resolve
from synthforge.generators.config import GENERATORS, AnyGenerator, SamplingConfig
from synthforge.generators.protocol import Capabilities
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.evaluation import DiagnosisConfig, EvaluationConfig

MAX_SAMPLES = 10**9
"""Keys have nine digits."""
MAX_SHARDS = 10**6
"""Shard names have six."""
LATER_STAGES = ("reference", "curation", "evaluation", "diagnosis")
"""Fields that generation does not depend on: not in the digest of a plan."""


class Template(Config):
    """A prompt with `{class}` and free `{names}` whose values multiply out."""

    template: str = identity(min_length=1, max_length=10_000)
    """For example "a {size} photo of a {class}"."""
    weight: float = identity(1.0, gt=0, le=1e6)
    """How often it is used, relative to the class's other templates."""

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        return {"template": value} if isinstance(value, str) else value

    @field_validator("template")
    @classmethod
    def _is_well_formed(cls, template: str) -> str:
        try:
            parts = list(string.Formatter().parse(template))
        except ValueError as error:
            raise ValueError(f"{template!r}: {error}; write {{{{ and }}}} for braces that are meant") from error
        for _, name, format_spec, conversion in parts:
            if name is not None and (format_spec or conversion or not name.isidentifier()):
                raise ValueError(f"{template!r}: {{{name}}} is not a plain name")
        return template

    @property
    def names(self) -> list[str]:
        """The free names in order of appearance, without `class`."""
        found = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
        return [name for name in dict.fromkeys(found) if name != "class"]


class PromptsConfig(Config):
    """Where the texts of a class come from: templates, or a file with one caption a line."""

    templates: list[Template] | None = None
    """Texts, or `{template: ..., weight: ...}`."""
    values: dict[str, Annotated[list[str], Field(min_length=1)]] = identity(dict)
    """Free name to its list of values."""
    captions: str | None = location(None)
    """A UTF-8 text file with one caption a line, used beside the templates."""
    negative: str | None = identity(None, max_length=10_000)
    """What the images should not show; only for generators that take text."""


class ClassConfig(PromptsConfig):
    """One class; what it does not say comes from the recipe's `prompts`."""

    weight: float = identity(1.0, gt=0, le=1e9)
    """Its share of the samples, relative to the other classes."""
    label: str | int | None = identity(None)
    """What the generator calls it, name or number; nothing means its name."""


class CountConfig(Config):
    """How many images: `total` or `per_class`."""

    total: int | None = execution(None, ge=1, le=MAX_SAMPLES)
    """Over all classes, shared by their weights."""
    per_class: int | None = execution(None, ge=1, le=MAX_SAMPLES)
    """For each class."""

    @model_validator(mode="after")
    def _one_of_both(self) -> CountConfig:
        if (self.total is None) == (self.per_class is None):
            raise ValueError("give either total or per_class")
        return self


class OutputConfig(Config):
    """Where the run goes and how its files look."""

    path: str | None = execution(None, min_length=1)
    """The run's folder or address; nothing means runs/NAME below where the command is started."""
    format: ImageFormat = identity("png")
    """Image format; png is lossless."""
    quality: int = identity(95, ge=1, le=100)
    """Of jpg and webp."""
    samples_per_shard: int = execution(1000, ge=1, le=1_000_000)
    """How many samples one tar holds."""
    marking: bool = identity(True)
    """Mark each image as made by a trained algorithm (IPTC DigitalSourceType in XMP)."""
    single_writer: bool = execution(False)
    """A promise that only one process writes, which stores without create-only writing need."""
    licence: str | None = execution(None, max_length=100)
    """Licence of the images as the dataset card names it, for example cc-by-4.0."""
    tags: list[str] = execution(list, max_length=100)
    """More tags for the dataset card."""


class ExecutionConfig(Config):
    """How the work is done; nothing here changes what is made, but for `threads`, on which bytes depend."""

    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one, and with several workers one each."""
    batch: int | None = execution(None, ge=1, le=65_536)
    """Images per batch; nothing means what the generator prefers, or on CUDA what is measured. It changes pixels by rounding only."""
    threads: int | None = identity(None, ge=1, le=1024)
    """CPU threads of the model; nothing means torch's own choice. Bytes are equal for equal threads."""
    encoders: int | None = execution(None, ge=1, le=256)
    """Threads that encode images; nothing means one per CPU core, at most eight."""
    tries: int = execution(3, ge=1, le=100)
    """How often a shard that fails is tried before it is quarantined."""
    workers: int | None = execution(None, ge=1, le=1024)
    """Processes on this machine; nothing means one per GPU, or one without GPU."""
    deadline_seconds: float = execution(600.0, gt=0)
    """A worker process that reports no batch for so long is taken for hung, ended and replaced."""


class Recipe(Config):
    """Everything a run depends on."""

    name: str = execution(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Names the run's folder."""
    generator: AnyGenerator
    """The model that makes the images."""
    classes: Annotated[dict[str, ClassConfig], Field(min_length=1, max_length=100_000)]
    """Name to what is special about it; a plain list of names will do."""
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    """For all classes that don't say otherwise."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    """How images are drawn."""
    count: CountConfig
    """How many."""
    reference: str | None = location(None)
    """Real images by class, for everything but the final measurement: dataset folder, WebDataset tars, folder of images, `datasets`."""
    curation: CurationConfig = Field(default_factory=CurationConfig)
    """How the pool is matched to the reference."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """How it is measured what the images are worth."""
    diagnosis: DiagnosisConfig = Field(default_factory=DiagnosisConfig)
    """How it is told what is wrong with them."""
    output: OutputConfig = Field(default_factory=OutputConfig)
    """Where to."""
    execution: ExecutionConfig = Field(default_factory=ExecutionConfig)
    """How."""

    @model_validator(mode="before")
    @classmethod
    def _classes_by_name(cls, value: Any) -> Any:
        """A list of class names becomes a mapping, and a class without anything special an empty one."""
        if not isinstance(value, dict):
            return value
        classes = value.get("classes")
        if isinstance(classes, list) and all(isinstance(name, (str, int)) for name in classes):
            if "" in classes or any(isinstance(name, bool) for name in classes):
                raise ValueError("classes: a class needs a name; put quotes around what is meant as one")
            if len({str(name) for name in classes}) != len(classes):
                raise ValueError("classes: a name stands twice")
            classes = {str(name): {} for name in classes}
        elif isinstance(classes, dict):
            classes = {name: {} if spec is None else spec for name, spec in classes.items()}
        return {**value, "classes": classes} if "classes" in value else value

    @property
    def num_samples(self) -> int:
        """Images asked for."""
        if self.count.total is not None:
            return self.count.total
        assert self.count.per_class is not None
        return self.count.per_class * len(self.classes)

    @property
    def run_path(self) -> str:
        """The run's folder: absolute path or address."""
        return resolve(self.output.path or f"runs/{self.name}")

    @property
    def pool_path(self) -> str:
        """The pool inside the run's folder."""
        return f"{self.run_path}/pool"

    @property
    def curated_path(self) -> str:
        """The curated set inside the run's folder."""
        return f"{self.run_path}/curated"

    def prompts_of(self, class_name: str) -> PromptsConfig:
        """A class's prompts with the recipe's filled in; a class's own captions or templates replace both."""
        own, shared = self.classes[class_name], self.prompts
        has_own = own.templates is not None or own.captions is not None
        return PromptsConfig(
            templates=own.templates if has_own else shared.templates,
            captions=own.captions if has_own else shared.captions,
            values={**shared.values, **own.values},
            negative=own.negative if own.negative is not None else shared.negative,
        )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors; it also allows the short forms that `load_recipe` accepts."""
    schema = Recipe.model_json_schema(by_alias=False)
    mapping = schema["properties"]["classes"]
    mapping["additionalProperties"] = {"anyOf": [mapping["additionalProperties"], {"type": "null"}]}
    names = {"type": "array", "minItems": 1, "items": {"type": ["string", "integer"]}}
    schema["properties"]["classes"] = {"anyOf": [names, mapping], "description": mapping.pop("description", "")}
    for name in ("Template", "ArmConfig"):
        schema["$defs"][name] = {"anyOf": [{"type": "string", "minLength": 1}, schema["$defs"][name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def file_digest(path: str) -> str:
    """SHA-256 of a file that a recipe names."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def captions_in(path: str) -> list[str]:
    """The captions of a file: its lines that are not empty."""
    return [line.strip() for line in Path(path).read_text(encoding="utf-8").split("\n") if line.strip()]


def cross_checks(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """What no field can know alone: prompts against values, files against disk, capability against use."""
    capabilities = type(recipe.generator).capabilities
    used: set[str] = set()
    if recipe.prompts.templates == []:
        yield ("prompts", "templates"), "is empty; give at least one, or leave it out"
    for path, _, value in walk(recipe):
        if path[-1] == "captions" and value is not None:
            yield from ((path, text) for text in _caption_problems(value))
    with_prompts = {name for name in recipe.classes if recipe.prompts_of(name).templates or recipe.prompts_of(name).captions}
    for name, spec in recipe.classes.items():
        here, prompts = ("classes", name), recipe.prompts_of(name)
        own_templates = spec.templates is not None
        if spec.templates == []:
            yield (*here, "templates"), f"class {name!r} has no prompts; give at least one, or leave templates out to use the shared ones"
        elif name not in with_prompts and (with_prompts or capabilities.text):
            yield here, f"class {name!r} has no prompts; give it templates or captions, or give prompts.templates for all"
        for number, template in enumerate(prompts.templates or []):
            used.update(template.names)
            where = (*(here if own_templates else ("prompts",)), "templates", str(number))
            for missing in [free for free in template.names if free not in prompts.values]:
                close = difflib.get_close_matches(missing, [*prompts.values, "class"], n=1, cutoff=0.6)
                hint = f"did you mean {{{close[0]}}}?" if close else f"give values.{missing} a list"
                yield where, f"{{{missing}}} has no values; {hint}"
        if prompts.negative is not None and not capabilities.text:
            takes = f"generator {recipe.generator.kind!r} takes {capabilities.in_words()}, not text"
            where = (*(here if spec.negative is not None else ("prompts",)), "negative")
            yield where, f"{takes}: a negative prompt would do nothing; remove it"
    yield from _capability_problems(recipe)
    for name in recipe.prompts.values:
        if name not in used:
            yield ("prompts", "values", name), f"no template uses {{{name}}}"
    if recipe.count.per_class is not None:
        if len({spec.weight for spec in recipe.classes.values()}) > 1:
            yield ("count", "per_class"), "classes have different weights, so give total instead"
        if recipe.num_samples > MAX_SAMPLES:
            yield ("count", "per_class"), f"makes {recipe.num_samples:,} samples in all; at most {MAX_SAMPLES:,} fit one dataset"
    if recipe.num_samples > MAX_SHARDS * recipe.output.samples_per_shard:
        at_least = -(-recipe.num_samples // MAX_SHARDS)
        yield (
            ("output", "samples_per_shard"),
            f"{recipe.num_samples:,} samples would make over {MAX_SHARDS:,} shards; raise it to {at_least:,} or more",
        )


def _capability_problems(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """What the recipe asks for and its kind of generator can't do, and which can."""
    kind, capabilities, sampling = recipe.generator.kind, type(recipe.generator).capabilities, recipe.sampling
    if not capabilities.guidance:
        if sampling.guidance != [1.0]:
            yield ("sampling", "guidance"), f"generator {kind!r} takes neither text nor label, so there is nothing to guide; leave it out"
        if len(recipe.classes) > 1:
            able = _kinds_with(lambda other: other.guidance)
            yield ("classes",), f"generator {kind!r} can't tell classes apart; give one class, or use generator {able}"
    guided = sampling.real_guidance
    if guided is None:
        return
    if not capabilities.image:
        able = _kinds_with(lambda other: other.image)
        yield ("sampling", "real_guidance"), f"generator {kind!r} can't start from an image; remove it, or use generator {able}"
    for level in guided.strength:
        if int(sampling.steps * level) < 1:
            least = 1 / sampling.steps
            yield (
                ("sampling", "real_guidance", "strength"),
                f"{level:g} of {sampling.steps} steps is no step at all; use at least {least:.2g}, or more steps",
            )


def _kinds_with(can: Callable[[Capabilities], bool]) -> str:
    return " or ".join(repr(kind) for kind, config in GENERATORS.items() if can(config.capabilities))


def _caption_problems(path: str) -> Iterator[str]:
    try:
        if not captions_in(path):
            yield f"{path} holds no captions; write one a line"
    except FileNotFoundError:
        yield f"no file {path}"
    except (OSError, UnicodeDecodeError) as error:
        yield f"{path} can't be read as UTF-8 text ({error})"
