"""The command line: parse arguments, call one function, print its result.

Heavy imports wait until a command needs them.
Exit status: 0 done; 1 the work failed; 2 the request was wrong and nothing was started.
With `--json` standard output carries exactly one JSON object. Progress and messages always go to standard error.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import shlex
import sys
import warnings
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

from synthforge.cli import console
from synthforge.cli.console import ConsoleReporter
from synthforge.errors import RecipeError, SynthforgeError, some

if TYPE_CHECKING:
    from synthforge.recipe.recipe import Recipe

app = typer.Typer(
    name="synthforge",
    help="Generate synthetic training images with diffusion models, curate them, and measure whether they improve a classifier.",
    epilog="Start with: synthforge recipe new --builtin digits && synthforge run digits.yaml",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
recipe_app = typer.Typer(help="Check recipes, write new ones, and print their schema.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")

_INTERRUPTED = 130
"""Exit status of typer after Ctrl-C."""


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(version("synthforge"))
        raise typer.Exit


@app.callback()
def _options(
    _show_version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    pass


def _argument(metavar: str, about: str) -> Any:
    return typer.Argument(metavar=metavar, help=about, show_default=False)


def _set_option(about: str) -> Any:
    return typer.Option("--set", metavar="PATH=VALUE", help=f"{about} Repeatable.")


RecipeFile = Annotated[str, _argument("RECIPE", "The recipe, a YAML file.")]
OptionalRecipe = Annotated[str | None, _argument("[RECIPE]", "The recipe, a YAML file.")]
Holdout = Annotated[str | None, typer.Option(metavar="HOLDOUT", help="Held-out test set, used for nothing else. Default: the recipe's.")]
FolderArgument = Annotated[str, _argument("FOLDER", "A dataset folder or its address, such as runs/digits/pool.")]
Real = Annotated[str | None, typer.Option(metavar="REAL", help="The real images. Default: the recipe's `reference`.")]
ResultFile = Annotated[
    str | None, typer.Option(metavar="FILE", help="Result file. Default: in the run's folder; without a recipe, in runs/evaluation.")
]
LastRecipe = Annotated[str | None, typer.Option(metavar="FILE", help="The recipe to generate with. Default: the recipe of the last run.")]
Sets = Annotated[list[str] | None, _set_option("Override a field of the recipe, such as --set sampling.steps=30.")]
SectionSets = Annotated[
    list[str] | None,
    _set_option("Set a field, such as --set evaluation.seeds=3; without a recipe also seeds=3."),
]
FitSets = Annotated[list[str] | None, _set_option("Override a setting, such as --set loop.images=200000.")]


class WithParts(TyperCommand):
    """A command whose help ends with the names of the available parts, also added ones."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        for kind, names in self._parts().items():
            print(f" {kind}: {', '.join(names)}.\n")

    def _parts(self) -> dict[str, Iterable[str]]:
        if self.name == "generate":
            from synthforge.generators.config import GENERATORS

            return {"Kinds of generator": GENERATORS}
        from synthforge.curation.gap.metrics import METRICS
        from synthforge.features.encoders.config import ENCODERS
        from synthforge.recipe.curation import GATES, RULES

        return {"Filters (gates)": GATES, "Selection rules": ["auto", *RULES], "Kinds of encoder": ENCODERS, "Metrics": METRICS}


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no summary, only errors.")]


