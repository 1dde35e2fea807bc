"""`run`: all stages of a recipe in order. Stages whose inputs have not changed are skipped.

For each stage run.json stores a digest of its inputs: the fields of the recipe that it uses, and earlier results.
A stage is skipped if these inputs and its result are unchanged. A run that was interrupted goes on in the stage it was
in. Of the held-out test set only names, sizes and times of files are compared: only `evaluate` and `diagnose` open it.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from synthforge.config import Config, identity_of, to_record
from synthforge.curation.request import of_recipe
from synthforge.data import layout
from synthforge.data.folder import DatasetFolder
from synthforge.data.opening import open_collection
from synthforge.data.read_config import DECODER_VERSION
from synthforge.data.storage import Folder, content_of, resolve
from synthforge.errors import DatasetError, SynthforgeError
from synthforge.evaluation.diagnosis.request import diagnosis_of
from synthforge.evaluation.request import evaluation_of
from synthforge.generation.plan import Plan
from synthforge.progress import Reporter
from synthforge.recipe.curation import cache_folder
from synthforge.recipe.evaluation import DIAGNOSIS_VERSION, EVALUATION_VERSION
from synthforge.recipe.recipe import Recipe

VERSIONS = {"generate": 1, "curate": 3, "evaluate": EVALUATION_VERSION, "diagnose": DIAGNOSIS_VERSION, "report": 4}
"""Version of each stage. Raise it when equal inputs give another result, so that `run` makes the stage again."""
STAGES = tuple(VERSIONS)
_OF_EVALUATION = ("real_per_class", "draws", "seeds", "generators", "fit", "elsewhere", "trainer", "tuning", "margin")
"""Fields of the evaluation section that a diagnosis depends on."""


class StageNote(layout.Record):
    """Inputs and result of one stage."""

    inputs: str
    """Digest of everything that the stage depends on."""
    left: str | None
    """Digest of the result. None: there is none."""
    seconds: float
    verdict: str | None = None
    headline: str | None = None
    missing: list[str] = Field(default_factory=list)
    """Results that the page could not show."""


class RunNotes(layout.Document):
    """run.json: a note for each finished stage."""

    stages: dict[str, StageNote] = Field(default_factory=dict)
    schema_version: Literal[2] = 2

    @model_validator(mode="before")
    @classmethod
    def _upgraded(cls, content: Any) -> Any:
        """Version 1 held the stages without a version number."""
        is_old = isinstance(content, dict) and not content.keys() & {"stages", "schema_version"}
        return {"stages": content} if is_old else content


@dataclass(frozen=True)
class StageResult:
    """What became of one stage."""

    stage: str
    state: Literal["made", "nothing to do", "left out"]
    seconds: float
    reason: str | None = None
    """Why it was left out. None: it was not."""


@dataclass(frozen=True)
class RunResult:
    """What `run` did, and where the page is."""

    folder: str
    stages: list[StageResult]
    page: str
    headline: str
    is_complete: bool
    """Whether the pool has all its images."""
    seconds: float
    missing: list[str] = field(default_factory=list)
    """Results that the page could not show."""


def run(recipe: Recipe, reporter: Reporter | None = None) -> RunResult:
    """Generate, curate, evaluate, diagnose and report. Raises the errors of the stages."""
    return _Run(recipe, reporter or Reporter()).all_stages()


class _Run:
    """One run: its stages, and the inputs of each."""

    def __init__(self, recipe: Recipe, reporter: Reporter) -> None:
        self.recipe, self.reporter = recipe, reporter
        self.folder = Folder(self.recipe.run_path)
        self.results: list[StageResult] = []
        self.trouble: str | None = None
        """Why the run ends early. None: it does not."""
        self.notes = self._notes()

    def all_stages(self) -> RunResult:
        """Run each stage in turn; the page comes last, also after a failure."""
        started, recipe = time.perf_counter(), self.recipe
        no_real = "the recipe names no real images (`reference`)" if recipe.reference is None else None
        no_holdout = "the recipe names no held-out test set (`evaluation.holdout`)" if recipe.evaluation.holdout is None else None
        lacks = no_real or no_holdout
        if no_real is None:
            _ = self._reference_digest  # report mistakes before hours of work
        if lacks is None:
            evaluation_of(recipe), diagnosis_of(recipe)
        self._stage("generate")
        self.folder.replace(layout.RUN_RECIPE, to_record(recipe))  # only now is the pool known to be this recipe's
        try:
            self._stage("curate", no_real)
            self._stage("evaluate", lacks)
            self._stage("diagnose", lacks)
        except SynthforgeError as error:
            self.trouble = str(error)
            with suppress(SynthforgeError):  # show the results so far; the first error is the one to report
                self._stage("report")
            raise
        self._stage("report")
        completion, note = DatasetFolder.open(recipe.pool_path).completion(), self.notes["report"]
        return RunResult(
            folder=self.folder.address,
            stages=self.results,
            page=self.folder.where(layout.PAGE),
            headline=note.headline or "",
            is_complete=completion is None or not completion.quarantined,
            seconds=round(time.perf_counter() - started, 1),
            missing=note.missing,
        )

    def _stage(self, name: str, lacks: str | None = None) -> None:
        """Run a stage, unless its inputs and its result are unchanged.

        Args:
            lacks: why the stage can't run. None: it can.
        """
        if lacks is not None:
            self.results.append(StageResult(name, "left out", 0.0, lacks))
            return
        number, stage, note = STAGES.index(name) + 1, _STAGES[name], self.notes.get(name)
        inputs = layout.digest_of([VERSIONS[name], stage.inputs(self)])
        if note is not None and note.left is not None and (note.inputs, note.left) == (inputs, stage.digest(self)):
            self.reporter.note(f"{number} of {len(STAGES)}, {name}: nothing has changed")
            self.results.append(StageResult(name, "nothing to do", 0.0))
            return
        self.reporter.note(f"{number} of {len(STAGES)}, {name}")
        started = time.perf_counter()
        outcome = stage.make(self)
        seconds = round(time.perf_counter() - started, 1)
        self.notes[name] = StageNote(**outcome, inputs=inputs, left=stage.digest(self), seconds=seconds)
        self.folder.replace(layout.NOTES, RunNotes(stages=self.notes).to_bytes())
        self.results.append(StageResult(name, "made", seconds))

    def _notes(self) -> dict[str, StageNote]:
        try:
            return dict(layout.parse(RunNotes, self.folder.read(layout.NOTES), self.folder.where(layout.NOTES)).stages)
        except (FileNotFoundError, DatasetError):
            return {}

    # Inputs of each stage

    def pool_inputs(self) -> Any:
        return [self._plan.digest, self.recipe.num_samples]

    def curated_inputs(self) -> Any:
        return [self.pool_digest(), self._reference_digest, _identity(self.recipe.curation)]

    def evaluation_inputs(self) -> Any:
        sections = [_identity(self.recipe.curation), _identity(self.recipe.evaluation, {"holdout"})]
        return [*self._measured(), sections]

    def diagnosis_inputs(self) -> Any:
        evaluation = _identity(self.recipe.evaluation, {"holdout"})
        sections = [{name: value for name, value in evaluation.items() if name in _OF_EVALUATION}, _identity(self.recipe.diagnosis)]
        encoder = _identity(self.recipe.curation).get("encoder")
        decoder = self.recipe.curation.reading.decoder
        return [*self._measured(), sections, encoder, *([decoder] if decoder != DECODER_VERSION else [])]

    def _measured(self) -> list[Any]:
        """What `evaluate` and `diagnose` both measure."""
        return [self._plan.digest, self.pool_digest(), self._reference_digest, self._holdout_files, self._generator_digests]

    def page_inputs(self) -> Any:
        results = [self.sha256(name) for name in (layout.EVALUATION, layout.DIAGNOSIS)]
        return [self.recipe.name, self.pool_digest(), self.sha256(f"curated/{layout.GAP}"), results, sorted(self._left_out), self.trouble]

    @functools.cached_property
    def _plan(self) -> Plan:
        return Plan.of(self.recipe)

    def pool_digest(self) -> str | None:
        """Digest of the pool; None if it is not complete."""
        return _digest(self.recipe.pool_path)

    @functools.cached_property
    def _reference_digest(self) -> str:
        assert self.recipe.reference is not None
        curation = self.recipe.curation
        return open_collection(self.recipe.reference, cache_folder(curation), reading=curation.reading).digest

    @property
    def _holdout_files(self) -> list[Any]:
        """Path of the held-out test set, and name, size and time of its files."""
        assert self.recipe.evaluation.holdout is not None
        place = Path(resolve(self.recipe.evaluation.holdout))
        files = sorted(file for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file())
        return [str(place), [[str(file.relative_to(place)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]]

    @property
    def _generator_digests(self) -> list[Any]:
        """Digests of the generators that were trained on subsets of the real images."""
        config = self.recipe.evaluation
        amounts = [*config.real_per_class, *(self.recipe.diagnosis.real_per_class or [])]
        return (
            [content_of(config.generators.replace("{amount}", str(amount))) for amount in amounts] if config.generators is not None else []
        )

    @property
    def _left_out(self) -> set[str]:
        return set(STAGES) - {one.stage for one in self.results if one.state != "left out"}

    def sha256(self, name: str) -> str | None:
        """Digest of a file of the run; None if it is missing."""
        try:
            return hashlib.sha256(self.folder.read(name)).hexdigest()
        except FileNotFoundError:
            return None

    # The stages. Their imports are slow, so a stage that is skipped imports nothing

    def generate(self) -> dict[str, Any]:
        from synthforge.generation.run import generate

        generate(self.recipe, self.reporter)
        return {}

    def curate(self) -> dict[str, Any]:
        from synthforge.curation.run import curate

        curate(of_recipe(self.recipe), self.reporter, reselect=Folder(self.recipe.curated_path).exists(layout.MANIFEST))
        return {}

    def evaluate(self) -> dict[str, Any]:
        from synthforge.evaluation.run import evaluate

        return {"verdict": evaluate(evaluation_of(self.recipe), self.reporter).verdict}

    def diagnose(self) -> dict[str, Any]:
        from synthforge.evaluation.diagnosis.run import diagnose

        return {"verdict": diagnose(diagnosis_of(self.recipe), self.reporter).verdict}

    def report(self) -> dict[str, Any]:
        from synthforge.reporting.gathered import Gathered
        from synthforge.reporting.report import report

        result = report(Gathered.of(self.recipe, self._left_out), None, self.reporter, trouble=self.trouble)
        return {"headline": result.headline, "missing": result.missing}


@dataclass(frozen=True)
class _Stage:
    """One stage of a run."""

    inputs: Callable[[_Run], Any]
    """Everything that it depends on, as JSON values."""
    make: Callable[[_Run], dict[str, Any]]
    """Makes the stage, and returns what its note says beside the digests."""
    digest: Callable[[_Run], str | None]
    """Digest of its result. None: there is none."""


_STAGES = {
    "generate": _Stage(_Run.pool_inputs, _Run.generate, _Run.pool_digest),
    "curate": _Stage(_Run.curated_inputs, _Run.curate, lambda run: _digest(run.recipe.curated_path)),
    "evaluate": _Stage(_Run.evaluation_inputs, _Run.evaluate, lambda run: run.sha256(layout.EVALUATION)),
    "diagnose": _Stage(_Run.diagnosis_inputs, _Run.diagnose, lambda run: run.sha256(layout.DIAGNOSIS)),
    "report": _Stage(_Run.page_inputs, _Run.report, lambda run: run.sha256(layout.PAGE)),
}


def _digest(address: str) -> str | None:
    """Digest of a dataset folder; None if it is missing or not complete."""
    if not Folder(address).exists(layout.COMPLETE):
        return None
    completion = DatasetFolder.open(address).completion()
    return completion.digest if completion is not None else None


def _identity(config: Config, without: Collection[str] = ()) -> dict[str, Any]:
    """The fields of a section that change results. Paths are replaced by digests of their content."""
    return identity_of(config, lambda path, value: content_of(value), without)
