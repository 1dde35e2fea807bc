"""Adding something is one place: a generator, an encoder, a gate, a selection rule and metrics that stand in this file
alone.

Help, schema and recipes find each by its name, a run uses it, and the report tells of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import jsonschema
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from synthforge.arrays import Bools
from synthforge.config import from_record, identity, identity_of, location, to_record
from synthforge.curation.evidence import Evidence
from synthforge.curation.gap.metrics import METRICS, Metric
from synthforge.curation.gates import GATES, Gate, GateOutcome
from synthforge.curation.selection.rules import RULES, Picked, Problem, SelectionRule
from synthforge.data.folder import DatasetFolder
from synthforge.data.model_files import GeneratorFiles, ModelFiles
from synthforge.data.storage import sha256_of
from synthforge.errors import RecipeError, WorkError
from synthforge.features.encoders.config import ENCODERS, EncoderConfig
from synthforge.features.encoders.protocol import Loading
from synthforge.generators.config import GENERATORS, GeneratorConfig, SamplingConfig
from synthforge.generators.protocol import Capabilities, ImageRequest
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from synthforge.recipe.recipe import Recipe, json_schema
from synthforge.registry import Registry
from tests.conftest import ROOT, Ran
from tests.curation.gap.test_gap import draw, measured

Cli = Callable[..., Ran]


# A generator: squares of noise, brighter for later classes


class SquaresConfig(GeneratorConfig):
    """Grey squares of 8 px in noise; the model is a text file with their brightness."""

    capabilities: ClassVar[Capabilities] = Capabilities(text=False, class_label=True, image=False)

    kind: Literal["squares"] = identity()
    """The kind of generator."""
    model: str = location()
    """The file."""

    def files(self, known: Mapping[str, str] | None = None) -> GeneratorFiles:
        return GeneratorFiles(ModelFiles(self.model, Path(self.model), None, sha256_of(Path(self.model))), {})

    def check(self, files: GeneratorFiles, sampling: SamplingConfig, labels: Sequence[str]) -> None:
        pass

    def image_size(self, files: GeneratorFiles, sampling: SamplingConfig) -> tuple[int, int]:
        return 8, 1

    def build(self, files: GeneratorFiles, sampling: SamplingConfig, device: str) -> Squares:
        return Squares(int(Path(self.model).read_text()), files.model.sha256)


class Squares:
    """Implements `Generator`."""

    resolution, default_batch, device = 8, 16, torch.device("cpu")

    def __init__(self, brightness: int, sha256: str) -> None:
        self._brightness, self._sha256 = brightness, sha256

    def identity(self) -> dict[str, Any]:
        return {"class": "Squares", "model": "squares", "sha256": self._sha256}

    def acceleration(self) -> dict[str, Any]:
        return {}

    def learn_texts(self, texts: Sequence[tuple[str, str | None]]) -> None:
        pass

    def compile(self, batch: Batch) -> None:
        pass

    def prepare(self, requests: Sequence[ImageRequest]) -> Batch:
        return Batch(requests)

    def sample(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        images = []
        for request in batch.requests:
            noise = torch.randint(0, 60, (8, 8, 1), generator=torch.Generator().manual_seed(request.seed))
            noise[2:6, 2:6] += self._brightness + 10 * int(request.class_name)
            images.append(noise.to(torch.uint8))
        return torch.stack(images), torch.zeros(len(images), dtype=torch.uint8)


class Batch:
    def __init__(self, requests: Sequence[ImageRequest]) -> None:
        self.requests, self.num_images = requests, len(requests)


# An encoder: means of blocks


class BlocksConfig(EncoderConfig):
    """Means of blocks of 2 x 2 pixels."""

    kind: Literal["blocks"] = identity("blocks")
    """The kind of encoder."""
    scale: float = identity(1.0, gt=0)
    """What features are multiplied by."""

    def build(self, loading: Loading) -> list[Any]:
        return [Blocks(self.scale)]


class Blocks:
    """Implements `Encoder`."""

    name, resolution, dim = "means of blocks", 8, 16
    seen: frozenset[str] = frozenset()
    classes: ClassVar[list[str]] = []
    logit_scale = None

    def __init__(self, scale: float) -> None:
        self._scale = scale

    def identity(self) -> dict[str, Any]:
        return {"kind": "blocks", "scale": self._scale}

    def embed(self, images_NHWC: np.ndarray) -> torch.Tensor:
        grey = torch.from_numpy(np.ascontiguousarray(images_NHWC)).float().mean(dim=3) / 255 * self._scale
        return grey.reshape(-1, 4, 2, 4, 2).mean(dim=(2, 4)).flatten(1)

    def embed_texts(self, texts: list[str]) -> None:
        pass

    def classify(self, features_ND: np.ndarray) -> None:
        pass


# A gate, a rule, metrics


class DarkGate(Gate):
    """Images that are darker than others."""

    title: ClassVar[str] = "dark"
    reasons: ClassVar[dict[str, tuple[str, str]]] = {"too dark": ("Too dark to be read", "Hardly any light is in them.")}

    on: bool = identity(False)
    """Whether such images are dropped."""
    share: float = identity(0.1, gt=0, lt=1)
    """Share of the images that fail."""

    def test(self, evidence: Evidence, alive_N: Bools) -> GateOutcome:
        light = np.full(len(alive_N), np.nan)
        for row, image_HWC in evidence.images():
            light[row] = image_HWC.mean() / 255
        return GateOutcome.of({"too dark": light < np.nanquantile(light, self.share)}, f"the darkest {self.share:.0%}", {"light": light})


def last_ones(problem: Problem) -> Picked:
    return problem.picked(np.arange(problem.num_pool)[::-1][: problem.num_keep].copy())


ADDED: list[tuple[Registry[Any], str, Any]] = [
    (GENERATORS, "squares", SquaresConfig),
    (ENCODERS, "blocks", BlocksConfig),
    (GATES, "dark", DarkGate),
    (RULES, "last", SelectionRule(last_ones, "The last images of each class.", "both")),
    (METRICS, "light", Metric("lightness", "share", "near floor", "Mean of all features.", lambda pair: float(pair.other_ND.mean()))),
    (METRICS, "nothing", Metric("nothing", "ratio", "lower", "No number at all.", lambda pair: np.nan)),
    (METRICS, "flat", Metric("flat MMD²", "ratio", "lower", "Under a linear kernel.", kernel=lambda one, other, _: one @ other.T)),
]


@pytest.fixture(scope="module", autouse=True)
def _added() -> Iterator[None]:
    """Parts from elsewhere are there from the import of their module on; here for these tests alone."""
    for registry, name, part in ADDED:
        assert registry.add(name)(part) is part
    yield
    for registry, name, _ in ADDED:
        del registry[name]


TEXT = """name: added
generator: {kind: squares, model: squares.txt}
classes: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
count: {per_class: 20}
reference: builtin:digits/reference
output: {path: run}
execution: {threads: 1}
curation:
  encoder: {kind: blocks}
  metric_encoder: {kind: blocks, scale: 2.0}
  gates: {dark: {on: true, share: 0.25}, copies: {on: false}, labels: {on: false}, manifold: {on: false}, duplicates: {on: false}}
  selection: {method: last, size: {per_class: 5}}
  trials: {check: false}
  cache: cache
