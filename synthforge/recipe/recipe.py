"""The recipe: one YAML file with all settings of a run.

Its sections are the Configs of the stages. They are defined beside the code that they configure, and composed here.
`synthforge.recipe.load` reads a recipe from a file.
"""

from __future__ import annotations

import codecs
import hashlib
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from synthforge.config import SCALAR, ClassName, Config, execution, identity, location, walk
from synthforge.data.images import ImageFormat
from synthforge.data.storage import resolve
from synthforge.data.text_files import lines_of
from synthforge.errors import DatasetError, did_you_mean
from synthforge.generators.config import GENERATORS, AnyGenerator, SamplingConfig
from synthforge.generators.protocol import Capabilities
from synthforge.recipe.curation import CurationConfig, each_once
from synthforge.recipe.evaluation import DiagnosisConfig, EvaluationConfig

MAX_SAMPLES = 10**9
"""Most samples of a dataset: keys have nine digits."""
MAX_SHARDS = 10**6
"""Most shards of a dataset: their names have six digits."""
LATER_STAGES = ("reference", "curation", "evaluation", "diagnosis")
"""Fields that generation does not depend on. The digest of a plan leaves them out."""


class Template(Config):
    """A prompt with `{class}` and other placeholders, such as `{size}`. All combinations of their values are used."""

    template: str = identity(min_length=1, max_length=10_000)
    """Text of the prompt, for example "a {size} photo of a {class}"."""
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
            raise ValueError(f"{template!r}: {error}; write {{{{ and }}}} for literal braces") from error
        for _, name, format_spec, conversion in parts:
            if name is not None and (format_spec or conversion or not name.isidentifier()):
                raise ValueError(f"{template!r}: {{{name}}} must be a plain name, such as {{size}}")
        return template

    @property
    def names(self) -> list[str]:
        """The free names in order of appearance, without `class`."""
        names = [name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None]
        return [name for name in dict.fromkeys(names) if name != "class"]


class PromptsConfig(Config):
    """The prompts of a class: templates, a file of captions, or both."""

    templates: list[Template] | None = None
    """Prompts with `{class}` and free `{names}`; each a text or `{template: ..., weight: ...}`. None: only
    `captions`."""
    values: dict[str, Annotated[list[str], Field(min_length=1)]] = identity(dict)
    """The values of each free name. All combinations are used."""
    captions: str | None = location(None)
    """A UTF-8 text file with one prompt per line, used in addition to `templates`. None: only `templates`."""
    negative: str | None = identity(None, max_length=10_000)
    """Negative prompt: what the images should not show. Only for generators that take text. None: no negative
    prompt."""


class SharedPromptsConfig(PromptsConfig):
    """The prompts of all classes that have none of their own, and what is done with prompts that are too long."""

    overlong: Literal["cut", "error"] = execution("cut")
    """Prompts longer than the text encoder takes. `cut`: what is beyond has no effect. `error`: nothing is made."""


class ClassConfig(PromptsConfig):
    """One class. Prompts that it does not set come from the recipe's `prompts`."""

    weight: float = identity(1.0, gt=0, le=1e9)
    """Its share of the samples, relative to the other classes."""
    label: ClassName | int | None = identity(None)
    """The generator's name or number for the class. None: the class's own name."""


class CountConfig(Config):
    """How many images are generated. Give either `total` or `per_class`."""

    total: int | None = execution(None, ge=1, le=MAX_SAMPLES)
    """Images over all classes, divided by the weights of the classes. None: see `per_class`."""
    per_class: int | None = execution(None, ge=1, le=MAX_SAMPLES)
    """Images of each class. None: see `total`."""

    @model_validator(mode="after")
    def _one_of_both(self) -> CountConfig:
        if (self.total is None) == (self.per_class is None):
            raise ValueError("give either total or per_class")
        return self