@app.command(cls=WithParts, epilog="Example: synthforge generate recipes/digits.yaml --set count.per_class=50 --set output.path=runs/small")
def generate(
    recipe: RecipeFile,
    sets: Sets = None,
    extend: Annotated[int | None, typer.Option(metavar="N", help="Add N images to a finished run.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Delete the pool first, and generate it again.")] = False,
    retry_quarantined: Annotated[bool, typer.Option(help="Retry shards that failed repeatedly.")] = False,
    part: Annotated[str | None, typer.Option(metavar="I/N", help="Generate only part I of N. With `slurm`, Slurm gives I and N.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate a recipe's images as WebDataset shards. After an interruption the same command continues."""
    from synthforge.executors.array import parse_part

    loaded, only = _load(recipe, sets), parse_part(part) if part is not None else None
    from synthforge.generation.run import generate as run  # heavy, so mistakes are reported first

    result = run(loaded, ConsoleReporter(quiet), extend=extend, overwrite=overwrite, retry_quarantined=retry_quarantined, part=only)
    title = f"part {result.part} done" if result.part is not None else "pool complete" if result.is_complete else "pool not complete"
    rows = {
        "images": f"{result.samples:,} in {result.shards:,} shards, {console.size(result.bytes)}",
        "generated now": f"{result.made:,} in {console.duration(result.seconds)}, {result.images_per_second:,.0f} images/s"
        if result.made
        else "nothing",
        **_notes(result.prompts.notes + result.prompts.problems),
        "rejected": ", ".join(f"{num:,} {reason}" for reason, num in result.rejected.items())
        + (f"; {result.left_out:,} left out" if result.left_out else ""),
        "memory": f"batch halved {result.halvings} times" if result.halvings else "",
        "quarantined": "; ".join(f"{stem}: {reason}" for stem, reason in result.quarantined.items()),
        "folder": result.folder,
        "contact sheet": result.contact_sheet or "",
        "digest": result.digest or ("other parts are not generated yet" if result.part else "not complete yet"),
        "next": f"synthforge verify {console.relative(result.folder)}",
    }
    _finish(result, title, rows, as_json, quiet, failed=bool(result.quarantined))


@app.command(
    cls=WithParts,
    epilog="Example: synthforge curate recipes/digits.yaml; or: synthforge curate runs/a/pool runs/b/pool --real photos/ --out curated/",
)
def curate(
    sources: Annotated[
        list[str],
        _argument(
            "RECIPE | POOL...",
            "A recipe, or pools: dataset folders, WebDataset tars, folders of images by class, Hugging Face datasets on disk.",
        ),
    ],
    real: Real = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="Folder of the result. Default: `curated` in the run's folder.")] = None,
    sets: SectionSets = None,
    reselect: Annotated[bool, typer.Option(help="Replace an existing curated set. Cached features are reused.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Select the images that match the distribution of the real images, and measure the distance that remains."""
    from synthforge.curation.request import request_of

    request = request_of(sources, real, out, sets or ())
    from synthforge.curation.run import curate as run  # heavy, so mistakes are reported first
    from synthforge.reporting.answers import distance

    result = run(request, ConsoleReporter(quiet), reselect=reselect)
    metrics = {name: found for name, found in result.gap.metrics.items() if found.after.value is not None}
    tried = ", ".join(f"{rule} {score.probability:.3f}" for rule, score in result.trials.items())
    lacking = [
        f"class {lack.class_name}: about {lack.num_wanted:,} more images needed, like {', '.join(lack.real_keys[:3])}"
        for lack in result.lacking[:5]
    ]
    rows = {
        "kept": f"{result.kept:,} of {result.pool:,} images, by {result.method}"
        + (f" (probability of the true class: {tried})" if tried else ""),
        **_numbered("read", list(map(str, result.inputs))),
        "not usable": ", ".join(f"{number:,} {reason}" for reason, number in result.unusable.items()),
        **{
            f"filter {report.gate}": ", ".join(f"{number:,} {reason}" for reason, number in report.dropped.items()) + f"; {report.rule}"
            for report in result.gates
        },
        **{
            f"distance, {name}": f"curated {distance(found.after)}, random {distance(found.random)}, whole pool {distance(found.before)}, "
            f"other real images {distance(found.floor)}"
            for name, found in metrics.items()
        },
        **_numbered("underrepresented", lacking),
        **_notes(result.notes),
        "result": result.sentence,
        "folder": result.folder,
        "contact sheet": result.contact_sheet or "",
        "next": f"synthforge verify {console.relative(result.folder)}",
    }
    _finish(result, "curated", rows, as_json, quiet)


@app.command(
    epilog="Example: synthforge evaluate recipes/digits.yaml; or: synthforge evaluate --synthetic a/pool --real photos/ --holdout test/"
)
def evaluate(
    recipe: OptionalRecipe = None,
    synthetic: Annotated[list[str] | None, typer.Option(metavar="SET", help="Without a recipe: synthetic images. Repeatable.")] = None,
    real: Real = None,
    holdout: Holdout = None,
    arms: Annotated[str | None, typer.Option(metavar="A,B,...", help="Only these training sets, such as real,real+curated.")] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'A > B'",
            help="Exit with status 1 unless A is significantly better than B. With 'A >= B': only if A is significantly worse. Repeatable.",
        ),
    ] = None,
    out: ResultFile = None,
    sets: SectionSets = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train classifiers on real, synthetic and mixed images, and compare their accuracy on a held-out test set."""
    from synthforge.evaluation.request import evaluation_of

    loaded, overrides = _recipe_or_sets(recipe, sets)
    request = evaluation_of(
        loaded, synthetic=synthetic or (), real=real, holdout=holdout, arms=arms, out=out, require=require or (), sets=overrides
    )
    from synthforge.evaluation.results.words import change, percent, told
    from synthforge.evaluation.run import evaluate as run  # heavy, so mistakes are reported first

    result = run(request, ConsoleReporter(quiet))
    if not (as_json or quiet):
        for table in result.tables:
            console.print_evaluation(console.stdout(), table)
    curve = "; ".join(f"{percent(point.accuracy)} with {point.real_per_class:g} per class" for point in result.curve)
    rows = _numbered("read", list(map(str, result.inputs))) | {"accuracy, real only": curve} | _notes(result.notes)
    required = result.tables[0].required if result.tables else []
    rows |= {one.claim.what: f"{change(one.claim.difference)} ({told(one.claim)})" for one in required}
    rows |= {f"required {text}": "holds" if is_met else "does not hold" for text, is_met in result.requirements.items()}
    rows |= {
        "training runs": f"{result.trainings:,} of {result.steps:,} steps each, {console.duration(result.seconds)}",
        "result": result.verdict,
        "file": result.file or "",
    }
    _finish(result, "evaluated", rows, as_json, quiet, failed=not all(result.requirements.values()))


def _load(path: str, sets: list[str] | None = None) -> Recipe:
    from synthforge.recipe.load import load_recipe

    return load_recipe(path, sets or ())


def _recipe_or_sets(path: str | None, sets: list[str] | None) -> tuple[Recipe | None, list[str]]:
    """A recipe with its overrides, or no recipe and the overrides of a request without one."""
    return (_load(path, sets), []) if path is not None else (None, sets or [])


@app.command(
    epilog="Example: synthforge diagnose recipes/digits.yaml; or: synthforge diagnose --synthetic pool/ --real photos/ --holdout test/"
)
def diagnose(
    recipe: OptionalRecipe = None,
    synthetic: Annotated[str | None, typer.Option(metavar="SET", help="Without a recipe: the synthetic images, in any format.")] = None,
    real: Real = None,
    holdout: Holdout = None,
    rendered: Annotated[
        str | None, typer.Option(metavar="SET", help="Without a recipe: real images redrawn by the generator (image-to-image), same names.")
    ] = None,
    out: ResultFile = None,
    sets: SectionSets = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find out why synthetic images cost accuracy (appearance, content, wrong labels), and what to do about it."""
    from synthforge.evaluation.diagnosis.request import diagnosis_of

    loaded, overrides = _recipe_or_sets(recipe, sets)
    request = diagnosis_of(loaded, synthetic=synthetic, real=real, holdout=holdout, rendered=rendered, out=out, sets=overrides)
    from synthforge.evaluation.diagnosis.run import diagnose as run  # heavy, so mistakes are reported first

    result = run(request, ConsoleReporter(quiet))
    if not (as_json or quiet):
        for table in result.tables:
            console.print_diagnosis(console.stdout(), table)
    rows = _numbered("read", list(map(str, result.inputs))) | _notes(result.notes)
    rows |= {"training runs": f"{result.trainings:,}, {console.duration(result.seconds)}", "result": result.verdict}
    rows |= _numbered("next", [advice.text for advice in result.advice]) | {"file": result.file or ""}
    _finish(result, "diagnosed", rows, as_json, quiet)


@app.command(epilog="Example: synthforge run recipes/digits.yaml")
def run(recipe: RecipeFile, sets: Sets = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Run all stages: generate, curate, evaluate, diagnose, report. Unchanged stages are skipped."""
    from synthforge.stages import run as do

    result = do(_load(recipe, sets), ConsoleReporter(quiet))
    rows = {}
    for one in result.stages:
        seconds = f", {console.duration(one.seconds)}" if one.state == "made" else ""
        rows[one.stage] = one.state + seconds + (f": {one.reason}" if one.reason else "")
    rows |= {"total": console.duration(result.seconds)} | _numbered("missing", result.missing)
    rows |= {"result": result.headline, "page": f"file://{result.page}" if "://" not in result.page else result.page}
    _finish(result, "done", rows, as_json, quiet, failed=not result.is_complete)


@app.command(epilog="Example: synthforge report recipes/digits.yaml; or: synthforge report runs/digits --no-real-images --out page.html")
def report(
    run: Annotated[str, _argument("RECIPE | RUN", "A recipe, or a run's folder.")],
    out: Annotated[str | None, typer.Option(metavar="FILE", help="File of the page. Default: report.html in the run's folder.")] = None,
    no_real_images: Annotated[bool, typer.Option("--no-real-images", help="Show no real images, so that you can share the page.")] = False,
    sets: Sets = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the results of a run as one HTML page: whether the images help, why, and what to do next."""
    from synthforge.reporting.gathered import Gathered

    gathered = Gathered.asked(run, sets or ())
    from synthforge.reporting.report import report as write  # heavy, so mistakes are reported first

    result = write(gathered, out, ConsoleReporter(quiet), real_images=not no_real_images)
    rows = _numbered("missing", result.missing)
    rows |= {
        "result": result.headline,
        "page": f"{result.file}, {console.size(result.bytes)}",
        "plots": f"{len(result.plots)} files beside it",
    }
    _finish(result, "reported", rows, as_json, quiet)


@app.command(epilog="Example: synthforge compare runs/guidance-1 runs/guidance-3 --out runs/guidance.html")
def compare(
    runs: Annotated[list[str], _argument("RUN...", "Two or more folders of runs, or recipes.")],
    out: Annotated[str, typer.Option(metavar="FILE", help="File of the page.")] = "compare.html",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare runs in one table and page, such as runs of different generators or selection rules."""
    from synthforge.reporting.gathered import Gathered

    gathered = [Gathered.asked(run) for run in runs]
    from synthforge.reporting.compare import compare as write  # heavy, so mistakes are reported first

    result = write(gathered, out)
    if not (as_json or quiet):
        console.print_comparison(console.stdout(), result)
    _finish(result, "compared", _numbered("note", result.warnings) | {"page": result.file}, as_json, quiet)


@app.command(epilog="Example: synthforge plan recipes/digits.yaml --measure")
def plan(
    recipe: RecipeFile,
    sets: Sets = None,
    measure: Annotated[bool, typer.Option(help="Load the model and measure images per second at several batch sizes.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a recipe will generate: classes, counts, shards, bytes; with --measure, also hours."""
    from synthforge.generation.inspect import summarize

    summary = summarize(_load(recipe, sets), ConsoleReporter(quiet), measure=measure)
    classes = [f"{name} {num:,}" for name, num in summary.per_class.items()]
    first = summary.examples[0]
    rows = {
        "images": f"{summary.samples:,}" + (f" of {summary.resolution} px" if summary.resolution is not None else ""),
        "classes": f"{len(classes):,}: {some(classes, 12)}",
        "shards": f"{summary.shards:,} of up to {summary.samples_per_shard:,}",
        "bytes": (f"about {console.size(summary.bytes_estimated)}" if summary.bytes_estimated is not None else "not known")
        + (f", {console.size(summary.free_bytes)} free" if summary.free_bytes is not None else ""),
        **_notes(summary.prompts.notes),
        "first": f"{first['key']}: {first['prompt']!r}, seed {first['seed']}, guidance {first['guidance']:g}",
        "folder": summary.folder,
        "rate": f"{summary.images_per_second:,.1f} images/s with batch {summary.batch}, so {console.duration((summary.hours or 0) * 3600)}"
        if summary.images_per_second
        else "",
        "batches": ", ".join(f"{size}: {rate:,.0f}/s" for size, rate in (summary.batches_measured or {}).items()),
        "plan digest": summary.plan_digest or "not known without the model",
    }
    if summary.free_bytes is not None and (summary.bytes_estimated or 0) > summary.free_bytes:
        rows["warning"] = "there is not enough free disk space"
    _finish(summary, f"plan of {summary.name}", rows, as_json, quiet)


@app.command(epilog="Example: synthforge preview recipes/digits.yaml --out preview.png --per-class 10")
def preview(
    recipe: RecipeFile,
    sets: Sets = None,
    out: Annotated[Path, typer.Option(help="File of the picture.")] = Path("preview.png"),
    per_class: Annotated[int, typer.Option(min=1, max=100, help="Number of images per class.")] = 8,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Generate a few images of each class, the first of the run, as one labelled contact sheet."""
    from synthforge.generation.inspect import preview as draw

    path = draw(_load(recipe, sets), out, per_class, ConsoleReporter(quiet))
    _finish({"contact_sheet": str(path)}, "preview", {"contact sheet": str(path)}, as_json, quiet)


@app.command(epilog="Example: synthforge verify runs/digits/pool --regenerate 20")
def verify(
    folder: FolderArgument,
    regenerate: Annotated[int, typer.Option(metavar="N", min=0, max=100_000, help="Generate N of the images again, and compare.")] = 0,
    recipe: LastRecipe = None,
    sets: Sets = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the random choice. Default: a new one each time.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check every shard against its stored checksum. With --regenerate, also generate some images again and compare."""
    from synthforge.generation.inspect import verify as check

    loaded = _load(recipe, sets) if recipe is not None else None
    audit, remade = check(folder, ConsoleReporter(quiet), regenerate=regenerate, recipe=loaded, seed=seed)
    rows = {"shards": f"{audit.shards:,} sealed, {audit.samples:,} images, {console.size(audit.bytes)}"}
    rows |= _numbered("problem", audit.problems[:20]) | _numbered("note", audit.notes[:20])
    failed = bool(audit.problems)
    if remade is not None:
        failed |= not remade.is_reproduced
        rows["generated again"] = (
            f"{remade.num_samples:,} samples: {remade.identical:,} identical, largest difference {remade.largest_difference} of 255 levels"
        )
        rows["tolerance"] = f"{remade.within_tolerance:.3%} of pixels differ by at most 2 levels (required: 99.9 %): " + (
            "reproduced" if remade.is_reproduced else "NOT reproduced"
        )
    result = {"audit": asdict(audit), "remade": asdict(remade) if remade is not None else None, "ok": not failed}
    _finish(result, "verified" if not failed else "NOT in order", rows, as_json, quiet, failed=failed)


@app.command(epilog="Example: synthforge show 000000012 runs/digits/pool --save twelve.png")
def show(
    key: Annotated[str, _argument("KEY", "A sample's key; leading zeros may be left out.")],
    folder: FolderArgument,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the image to a file; with --remake, the regenerated one.")] = None,
    again: Annotated[bool, typer.Option("--remake", help="Generate the image again from its record, and compare.")] = False,
    recipe: LastRecipe = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show one sample: its image, its record, and how to generate it again."""
    from synthforge.generation.inspect import remake, save_image, show as read

    shown = read(folder, key)
    remade = remake(folder, key, _load(recipe) if recipe else None, ConsoleReporter(quiet)) if again else None
    if save is not None:
        save_image(shown.image if remade is None else remade.image, save)
    if as_json:
        console.print_json(
            {name: value for name, value in asdict(shown).items() if name != "image"}
            | {"image_bytes": len(shown.image), "saved": str(save) if save else None}
            | {"remade": {name: value for name, value in asdict(remade).items() if name != "image"} if remade is not None else None}
        )
    elif not quiet:
        screen = console.stdout()
        console.draw_image(screen, shown.image)
        record = {name: value for name, value in shown.record.items() if value not in (None, [])}
        console.print_rows(
            screen,
            f"{shown.key} in {shown.shard}",
            {name: json.dumps(value) if not isinstance(value, str) else value for name, value in record.items()}
            | {"saved": str(save or "")},
        )
        if remade is not None:
            console.draw_image(screen, remade.image)
            found = f"largest difference {remade.largest_difference} of 255 levels, {remade.within_tolerance:.1%} of pixels at most 2 off"
            console.print_rows(screen, "generated again", {"compared": found, "changed": "; ".join(remade.changes)})
        screen.print("\ngenerate it again:", style="bold")
        print(shown.remake)
    if remade is not None and not remade.is_reproduced:
        sys.exit(1)


@app.command(epilog="Example: synthforge status runs/digits/pool")
def status(folder: FolderArgument, as_json: Json = False, quiet: Quiet = False) -> None:
    """Show the progress of a run: done, missing, quarantined, rate, time left."""
    from synthforge.data.audit import status as look
    from synthforge.data.folder import DatasetFolder

    found = look(DatasetFolder.open(folder))
    rows = {
        "images": f"{found.samples_done:,} of {found.samples_asked:,}"
        + (f", {found.samples_missing:,} left out" if found.samples_missing else ""),
        "shards": f"{found.shards_done:,} of {found.shards_asked:,}, {console.size(found.bytes)}",
        "quarantined": "; ".join(f"{stem}: {reason}" for stem, reason in found.shards_quarantined.items()),
        "writers": ", ".join(f"{beat.writer} at shards {beat.shards}" for beat in found.writers) or "none",
        "rate": f"{found.images_per_second:,.1f} images/s" if found.writers else "",
        "time left": console.duration(found.seconds_left) if found.seconds_left is not None and not found.is_complete else "",
    }
    paused = "in progress" if found.writers else "not complete; run `synthforge generate` again to continue"
    _finish(found, "complete" if found.is_complete else paused, rows, as_json, quiet)


@app.command(epilog="Example: synthforge fit builtin:digits/reference --out runs/digits/generator --set loop.images=200000")
def fit(
    data: Annotated[
        str,
        _argument(
            "DATA",
            "Real images: dataset folder, WebDataset tars, folder of images by class, Hugging Face dataset, builtin:digits/reference.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="New folder for the model.", show_default=False)],
    sets: FitSets = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a small diffusion model (8 to 64 px) on labelled real images, and stop before it memorises them."""
    from synthforge.generators.pixel.config import PixelFitConfig
    from synthforge.recipe.load import config_from_sets

    config = config_from_sets(PixelFitConfig, sets or ())
    from synthforge.generators.pixel.fit import fit as run
    from synthforge.generators.pixel.fit_report import Check
    from synthforge.training.loop import Progress as FitProgress

    reporter = ConsoleReporter(quiet)
    batch, begun = config.loop.batch, False

    def on_progress(progress: FitProgress) -> None:
        nonlocal begun
        if not begun:
            reporter.begin("training", progress.num_steps * batch, 0)
            begun = True
        reporter.reach(progress.step * batch, f"loss {progress.loss:.4f}" if progress.loss is not None else "")

    def on_check(check: Check) -> None:
        validation = f", {check.held_out_loss:.4f} on the validation part" if check.held_out_loss is not None else ""
        reporter.note(
            f"{check.images_seen:>9,} images: loss {check.fit_loss:.4f} on the fit part{validation}; near-copies {check.near_copies:.1%} "
            f"(among real images {check.near_copies_real:.1%})" + ("" if check.is_candidate else ", too many")
        )

    report = run(data, out, config, on_progress, on_check)
    reporter.end()
    rows = {
        "model": str(out),
        "not used": ", ".join(f"{num:,} {reason}" for reason, num in report.unused.items()),
        "trained on": f"{report.images_fitted:,} images of {report.resolution} px, {len(report.classes)} classes",
        "validated on": f"{report.images_validation:,} images",
        "network": f"{report.parameters:,} parameters",
        "images seen": f"{report.images_seen:,} in {console.duration(report.seconds)}, {report.images_per_second:,.0f} images/s",
        "kept": f"the weights after step {report.kept_step:,}; ended because: {report.stopped}",
        "warning": report.warning or "",
        **_notes(report.notes),
    }
    _finish(report, "model trained", rows, as_json, quiet)


@recipe_app.command(epilog="Example: synthforge recipe check recipes/digits.yaml")
def check(recipe: RecipeFile, sets: Sets = None, as_json: Json = False, quiet: Quiet = False) -> None:
    """Find all mistakes in a recipe at once, without loading a model."""
    loaded = _load(recipe, sets)
    from synthforge.generation.prompts import negative_prompts

    found = negative_prompts(loaded)
    found.refuse()
    rows = {"images": f"{loaded.num_samples:,}", "classes": f"{len(loaded.classes):,}"} | _notes(found.notes)
    _finish({"ok": True, "recipe": loaded.model_dump(mode="json"), "notes": found.notes}, f"{recipe}: no mistakes", rows, as_json, quiet)


@recipe_app.command(epilog="Example: synthforge recipe schema > s.json; a recipe's first line: # yaml-language-server: $schema=s.json")
def schema(
    of: Annotated[str, _argument("[FILE]", "A result file: evaluation, diagnosis, gap, run or complete.")] = "recipe",
    _as_json: Annotated[bool, typer.Option("--json", help="Has no effect: the output is always JSON.")] = True,
) -> None:
    """Print the JSON Schema of recipes, for completion and checks in editors, or the schema of a result file."""
    from synthforge.cli.schemas import schema_of

    console.print_json(schema_of(of))


@recipe_app.command(epilog="Example: synthforge recipe new --builtin digits; or: synthforge recipe new photos/ --builtin stable-diffusion")
def new(
    folder: Annotated[str | None, _argument("[FOLDER]", "Real images to write the recipe for, a folder per class.")] = None,
    builtin: Annotated[str | None, typer.Option(metavar="NAME", help="A built-in recipe, such as digits, for FOLDER if given.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="File of the recipe. Default: NAME.yaml here.")] = None,
    sets: Annotated[list[str] | None, _set_option("How FOLDER is read, such as --set columns.image=jpg.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write a recipe to start from: a built-in one, or one for a folder of real images."""
    from synthforge.errors import RequestError
    from synthforge.recipe import new

    if folder is None and builtin is None:
        raise RequestError(
            "recipe new: name a folder of real images, or --builtin NAME, or both (there is: " + ", ".join(new.builtin_names()) + ")"
        )
    path = out or Path(f"{builtin if folder is None else new.run_name(folder)}.yaml")
    if folder is None:
        if sets:
            raise RequestError("recipe new: --set says how a folder is read; name the folder, or change the recipe itself")
        made = new.NewRecipe(new.builtin(str(builtin)), None, [])
    else:
        how = sets or ()
        made = new.builtin_for_folder(builtin, folder, path, how) if builtin is not None else new.for_folder(folder, path, how)
    new.write_new(made.text, path)
    rows = {
        "recipe": str(path),
        "read": str(made.found or ""),
        **_notes(made.notes),
        "next": f"synthforge recipe check {shlex.quote(str(path))}",
    }
    result = {"recipe": str(path), "inputs": [made.found.model_dump(mode="json")] if made.found is not None else [], "notes": made.notes}
    _finish(result, "recipe written", rows, as_json, quiet)


def main() -> None:
    """Entry point of the `synthforge` command."""
    warnings.filterwarnings("ignore")  # deprecation warnings of libraries are not for users
    gc.set_threshold(10_000, 20, 50)  # the usual ones cost a second while torch and diffusers are imported
    atexit.register(gc.freeze)  # else the collector searches all that torch imported, for seconds
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 - both may be closed when a script starts us
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    as_json = "--json" in sys.argv[1:]
    try:
        try:
            app()
        finally:
            sys.stdout.flush()
    except SynthforgeError as error:
        _fail([*error.problems] if isinstance(error, RecipeError) else [str(error)], error.exit_status, as_json)
    except SystemExit as leaving:
        if leaving.code == _INTERRUPTED:
            _fail(["stopped; finished work is kept, and the same command continues from there"], 1, as_json)
        if leaving.code == 2 and as_json:
            console.print_json({"error": "the command line is wrong; see --help", "exit_status": 2})
        raise
    except BrokenPipeError:
        _discard_output()
        sys.exit(1)
    except OSError as error:
        if error.filename is None:  # standard output itself cannot be written
            _discard_output()
        _fail([f"{error.filename or 'output'}: {error.strerror or error}"], 1, as_json and error.filename is not None)


def _discard_output() -> None:
    """Standard output is closed or cannot be written: write nothing more to it, not even at exit."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(problems: list[str], exit_status: int, as_json: bool) -> NoReturn:
    lines = [" ".join(problem.split()) for problem in problems]  # one line each, also for multi-line messages of libraries
    for line in lines:
        console.say(f"error: {line}")
    if as_json:
        console.print_json({"error": lines if len(lines) > 1 else lines[0], "exit_status": exit_status})
    sys.exit(exit_status)


def _numbered(name: str, texts: list[str]) -> dict[str, str]:
    return {f"{name} {number}": text for number, text in enumerate(texts, 1)}


def _notes(notes: list[str], most: int = 12) -> dict[str, str]:
    return _numbered("note", notes[:most]) | ({"more notes": f"{len(notes) - most:,}, in the result file"} if len(notes) > most else {})


def _finish(result: Any, title: str, rows: dict[str, str], as_json: bool, quiet: bool, *, failed: bool = False) -> None:
    """Print the summary or one JSON object. Exit with status 1 if the work failed."""
    if as_json:
        from pydantic import BaseModel

        if isinstance(result, BaseModel):
            result = result.model_dump(mode="json")
        console.print_json(asdict(result) if is_dataclass(result) and not isinstance(result, type) else result)
    elif not quiet:
        console.print_rows(console.stdout(), title, rows)
    if failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