evaluation:
  arms: [real, {name: newest, of: [curated], selection: last}]
diagnosis:
  encoder: {kind: blocks}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("added")
    (place / "squares.txt").write_text("100")
    text = TEXT.replace("cache: cache", f"cache: {place / 'cache'}").replace("path: run", f"path: {place / 'run'}")
    (place / "recipe.yaml").write_text(text)
    return place / "recipe.yaml"


@pytest.fixture(scope="module")
def run(recipe: Path) -> Path:
    """A run that is generated and curated."""
    from synthforge.curation.request import of_recipe
    from synthforge.curation.run import curate
    from synthforge.generation.run import generate

    loaded = load_recipe(recipe)
    assert generate(loaded).is_complete
    curate(of_recipe(loaded))
    return recipe.parent / "run"


@pytest.mark.parametrize("command", ["generate", "curate"])
def test_help_lists_them(command: str, cli: Cli) -> None:
    told = cli(command, "--help").out
    names = {"generate": ["squares"], "curate": ["dark", "last", "blocks", "light", "nothing", "flat"]}[command]
    assert all(name in told for name in names)


def test_the_schema_has_them(recipe: Path) -> None:
    from ruamel.yaml import YAML

    schema = json_schema()
    assert schema["properties"]["generator"]["discriminator"]["mapping"]["squares"] == "#/$defs/SquaresConfig"
    assert schema["$defs"]["GatesConfig"]["properties"]["dark"]["$ref"] == "#/$defs/DarkGate"
    assert "Share of the images that fail." in schema["$defs"]["DarkGate"]["properties"]["share"]["description"]
    content = json.loads(json.dumps(YAML(typ="safe").load(recipe)))
    validator = jsonschema.Draft202012Validator(schema)
    assert list(validator.iter_errors(content)) == []
    for section, wrong in (("selection", {"method": "lasst"}), ("gates", {"darkk": {}}), ("encoder", {"kind": "blockz"})):
        assert list(validator.iter_errors(content | {"curation": {section: wrong}}))


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("generator.kind=square", "squares"),
        ("curation.encoder.kind=block", "blocks"),
        ("curation.gates.drak.on=true", "dark"),
        ("curation.gates.dark.shar=0.5", "share"),
        ("curation.selection.method=lasts", "last"),
        ("evaluation.arms.1.selection=lost", "last"),
        ("diagnosis.encoder.kind=bloks", "blocks"),
    ],
)
def test_a_slip_is_told_the_nearest_name(override: str, meant: str, recipe: Path, cli: Cli) -> None:
    ran = cli("recipe", "check", recipe, "--set", override)
    assert ran.status == 2 and f"did you mean {meant!r}?" in ran.err and ran.err.count("\n") == 1


