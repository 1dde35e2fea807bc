"""Text-to-image recipes from the command line to shards: levels, rejects, real guidance, provenance, and mistakes in
one line each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode
from synthforge.errors import RequestError
from synthforge.generation.inspect import remake, show, verify
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests import tiny_models
from tests.conftest import ROOT, Ran
from tests.generators.pipelines.made import photo

Cli = Callable[..., Ran]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of real photographs of two classes."""
    for number in range(12):
        for name in ("cat", "dog"):
            place = tmp_path / "photos" / name
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number:02d}.png").write_bytes(photo(number + 100 * (name == "dog"), (40, 32)))
    return tmp_path / "photos"


def tiny(models: Path, out: Path, name: str = "sd", **changes: Any) -> list[str]:
    """Overrides that put a tiny model into any text-to-image recipe; keyword names use `__` for the dot."""
    chosen: dict[str, Any] = {
        "output.path": out,
        "output.samples_per_shard": 10,
        "generator.model": tiny_models.save(name, models),
        "generator.variant": "null",
        "generator.dtype": "float32",
        "sampling.resolution": 16,
        "sampling.steps": 4,
        "count": "{total: 20}",
        "execution.threads": 1,
        "execution.batch": 4,
    }
    chosen |= {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{key}={value}" for key, value in chosen.items()]


def options(sets: list[str]) -> list[str]:
    return [part for text in sets for part in ("--set", text)]


def rows_of(dataset: DatasetFolder) -> list[dict[str, Any]]:
    return [row for shard in dataset.state().sealed for row in dataset.table(shard).to_pylist()]


SD = ROOT / "recipes" / "stable-diffusion.yaml"


# --- shipped recipes ---


@pytest.mark.parametrize(
    ("recipe", "model"), [("stable-diffusion", "sd-checked"), ("sdxl-turbo", "sdxl"), ("dit-imagenet", "dit"), ("real-guidance", "sd")]
)
def test_shipped_recipes_run_with_a_tiny_model(recipe: str, model: str, models: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    out = tmp_path / "run"
    changes: dict[str, Any] = {"sampling__real_guidance__reference": photos} if recipe == "real-guidance" else {}
    sets = tiny(models, out, model, **changes)
    if recipe == "sdxl-turbo":
        sets = [text for text in sets if not text.startswith("sampling.steps")]  # its own two
    if recipe == "dit-imagenet":
        sets = [text for text in sets if not text.startswith("generator.variant")]
    ran = cli("generate", ROOT / "recipes" / f"{recipe}.yaml", *options(sets), "--json")
    assert ran.status == 0, ran.err
    assert (ran.json["is_complete"], ran.json["samples"]) == (True, 20)
    audit, again = verify(str(out / "pool"), regenerate=6, seed=1)
    assert audit.problems == []
    assert again is not None
    assert again.is_reproduced


def test_the_pixel_recipe_runs(tmp_path: Path, cli: Cli) -> None:
    sets = ["generator.model=builtin:digits/generator", "classes=['1', '2']", "count.per_class=10", f"output.path={tmp_path}"]
    assert cli("generate", ROOT / "recipes" / "pixels.yaml", *options(sets)).status == 0


@pytest.mark.parametrize("name", ["stable-diffusion", "real-guidance", "sdxl-turbo", "pixels"])
def test_a_shipped_recipe_for_a_folders_classes(name: str, photos: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("recipe", "new", "photos", "--builtin", name).status == 0
    assert cli("recipe", "check", "photos.yaml").status == 0
    recipe = load_recipe("photos.yaml")
    assert list(recipe.classes) == ["cat", "dog"]
    assert recipe.name == "photos"
    if name == "real-guidance":
        assert recipe.sampling.real_guidance is not None
        assert recipe.sampling.real_guidance.reference == str(photos)
    assert "#" in Path("photos.yaml").read_text()  # comments stay


# --- what is made ---


def test_levels_prompts_and_provenance(models: Path, tmp_path: Path) -> None:
    generate(load_recipe(SD, tiny(models, tmp_path, count="{total: 60}", output__format="png")))
    dataset = DatasetFolder.open(str(tmp_path / "pool"))
    rows = rows_of(dataset)
    assert {row["guidance"] for row in rows} == {2.0, 4.0, 7.5}
    assert len({row["prompt"] for row in rows}) > 6
    record = json.loads(dataset.sample("7")[1]["json"])
    made_by = record["generator"]
    assert made_by["class"] == "StableDiffusionPipeline"
    assert made_by["scheduler"] == "DPMSolverMultistepScheduler"
    assert made_by["scheduler_config"]["solver_order"] == 2
    assert (made_by["steps"], made_by["dtype"], made_by["loras"], made_by["vae"]) == (4, "float32", [], None)
    assert made_by["sha256"] == dataset.manifest.recipe["generator"]["model"]
    assert (record["negative"], record["attempt"], record["source"]) == ("drawing, painting, text, watermark", 0, None)
    log = json.loads(next((tmp_path / "pool" / "_log").glob("run-*.json")).read_text())
    assert {"torch", "diffusers", "transformers", "peft", "synthforge"} <= set(log["versions"])
    assert log["acceleration"]["attention"] == "sdpa"
    assert log["acceleration"]["text_encoders"] == "unloaded"


@pytest.mark.parametrize(
    ("model", "recipe", "changes"),
    [
        ("sd", "stable-diffusion", {}),
        ("sd", "real-guidance", {}),
        (
            "flux",
            "real-guidance",
            {"generator__arguments": "{max_sequence_length: 32}", "sampling__scheduler": "null", "prompts__negative": "null"},
        ),
        ("dit", "dit-imagenet", {"generator__variant": None}),
        ("unconditional", "unconditional", {}),
    ],
)
def test_any_image_is_remade_from_its_record_and_by_the_code_that_is_printed(
    model: str, recipe: str, changes: dict[str, Any], models: Path, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    path = ROOT / "recipes" / f"{recipe}.yaml"
    if recipe == "real-guidance":
        changes = changes | {"sampling__real_guidance__reference": photos}
    if recipe == "unconditional":
        path = tmp_path / "u.yaml"
        path.write_text(
            f"name: u\ngenerator: {{kind: unconditional, model: {tiny_models.save(model, models)}}}\n"
            "classes: [thing]\ncount: {total: 5}\n"
        )
        changes = {"generator__variant": None, "count": "{total: 5}"}
    sets = [text for text in tiny(models, out, model, output__format="png", **changes) if not text.endswith("=None")]
    generate(load_recipe(path, sets))
    pool = str(out / "pool")
    again = remake(pool, "4")
    assert (again.largest_difference <= 2, again.changes) == (True, [])
    shown = show(pool, "4")
    names: dict[str, Any] = {}
    exec(shown.remake, names)
    stored = decode(shown.image)
    remade = np.asarray(names["image"]).reshape(stored.shape)
    assert np.abs(stored.astype(int) - remade.astype(int)).max() <= 2
    assert stored.std() > 5


def test_loras_are_in_record_and_remake(models: Path, tmp_path: Path, cli: Cli) -> None:
    from tests.generators.pipelines.made import save_lora

    lora = save_lora(tmp_path / "lora", models)
    sets = tiny(models, tmp_path / "run", output__format="png", generator__loras=f"[{{model: {lora}, scale: 0.5}}]")
    generate(load_recipe(SD, sets))
    shown = show(str(tmp_path / "run" / "pool"), "3")
    (found,) = shown.record["generator"]["loras"]
    assert (found["model"], found["scale"], len(found["sha256"])) == ("pytorch_lora_weights.safetensors", 0.5, 64)
    names: dict[str, Any] = {}
    exec(shown.remake, names)
    assert np.abs(decode(shown.image).astype(int) - np.asarray(names["image"]).astype(int)).max() <= 2
    ran = cli("show", "3", tmp_path / "run" / "pool", "--remake", "--json", "--save", tmp_path / "again.png")
    assert ran.json["remade"]["largest_difference"] <= 2
    assert np.abs(decode((tmp_path / "again.png").read_bytes()).astype(int) - decode(shown.image).astype(int)).max() <= 2


def test_real_guidance_records_its_sources_and_keeps_to_the_fit_part(models: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    sets = tiny(models, out, sampling__real_guidance__reference=photos, count="{total: 80}", output__format="png")
    recipe = ROOT / "recipes" / "real-guidance.yaml"
    generate(load_recipe(recipe, sets))
    dataset = DatasetFolder.open(str(out / "pool"))
    rows = rows_of(dataset)
    assert {row["strength"] for row in rows} == {0.4, 0.6, 0.8}
    assert all(row["source"].startswith(f"{row['class']}/") for row in rows)
    sources = Counter(row["source"] for row in rows)
    assert len(sources) > 12
    held_out = {f"{name}/{number:02d}.png" for name in ("cat", "dog") for number in (10, 11)}  # the last fifth of each class
    assert not held_out & set(sources)
    record = json.loads(dataset.sample("0")[1]["json"])
    import hashlib

    assert record["source_sha256"] == hashlib.sha256((photos / record["source"]).read_bytes()).hexdigest()
    # The reference is part of the plan: another photograph is another plan.
    (photos / "cat" / "03.png").write_bytes(photo(999, (40, 32)))
    with pytest.raises(Exception, match=r"changed since: sampling.real_guidance.reference"):
        generate(load_recipe(recipe, sets))


def test_the_pixel_pipeline_starts_from_real_images_too(tmp_path: Path) -> None:
    sets = [
        f"output.path={tmp_path}",
        "count={total: 40}",
        "sampling.real_guidance={reference: 'builtin:digits/reference', strength: [0.3, 0.7]}",
        "execution.threads=1",
        "execution.batch=8",
    ]
    generate(load_recipe(ROOT / "recipes" / "digits.yaml", sets))
    dataset = DatasetFolder.open(str(tmp_path / "pool"))
    assert {row["strength"] for row in rows_of(dataset)} == {0.3, 0.7}
    assert remake(str(tmp_path / "pool"), "5").largest_difference <= 2
    names: dict[str, Any] = {}
    shown = show(str(tmp_path / "pool"), "5")
    exec(shown.remake, names)
    assert np.abs(decode(shown.image).astype(int)[..., 0] - np.asarray(names["image"]).astype(int)).max() <= 2


# --- prompts ---

LONG = "a photo of a {class} " + "and another thing " * 10


def test_prompts_that_are_cut_are_named_before_and_recorded(models: Path, tmp_path: Path, cli: Cli) -> None:
    """Two prompts that differ only behind what the encoder takes give equal images, and each record says so."""
    prompts = {"prompts__templates": f"['a {{class}}', '{LONG}one', '{LONG}two']", "prompts__values": "{}"}
    sets = tiny(models, tmp_path / "run", **prompts, output__format="png")
    planned = cli("plan", SD, *options(sets), "--json")
    assert planned.status == 0
    found = planned.json["prompts"]
    assert (found["max_tokens"], found["overlong"], found["first"]) == (77, 4, LONG.replace("{class}", "cat") + "one")
    assert found["first_tokens"] > 77
    assert "4 of 7 are longer than the text encoder takes" in cli("plan", SD, *options(sets)).out
    made = cli("generate", SD, *options(sets), "--json")
    assert (made.status, made.json["prompts"]) == (0, found)
    assert "4 of 7 are longer than the text encoder takes, which is 77 tokens; the first has" in made.err
    dataset = DatasetFolder.open(str(tmp_path / "run" / "pool"))
    used = set()
    for row in rows_of(dataset):
        record = json.loads(dataset.sample(row["key"])[1]["json"])
        assert ("prompt_used" in record) == (len(row["prompt"]) > 20)
        used.add(record.get("prompt_used"))
    assert len(used) == 3  # none, and one of each class
    audit, again = verify(str(tmp_path / "run" / "pool"), regenerate=20, seed=1)
    assert audit.problems == []
    assert again is not None
    assert again.is_reproduced
    refused = cli("generate", SD, *options(tiny(models, tmp_path / "other", **prompts, prompts__overlong="error")))
    mistake(refused, "prompts.overlong: 4 of 7 are longer", "shorten them, or set prompts.overlong=cut")
    assert not (tmp_path / "other" / "pool" / "dataset.json").exists()
    mistake(cli("generate", SD, "--set", "prompts.overlong=eror"), "prompts.overlong: is 'eror'", "did you mean 'error'?")


def test_a_longer_sequence_is_in_the_record_of_what_needs_it(models: Path, tmp_path: Path) -> None:
    for name, template in (("short", "a {class}"), ("long", LONG * 3)):
        prompts = {"prompts__templates": f"['{template}']", "prompts__values": "{}"}
        sets = tiny(models, tmp_path / name, "sd3", **prompts, count="{total: 2}", sampling__scheduler="null")
        generate(load_recipe(SD, sets))
        made_by = json.loads(DatasetFolder.open(str(tmp_path / name / "pool")).sample("0")[1]["json"])["generator"]
        assert made_by["arguments"].get("max_sequence_length") == (512 if name == "long" else None)
        again = remake(str(tmp_path / name / "pool"), "1")
        assert (again.largest_difference <= 2, again.changes) == (True, [])


def test_a_negative_prompt_without_effect_is_refused_or_named(models: Path, tmp_path: Path, cli: Cli) -> None:
    never = options(tiny(models, tmp_path / "run", sampling__guidance="[1.0]"))
    for verb in (["generate"], ["plan"], ["recipe", "check"]):
        mistake(cli(*verb, SD, *never), "prompts.negative: has no effect: StableDiffusionPipeline uses it only at guidance above 1")
    assert not (tmp_path / "run" / "pool" / "dataset.json").exists()
    sometimes = options(tiny(models, tmp_path / "run", sampling__guidance="[0.5, 1.0, 3.0]"))
    for verb in (["recipe", "check"], ["plan"], ["generate"]):
        ran = cli(*verb, SD, *sometimes)
        assert ran.status == 0
        assert "prompts.negative: has no effect at guidance 0.5, 1" in ran.out
    assert "prompts.negative: has no effect at guidance 0.5, 1" in ran.err
    flux = options(tiny(models, tmp_path / "flux", "flux", generator__arguments="{max_sequence_length: 32}", sampling__scheduler="null"))
    mistake(
        cli("generate", SD, *flux), "FluxPipeline uses it only if true_cfg_scale is above 1", "generator.arguments={true_cfg_scale: 4.0}"
    )


# --- rejects ---


def flag(monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Let the safety checker flag every so-manieth image; 1 flags all."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker

    seen = [0]

    def forward(self: Any, clip_input: Any, images: Any) -> Any:
        verdicts = []
        for _ in range(len(images)):
            seen[0] += 1
            verdicts.append(seen[0] % every == 0)
        return images, verdicts

    monkeypatch.setattr(StableDiffusionSafetyChecker, "forward", forward)


def test_flagged_images_are_made_again_and_counted(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    flag(monkeypatch, 5)
    ran = cli("generate", SD, *options(tiny(models, tmp_path, "sd-checked", count="{total: 40}")), "--json")
    assert ran.status == 0
    assert ran.json["rejected"]["flagged by the safety checker"] >= 8
    assert (ran.json["samples"], ran.json["left_out"]) == (40, 0)
    rows = rows_of(DatasetFolder.open(str(tmp_path / "pool")))
    again = [row for row in rows if row["attempts"] > 1]
    assert again
    assert {reason for row in again for reason in row["reasons"]} == {"flagged by the safety checker"}


def test_what_fails_every_attempt_is_left_out_with_its_row_and_the_count_of_its_class(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    flag(monkeypatch, 5)
    ran = cli("generate", SD, *options(tiny(models, tmp_path, "sd-checked", count="{total: 40}", sampling__attempts=1)), "--json")
    assert ran.status == 0
    gone = ran.json["left_out"]
    assert gone >= 6
    dataset = DatasetFolder.open(str(tmp_path / "pool"))
    failures = [row for shard in dataset.state().sealed for row in dataset.failures(shard).to_pylist()]
    assert len(failures) == gone
    assert all(row["reasons"] == ["flagged by the safety checker"] for row in failures)
    left_out = Counter(row["class"] for row in failures)
    assert ran.json["per_class"] == {name: 20 - left_out[name] for name in ("cat", "dog")}
    completion = json.loads((tmp_path / "pool" / "complete.json").read_text())
    assert completion["class_samples"] == ran.json["per_class"]
    shown = cli("show", failures[0]["key"], tmp_path / "pool")
    assert shown.status == 2
    assert "rejected in every attempt (flagged by the safety checker) and left out" in shown.err


def test_a_checker_that_flags_everything_ends_with_clear_words(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    from synthforge.generators.pipelines.generator import PipelineGenerator

    flag(monkeypatch, 1)
    calls = [0]
    original = PipelineGenerator.sample

    def counted(self: Any, batch: Any) -> Any:
        calls[0] += batch.num_images
        return original(self, batch)

    monkeypatch.setattr(PipelineGenerator, "sample", counted)
    sets = tiny(models, tmp_path, "sd-checked", count="{total: 400}", output__samples_per_shard=40)
    ran = cli("generate", SD, *options(sets))
    assert ran.status == 1
    (line,) = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert "every one of 40 images came out flagged by the safety checker" in line
    assert "synthforge preview" in line
    assert calls[0] <= 150  # three shards, one attempt each; not 400 x 3 x 3
    assert not list((tmp_path / "pool").glob("*.quarantined.json"))


# --- mistakes ---


def mistake(ran: Ran, *words: str) -> None:
    assert ran.status == 2, ran
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, ran.err
    assert "Traceback" not in ran.err
    for word in words:
        assert word in lines[0], (word, lines[0])


def test_mistakes_are_one_line_each_and_start_nothing(models: Path, photos: Path, tmp_path: Path, cli: Cli) -> None:
    guided = ROOT / "recipes" / "real-guidance.yaml"

    def run(recipe: Path, name: str, **changes: Any) -> Ran:
        return cli("generate", recipe, *options(tiny(models, tmp_path / "run", name, **changes)))

    mistake(run(SD, "dit"), "is a DiTPipeline, which is what `kind: dit` takes")
    mistake(run(guided, "sd", sampling__real_guidance__reference=tmp_path / "nowhere"), "nowhere", "check the path")
    mistake(run(guided, "sd", sampling__real_guidance="{strength: [0.5]}"), "sampling.real_guidance.reference: is missing")
    mistake(
        run(guided, "sd", sampling__real_guidance__reference=photos, classes="[cat, cow]"), "no images of class 'cow'", "it has cat, dog"
    )
    mistake(run(guided, "sd", sampling__real_guidance__reference=photos, sampling__steps=2), "0.4 times 2 steps is less than one step")
    mistake(run(guided, "sd", sampling__real_guidance__reference=photos, sampling__real_guidance__strength="[1.5]"), "strength")
    (photos / "dog" / "01.png").write_bytes(b"corrupt")
    mistake(run(guided, "sd", sampling__real_guidance__reference=photos), "dog/01.png: not a readable image", "remove or replace it")
    mistake(run(SD, "sd", generator__loras="[{model: nowhere}]"), "generator.loras.0.model: no weights at", "nowhere")
    mistake(run(SD, "sd", generator__vae="nowhere"), "generator.vae: no model at", "nowhere")
    mistake(run(SD, "sd", generator__kind="text2image"), "generator.kind: unknown kind 'text2image'", "did you mean 'text-to-image'?")
    mistake(run(SD, "sd", generator__lora="[]"), "generator.lora: unknown field", "did you mean 'loras'?")
    mistake(run(SD, "sd", sampling__resolution=17), "17 is no multiple of 2")
    dit = ROOT / "recipes" / "dit-imagenet.yaml"
    no_size = [text for text in tiny(models, tmp_path / "run", "dit") if not text.startswith("sampling.resolution")]
    mistake(cli("generate", dit, *options([*no_size, "classes={x: {label: 1000}}"])), "knows no class '1000'", "from 0 to 999")
    mistake(cli("generate", dit, *options([*no_size, "prompts.negative=ugly"])), "takes a class label, not text")
    mistake(
        cli("generate", dit, *options([*no_size, f"sampling.real_guidance={{reference: {photos}}}"])),
        "generator 'dit' can't start from an image",
        "'pixel' or 'text-to-image'",
    )
    assert not (tmp_path / "run" / "pool" / "dataset.json").exists()


def test_an_unconditional_model_guides_nothing_and_knows_no_classes(models: Path, tmp_path: Path, cli: Cli) -> None:
    recipe = tmp_path / "u.yaml"
    recipe.write_text(
        f"name: u\ngenerator: {{kind: unconditional, model: {tiny_models.save('unconditional', models)}}}\n"
        "classes: [thing]\nsampling: {steps: 2}\ncount: {total: 5}\n"
    )
    mistake(cli("generate", recipe, "--set", "sampling.guidance=[3.0]"), "guidance has no effect")
    mistake(cli("generate", recipe, "--set", "classes=[a, b]"), "can't tell classes apart", "'pixel' or 'text-to-image' or 'dit'")
    assert cli("generate", recipe, "--set", f"output.path={tmp_path / 'run'}").status == 0


def test_a_hub_id_without_network(tmp_path: Path) -> None:
    """The real command, with the hub at an address where nothing listens."""
    command = [str(Path(sys.executable).with_name("synthforge")), "generate", str(SD), "--set", f"output.path={tmp_path / 'run'}"]
    for environment in (
        {"HF_HUB_OFFLINE": "1"},
        {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"},
    ):
        environment = os.environ | environment | {"HF_HOME": str(tmp_path)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "stable-diffusion-v1-5/stable-diffusion-v1-5 is neither a folder here nor in the hub's cache" in line
        assert "Retrying" not in done.stderr
        command[1] = "plan"  # says all that does not need the model
        done = subprocess.run([*command, "--json"], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        planned = json.loads(done.stdout)
        assert (planned["samples"], planned["resolution"], planned["plan_digest"]) == (1000, 512, None)
        assert planned["prompts"]["max_tokens"] is None
        assert "are not checked" in planned["prompts"]["notes"][0]
        done = subprocess.run([*command, "--set", "sampling.resolution=null"], capture_output=True, text=True, env=environment, check=False)
        assert (done.returncode, "not known" in done.stdout) == (0, True)
        done = subprocess.run([*command, "--measure"], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2
        command[1] = "generate"


def test_a_lora_of_another_model_is_one_line(models: Path, tmp_path: Path, cli: Cli) -> None:
    from tests.generators.pipelines.made import save_lora

    lora = save_lora(tmp_path / "lora", models, "flux")
    ran = cli("generate", SD, *options(tiny(models, tmp_path / "run", generator__loras=f"[{{model: {lora}}}]")))
    mistake(ran, "generator.loras.0.model", "does not fit this model")
    assert not (tmp_path / "run" / "pool" / "dataset.json").exists()


def test_noise_that_no_seed_decides_stops_the_run(models: Path, tmp_path: Path) -> None:
    scheduler = "{name: FlowMatchEulerDiscreteScheduler, arguments: {stochastic_sampling: true}}"
    sets = tiny(models, tmp_path, "sd3", sampling__scheduler=scheduler, generator__arguments="{max_sequence_length: 32}")
    with pytest.raises(RequestError, match=r"draws noise that no seed decides"):
        generate(load_recipe(SD, sets))
    assert not (tmp_path / "pool" / "dataset.json").exists()


@pytest.mark.parametrize(
    "scheduler",
    ["{name: FlowMatchEulerDiscreteScheduler}", "{name: EDMEulerScheduler}", "{name: DDIMScheduler, arguments: {beta_schedule: x}}"],
)
def test_a_scheduler_that_does_not_fit_the_pipeline_starts_nothing(scheduler: str, models: Path, tmp_path: Path, cli: Cli) -> None:
    mistake(cli("generate", SD, *options(tiny(models, tmp_path, sampling__scheduler=scheduler))), "Scheduler")
    assert not (tmp_path / "pool" / "dataset.json").exists()


def test_a_dataset_keeps_the_precision_that_it_was_begun_in(models: Path, tmp_path: Path) -> None:
    sets = tiny(models, tmp_path, generator__dtype="auto")
    generate(load_recipe(SD, sets))
    manifest = tmp_path / "pool" / "dataset.json"
    manifest.write_text(manifest.read_text().replace('"dtype": "float32"', '"dtype": "bfloat16"'))
    for name in ("train-000001.tar", "train-000001.json", "train-000001.parquet", "complete.json"):
        (tmp_path / "pool" / name).unlink()
    generate(load_recipe(SD, sets))
    record = json.loads(DatasetFolder.open(str(tmp_path / "pool")).sample("15")[1]["json"])
    assert record["generator"]["dtype"] == "bfloat16"


def test_a_cache_of_the_hub_serves_without_network(models: Path, tmp_path: Path) -> None:
    """Laid out as the hub's own client does, with files that are not loaded beside those that are; the commit becomes
    the revision."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_models.save("sd", models), repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    (repo / "snapshots" / commit / "whole-model.safetensors").write_bytes(b"not looked at")
    sets = tiny(models, tmp_path / "run", generator__model="someone/tiny")
    command = [str(Path(sys.executable).with_name("synthforge")), "generate", str(SD), *options(sets), "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}, check=False
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(DatasetFolder.open(str(tmp_path / "run" / "pool")).sample("0")[1]["json"])
    assert (record["generator"]["model"], record["generator"]["revision"]) == ("someone/tiny", commit)


@pytest.mark.slow
def test_a_model_is_fetched_from_a_hub_and_only_what_is_loaded(models: Path, tmp_path: Path) -> None:
    """The hub's own client against a server that speaks its protocol: variants and whole checkpoints beside the model
    stay there."""
    from tests.generators.pipelines.made import save_lora
    from tests.hub_server import COMMIT, HubServer

    repo = tmp_path / "served" / "someone" / "tiny"
    shutil.copytree(tiny_models.save("sd", models), repo)
    (repo / "whole-model.safetensors").write_bytes(b"gigabytes")
    (repo / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"another variant")
    (repo / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle beside safetensors")
    save_lora(tmp_path / "served" / "someone" / "lora", models)
    pickled = tmp_path / "served" / "someone" / "pickled"
    shutil.copytree(repo, pickled)
    for path in (pickled / "unet").glob("*.safetensors"):
        path.unlink()
    command = [str(Path(sys.executable).with_name("synthforge")), "generate", str(SD)]
    with HubServer(tmp_path / "served") as hub:
        environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home")}
        environment |= {"HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        sets = tiny(models, tmp_path / "run", generator__model="someone/tiny", generator__loras="[{model: someone/lora, scale: 0.5}]")
        done = subprocess.run([*command, *options(sets), "--json"], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        digest = json.loads(done.stdout)["digest"]
        record = json.loads(DatasetFolder.open(str(tmp_path / "run" / "pool")).sample("0")[1]["json"])
        assert (record["generator"]["model"], record["generator"]["revision"]) == ("someone/tiny", COMMIT)
        assert record["generator"]["loras"][0]["model"] == "someone/lora"
        assert {"model_index.json", "unet/diffusion_pytorch_model.safetensors", "pytorch_lora_weights.safetensors"} <= set(hub.downloaded)
        assert not [name for name in hub.downloaded if "fp16" in name or "whole" in name or name.endswith(".bin")]
        hub.downloaded.clear()
        sets = tiny(models, tmp_path / "other", generator__model="someone/pickled")
        done = subprocess.run([*command, *options(sets)], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2
        assert "someone/pickled keeps unet as a pickle (diffusion_pytorch_model.bin)" in done.stderr
        assert hub.downloaded == ["model_index.json"]
        sets = tiny(models, tmp_path / "other", generator__model="someone/nothing")
        done = subprocess.run([*command, *options(sets)], capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 2
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert "someone/nothing is no folder here, and the hub does not give it" in line
    # The hub is gone; what was fetched is enough, although only a part of each repository was.
    sets = tiny(models, tmp_path / "again", generator__model="someone/tiny", generator__loras="[{model: someone/lora, scale: 0.5}]")
    done = subprocess.run([*command, *options(sets), "--json"], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == digest
    assert "Retrying" not in done.stderr


def test_classes_with_and_without_negative_prompts_do_not_mix(models: Path, tmp_path: Path) -> None:
    """No negative prompt is not an empty one: SDXL makes other images of the two."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "name: r\ngenerator: {kind: text-to-image, model: x}\nclasses: {cat: {negative: blurry}, dog: {}}\n"
        "prompts: {templates: ['a {class}']}\nsampling: {guidance: [4.0]}\ncount: {total: 8}\n"
    )
    for batch in (1, 4):
        out = tmp_path / str(batch)
        generate(load_recipe(recipe, tiny(models, out, "sdxl", count="{total: 8}", execution__batch=batch)))
        for key in ("0", "1", "2", "3"):
            assert remake(str(out / "pool"), key).largest_difference <= 2, (batch, key)


def test_an_edited_card_stays(models: Path, tmp_path: Path) -> None:
    generate(load_recipe(SD, tiny(models, tmp_path)))
    card = tmp_path / "pool" / "README.md"
    ours = card.read_text()
    card.write_text(ours + "my words\n")
    generate(load_recipe(SD, tiny(models, tmp_path)))
    assert card.read_text().endswith("my words\n")  # nothing was made, so nothing is written
    generate(load_recipe(SD, tiny(models, tmp_path)), extend=5)
    assert "25 samples" in card.read_text()
    card.write_text("# all mine\n")
    generate(load_recipe(SD, tiny(models, tmp_path)), extend=5)
    assert card.read_text() == "# all mine\n"
    card.unlink()
    generate(load_recipe(SD, tiny(models, tmp_path)))
    assert "30 samples" in card.read_text()