class OutputConfig(Config):
    """Where a run writes, and the format of its files."""

    path: str | None = execution(None, min_length=1)
    """Folder or remote address of the run. None: `runs/NAME` in the working directory."""
    format: ImageFormat = identity("png")
    """Image format. png is lossless."""
    quality: int = identity(95, ge=1, le=100)
    """Quality of jpg and webp, from 1 to 100."""
    samples_per_shard: int = execution(1000, ge=1, le=1_000_000)
    """Samples in one tar."""
    marking: bool = identity(True)
    """Mark each image as machine-made (IPTC DigitalSourceType in XMP)."""
    single_writer: bool = execution(False)
    """Promise that only one process writes. Needed for stores without conditional writes."""
    licence: str | None = execution(None, max_length=100)
    """Licence of the images in the dataset card, for example cc-by-4.0. None: the card names no licence."""
    tags: list[str] = execution(list, max_length=100)
    """Further tags for the dataset card."""


class ExecutionConfig(Config):
    """How the work is done. Only `threads` can change the images; `batch` changes pixels by rounding alone."""

    device: str = execution("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """`auto` takes a GPU if there is one; with several workers each takes its own."""
    batch: int | None = execution(None, ge=1, le=65_536)
    """Images per batch. None: on CUDA the fastest batch size, which is measured; else the generator's default."""
    threads: int | None = identity(None, ge=1, le=1024)
    """CPU threads of the model. The same number gives the same bytes. None: torch's default."""
    encoders: int | None = execution(None, ge=1, le=256)
    """Threads that encode images. None: one per CPU core, at most eight."""
    tries: int = execution(3, ge=1, le=100)
    """Attempts at a shard before it is quarantined."""
    workers: int | None = execution(None, ge=1, le=1024)
    """Processes on this machine. None: one per GPU, or one without a GPU."""
    deadline_seconds: float = execution(600.0, gt=0)
    """Seconds without a finished batch after which a worker process counts as hung and is replaced."""


def _by_name(classes: Any) -> Any:
    """Turn a list of class names into a mapping, and a class without settings into an empty one."""
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        return {name: {} for name in each_once(classes)}
    return {name: {} if spec is None else spec for name, spec in classes.items()} if isinstance(classes, dict) else classes


class Recipe(Config):
    """All settings of a run."""

    name: str = execution(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    """Name of the run and of its folder."""
    generator: AnyGenerator
    """The model that makes the images."""
    classes: Annotated[dict[ClassName, ClassConfig], BeforeValidator(_by_name), Field(min_length=1, max_length=100_000)]
    """The classes: a list of names, or a mapping from each name to its own settings."""
    prompts: SharedPromptsConfig = Field(default_factory=SharedPromptsConfig)
    """Prompts of all classes that have none of their own."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    """How images are sampled: seed, steps, guidance, image-to-image."""
    count: CountConfig
    """How many images are generated."""
    reference: str | None = location(None)
    """Real images by class, used for everything except the final test: a dataset folder, WebDataset tars, a folder with
    one sub-folder per class, or a Hugging Face `datasets` folder. None: they are given on the command line."""
    curation: CurationConfig = Field(default_factory=CurationConfig)
    """Chooses the subset of the pool that best matches the real images."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """Measures whether the synthetic images help in training."""
    diagnosis: DiagnosisConfig = Field(default_factory=DiagnosisConfig)
    """Decomposes the loss of accuracy into causes."""
    output: OutputConfig = Field(default_factory=OutputConfig)
    """Where a run writes, and the format of its files."""
    execution: ExecutionConfig = Field(default_factory=ExecutionConfig)
    """Devices, processes and threads."""

    @property
    def num_samples(self) -> int:
        """Number of images to generate."""
        return self.count.total or (self.count.per_class or 0) * len(self.classes)

    @property
    def run_path(self) -> str:
        """The run's folder: an absolute path or a remote address."""
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
        """The prompts of a class. Own templates or captions replace both of the shared ones; own values are added to
        the shared ones."""
        own, shared = self.classes[class_name], self.prompts
        has_own = own.templates is not None or own.captions is not None
        return PromptsConfig(
            templates=own.templates if has_own else shared.templates,
            captions=own.captions if has_own else shared.captions,
            values={**shared.values, **own.values},
            negative=own.negative if own.negative is not None else shared.negative,
        )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of recipes, for editors. It includes the short forms that `load_recipe` accepts."""
    schema = Recipe.model_json_schema(by_alias=False)
    mapping = schema["properties"]["classes"]
    mapping["additionalProperties"] = {"anyOf": [mapping["additionalProperties"], {"type": "null"}]}
    names = {"type": "array", "minItems": 1, "items": SCALAR}
    schema["properties"]["classes"] = {"anyOf": [names, mapping], "description": mapping.pop("description", "")}
    for name in ("Template", "ArmConfig"):
        schema["$defs"][name] = {"anyOf": [{"type": "string", "minLength": 1}, schema["$defs"][name]]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def file_digest(path: str) -> str:
    """SHA-256 of a text file that a recipe names, without a byte order mark, which is not part of the text."""
    return hashlib.sha256(Path(path).read_bytes().removeprefix(codecs.BOM_UTF8)).hexdigest()


def cross_checks(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """Check fields against each other, against files, and against what the generator can do.

    Yields the path of a field and what is wrong with it.
    """
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
        if spec.templates == []:
            yield (*here, "templates"), f"class {name!r} has no prompts; give at least one, or leave templates out to use prompts.templates"
        elif name not in with_prompts and (with_prompts or capabilities.text):
            yield here, f"class {name!r} has no prompts; give it templates or captions, or give prompts.templates for all"
        for number, template in enumerate(prompts.templates or []):
            used.update(template.names)
            where = (*(here if spec.templates is not None else ("prompts",)), "templates", str(number))
            for missing in [free for free in template.names if free not in prompts.values]:
                hint = did_you_mean(missing, [*prompts.values, "class"], f"add a list prompts.values.{missing}", most=1)
                yield where, f"{{{missing}}} has no values; {hint}"
        if prompts.negative is not None and not capabilities.text:
            problem = f"generator {recipe.generator.kind!r} takes {capabilities.in_words()}, not text, so a negative prompt has no effect"
            yield (*(here if spec.negative is not None else ("prompts",)), "negative"), f"{problem}; remove it"
    yield from _capability_problems(recipe)
    for name in recipe.prompts.values:
        if name not in used:
            yield ("prompts", "values", name), f"no template uses {{{name}}}"
    if recipe.count.per_class is not None:
        if len({spec.weight for spec in recipe.classes.values()}) > 1:
            yield ("count", "per_class"), "classes have different weights, so give total instead"
        if recipe.num_samples > MAX_SAMPLES:
            yield ("count", "per_class"), f"makes {recipe.num_samples:,} samples in total; a dataset holds at most {MAX_SAMPLES:,}"
    if recipe.num_samples > MAX_SHARDS * recipe.output.samples_per_shard:
        raised = f"raise it to {-(-recipe.num_samples // MAX_SHARDS):,} or more"
        yield ("output", "samples_per_shard"), f"{recipe.num_samples:,} samples would make over {MAX_SHARDS:,} shards; {raised}"


def _capability_problems(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str]]:
    """Settings that the recipe's kind of generator can't use, with the kinds that can."""
    kind, capabilities, sampling = recipe.generator.kind, type(recipe.generator).capabilities, recipe.sampling
    if not capabilities.guidance:
        if sampling.guidance != [1.0]:
            yield ("sampling", "guidance"), f"generator {kind!r} takes neither text nor label, so guidance has no effect; leave it out"
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
            problem = f"{level:g} times {sampling.steps} steps is less than one step; use at least {1 / sampling.steps:.2g}, or more steps"
            yield ("sampling", "real_guidance", "strength"), problem


def _kinds_with(can: Callable[[Capabilities], bool]) -> str:
    return " or ".join(repr(kind) for kind, config in GENERATORS.items() if can(config.capabilities))


def _caption_problems(path: str) -> Iterator[str]:
    try:
        if not lines_of(path):
            yield f"{path} holds no captions; write one per line"
    except FileNotFoundError:
        yield f"{path}: no such file"
    except DatasetError as error:
        yield str(error)