def test_their_settings_are_in_digests_and_records(recipe: Path) -> None:
    def digested(*sets: str) -> dict[str, Any]:
        return identity_of(load_recipe(recipe, sets), lambda path, value: "content")

    whole = digested()
    assert whole["generator"] == {"kind": "squares", "model": "content"}
    assert whole["curation"]["gates"]["dark"] == {"on": True, "share": 0.25} and whole["curation"]["encoder"]["scale"] == 1.0
    assert whole["curation"]["selection"]["method"] == whole["evaluation"]["arms"]["1"]["selection"] == "last"
    assert whole != digested("curation.gates.dark.share=0.5") != digested("curation.encoder.scale=3.0")
    loaded = load_recipe(recipe)
    assert from_record(Recipe, to_record(loaded)) == loaded


def test_an_added_gate_that_is_off_changes_no_digest() -> None:
    def digested(*sets: str) -> dict[str, Any]:
        gates: dict[str, Any] = identity_of(config_from_sets(CurationConfig, sets), lambda path, value: "content")["gates"]
        return gates

    assert digested().keys() == {"copies", "labels", "manifold", "content", "duplicates"}
    assert digested("gates.dark.on=true")["dark"]["on"] and digested("gates.dark.share=0.5")["dark"]["share"] == 0.5
    assert digested("gates.copies.on=false")["copies"] == digested()["copies"] | {"on": False}


def test_the_run_uses_them(run: Path) -> None:
    pool, rows = DatasetFolder.open(str(run / "pool")), pq.read_table(run / "curated" / "decisions.parquet").to_pylist()
    assert pool.manifest.generator is not None and pool.manifest.generator["class"] == "Squares"
    assert len(rows) == 200 and sum(row["reason"] == "too dark" for row in rows) == 50
    assert all(row["light"] is not None for row in rows)
    for digit in "89":  # the bright ones, none of which fails
        kept = sorted(row["key"] for row in rows if row["class"] == digit and row["kept"])
        assert kept == sorted(row["key"] for row in rows if row["class"] == digit)[-5:]


def test_the_gap_has_a_figure_or_a_reason_of_each_metric(run: Path) -> None:
    result = json.loads((run / "curated" / "gap.json").read_text())
    assert result["method"] == "last" and result["encoder"][0]["kind"] == "blocks"
    found = result["gap"]["metrics"]
    assert 0 < found["light"]["floor"]["value"] < 2 and found["light"]["after"]["over"] == "splits"
    assert found["flat"]["after"]["value"] > 0 and found["flat"]["after"]["over"] == "images"
    assert found["nothing"]["after"]["value"] is None
    assert found["nothing"]["after"]["reason"] == "it is not finite in 20 of 20 splits"


def test_the_report_tells_of_them(run: Path, cli: Cli) -> None:
    ran = cli("report", run, "--json")
    assert ran.status == 0, ran.err
    page = (run / "report.html").read_text()
    for words in (
        "Too dark to be read",
        "Hardly any light is in them.",
        "the darkest 25%",
        "lightness",
        "Mean of all features.",
        "squares",
    ):
        assert words in page


def test_a_kernel_without_finite_numbers_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    endless = Metric("endless", "ratio", "lower", "Never ends.", kernel=lambda one, other, _: np.full((len(one), len(other)), np.inf))
    monkeypatch.setitem(METRICS, "endless", endless)
    with pytest.raises(WorkError, match="metric endless: its kernel gives values that are not finite"):
        measured(draw(30, 1), draw(30, 2))


def test_kinds_are_registered_under_the_word_that_recipes_use() -> None:
    for registry in (GENERATORS, ENCODERS):
        assert all(get_args(part.model_fields["kind"].annotation) == (name,) for name, part in registry.items())


def test_a_name_is_given_once() -> None:
    with pytest.raises(ValueError, match="there is a gate 'dark' already"):
        GATES.add("dark")(DarkGate)
    with pytest.raises(ValueError, match="metric x: give either"):
        Metric("x", "ratio", "lower", "Nothing to compute.")


def test_a_recipe_that_names_what_is_gone_is_told_so(recipe: Path) -> None:
    del GATES["dark"]
    try:
        with pytest.raises(RecipeError, match=r"curation\.gates\.dark: unknown field"):
            load_recipe(recipe)
    finally:
        GATES["dark"] = DarkGate
    load_recipe(recipe)


def test_workers_load_a_part_from_its_own_module(recipe: Path, tmp_path: Path) -> None:
    """Two processes make the pool; what they are sent names the class, and so the module that they import."""
    shutil.copy(recipe.parent / "squares.txt", tmp_path)
    text = TEXT.replace("path: run", f"path: {tmp_path / 'run'}").replace("count: {per_class: 20}", "count: {per_class: 4}")
    (tmp_path / "recipe.yaml").write_text(text)
    code = (
        "from tests.contracts import test_adding as parts\n"
        "if __name__ == '__main__':\n"
        "    for registry, name, part in parts.ADDED:\n"
        "        registry[name] = part\n"
        "    from synthforge.generation.run import generate\n"
        "    from synthforge.recipe.load import load_recipe\n"
        "    sets = ['execution.workers=2', 'output.samples_per_shard=20']\n"
        f"    assert generate(load_recipe({str(tmp_path / 'recipe.yaml')!r}, sets)).is_complete\n"
    )
    (tmp_path / "mine.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script = [sys.executable, str(tmp_path / "mine.py")]
    done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
