"""The command line as a person meets it: help, results, JSON, and one line with the right exit status for every
mistake."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from synthforge.data.folder import DatasetFolder
from synthforge.data.images import decode
from synthforge.data.layout import SCHEMA, Seal
from tests.conftest import DIGITS, ROOT, Ran, files_of, small

Cli = Callable[..., Ran]


def options(out: Path, **changes: object) -> list[str]:
    return [part for text in small(out, **changes) for part in ("--set", text)]


def test_help_of_every_command_has_an_example(cli: Cli) -> None:
    commands = re.findall(r"^│ (\w+) ", cli("--help").out, re.MULTILINE)
    verbs = "generate curate evaluate diagnose run report compare plan preview verify show status fit recipe"
    assert commands == verbs.split()
    for command in [
        "generate",
        "curate",
        "evaluate",
        "diagnose",
        "run",
        "report",
        "compare",
        "plan",
        "preview",
        "verify",
        "show",
        "status",
        "fit",
        "recipe check",
        "recipe schema",
        "recipe new",
    ]:
        help_text = cli(*command.split(), "--help")
        assert help_text.status == 0
        assert "Example" in help_text.out, command


def test_a_run_from_plan_to_show(cli: Cli, tmp_path: Path) -> None:
    chosen = options(tmp_path / "run")
    assert cli("recipe", "check", DIGITS).status == 0
    planned = cli("plan", DIGITS, *chosen)
    assert "40 of 8 px" in planned.out
    made = cli("generate", DIGITS, *chosen)
    assert made.status == 0
    assert "pool complete" in made.out
    assert decode((tmp_path / "run" / "contact-sheet.png").read_bytes()).shape[2] == 3
    pool = tmp_path / "run" / "pool"
    verified = cli("verify", pool, "--regenerate", 5)
    assert verified.status == 0
    assert "4 sealed, 40 images" in verified.out
    assert "reproduced" in verified.out
    shown = cli("show", 12, pool, "--save", tmp_path / "12.png")
    assert shown.status == 0
    assert "a handwritten digit 2" in shown.out
    assert decode((tmp_path / "12.png").read_bytes()).shape == (8, 8, 1)
    assert "40 of 40" in cli("status", pool).out
    previewed = cli("preview", DIGITS, *chosen, "--out", tmp_path / "preview.png", "--per-class", 2)
    assert previewed.status == 0
    assert (tmp_path / "preview.png").exists()
    extended = cli("generate", DIGITS, *chosen, "--extend", 5)
    assert extended.status == 0
    assert "45 in 5 shards" in extended.out


def test_json_is_one_object_on_standard_output(cli: Cli, tmp_path: Path) -> None:
    chosen = options(tmp_path / "run")
    pool = tmp_path / "run" / "pool"
    assert cli("plan", DIGITS, *chosen, "--json").json["samples"] == 40
    made = cli("generate", DIGITS, *chosen, "--json").json
    assert (made["made"], made["is_complete"], made["per_class"]["3"]) == (40, True, 4)
    assert cli("status", pool, "--json").json["samples_done"] == 40
    assert cli("verify", pool, "--json", "--regenerate", 2).json["ok"] is True
    assert cli("show", 3, pool, "--json").json["record"]["class"] == "3"
    assert cli("recipe", "check", DIGITS, "--json").json["ok"] is True
    assert cli("recipe", "new", "--builtin", "digits", "--out", tmp_path / "d.yaml", "--json").json["recipe"]
    assert cli("preview", DIGITS, *chosen, "--json", "--out", tmp_path / "p.png", "--per-class", 1).json["contact_sheet"]
    assert cli("recipe", "schema").json["type"] == "object"
    for wrong in (["generate", "none.yaml"], ["status", tmp_path / "none"], ["show", "x", pool]):
        failed = cli(*wrong, "--json")
        assert failed.status == 2
        assert failed.json["exit_status"] == 2


def test_quiet_prints_nothing(cli: Cli, tmp_path: Path) -> None:
    made = cli("generate", DIGITS, *options(tmp_path), "--quiet")
    assert (made.status, made.out, made.err) == (0, "", "")


def mistake(ran: Ran, *words: str, status: int = 2) -> None:
    assert ran.status == status, ran
    assert "Traceback" not in ran.err + ran.out
    lines = [line for line in ran.err.splitlines() if line.startswith("error: ")]
    assert lines, ran.err
    for word in words:
        assert any(word in line for line in lines), (word, lines)


def test_mistakes_end_with_one_line_and_status_2(cli: Cli, tmp_path: Path) -> None:
    chosen = options(tmp_path / "run")
    cli("generate", DIGITS, *chosen, "-q")
    pool = tmp_path / "run" / "pool"
    (tmp_path / "file").write_text("")
    pickled = Path(shutil.copytree(ROOT / "synthforge/assets/digits/generator", tmp_path / "pickled"))
    (pickled / "denoiser" / "diffusion_pytorch_model.safetensors").rename(pickled / "denoiser" / "diffusion_pytorch_model.bin")
    mistake(cli("generate", "nowhere.yaml"), "no such file")
    mistake(
        cli("generate", DIGITS, *chosen, "--set", "generator.model=nowhere/at/all"), "generator.model", "make one with `synthforge fit`"
    )
    mistake(cli("generate", DIGITS, *chosen, "--set", f"generator.model={pickled}"), "as a pickle", "only safetensors")
    mistake(cli("generate", DIGITS, *options(tmp_path / "file")), str(tmp_path / "file"))
    mistake(cli("generate", DIGITS, *options(Path("/proc/nowhere"))), "can't be written")
    mistake(cli("generate", DIGITS, *chosen, "--set", "classes.3.templates=[]"), "classes.3.templates", "has no prompts")
    mistake(cli("generate", DIGITS, *chosen, "--set", "count={total: 1000000000000}"), "count.total")
    mistake(cli("generate", DIGITS, *options(tmp_path / "n"), "--set", "sampling.resolution=64"), "the model makes 8 px")
    mistake(cli("generate", DIGITS, *chosen, "--set", "sampling.steps=5"), "changed since", "--overwrite")
    mistake(cli("generate", DIGITS, *chosen, "--extend", -1), "--extend -1")
    mistake(cli("generate", DIGITS, *options(tmp_path / "n"), "--set", "classes.eleven={}"), "no class 'eleven'")
    mistake(cli("verify", tmp_path / "run"), "no dataset.json there")
    mistake(cli("show", 99999, pool), "has no sample")
    mistake(cli("show", 1, pool, "--save", "/proc/nowhere/x.png"), "can't be written")
    mistake(cli("preview", DIGITS, *chosen, "--out", "/proc/nowhere/x.png", "--per-class", 1), "can't be written")
    mistake(cli("fit", tmp_path / "file", "--out", tmp_path / "m"), "check the path")
    mistake(cli("fit", "builtin:digits/reference", "--out", tmp_path / "m", "--set", "objektive=edm"), "did you mean 'objective'")
    mistake(cli("recipe", "new"), "name a folder")
    mistake(cli("recipe", "new", "--builtin", "nothing"), "there are digits")
    mistake(cli("recipe", "new", "--builtin", "digits", "--out", tmp_path / "file"), "exists already")
    assert not (tmp_path / "n" / "pool" / "dataset.json").exists()  # nothing was started
    for usage in (["generate"], ["no-such-command"], ["preview", DIGITS, "--per-class", 0], ["show", "1"]):
        wrong = cli(*usage)
        assert wrong.status == 2
        assert "Traceback" not in wrong.err


def test_torn_and_corrupt_real_data_end_with_status_2(cli: Cli, tmp_path: Path) -> None:
    from tests.data.test_reading import image, plain_tar
    from tests.generators.pixel.test_fit import colour_folder

    tar = plain_tar(tmp_path / "t.tar", {"a.png": image(1), "a.cls": b"0"})
    tar.write_bytes(tar.read_bytes()[:700])
    mistake(cli("fit", tar, "--out", tmp_path / "m"), "t.tar: torn or not a tar")
    tar.write_text("no tar at all")
    mistake(cli("fit", tar, "--out", tmp_path / "m"), "t.tar: torn or not a tar")
    folder = colour_folder(tmp_path / "photos", 16)
    (folder / "red" / "3.jpg").write_bytes(b"corrupt")
    mistake(cli("fit", folder, "--out", tmp_path / "m"), "3.jpg: not a readable image")
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("output.path=s3://", "names no bucket"),
        ('output.path="/tmp/a\\0b"', "not allowed (NUL or broken Unicode)"),
        ("output.path=nonsense://x", "not an address"),
        ("generator.model=" + "a" * 5000, "longer than any path"),
        ('classes=[""]', """--set classes=[""]: classes: a name is empty"""),
        ("classes=[true]", "no class 'true'"),
        ("sampling.seed=2024-99-99", "sampling.seed"),
        ("name=" + "[" * 3000, "name"),
        ("output.samples_per_shard=1", "over 1,000,000 shards"),
    ],
)
def test_strange_values_are_one_line(cli: Cli, change: str, word: str) -> None:
    mistake(cli("generate", DIGITS, "--set", "count={total: 2000000}", "--set", change), word)


def test_json_also_when_the_command_line_is_wrong(cli: Cli) -> None:
    for wrong in (
        ["generate", "--json"],
        ["plan", DIGITS, "--json", "--no-such-option"],
        ["generate", DIGITS, "--extend", "abc", "--json"],
    ):
        ran = cli(*wrong)
        assert (ran.status, ran.json["exit_status"]) == (2, 2)
    assert cli("--version").out.strip()


def test_the_run_folder_is_not_the_pool(cli: Cli, tmp_path: Path) -> None:
    cli("generate", DIGITS, *options(tmp_path), "-q")
    mistake(cli("verify", tmp_path), f"did you mean {tmp_path}/pool?")


def test_a_folder_in_the_place_of_a_shard_stops_the_run(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "pool" / "train-000002.tar").mkdir(parents=True)
    mistake(cli("generate", DIGITS, *options(tmp_path)), "is in its place; remove it", status=1)


def test_a_first_run_notes_nothing_strange(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where sealing is slow, so that the first tar has no seal yet when the last shard was handed out."""
    seal = DatasetFolder._seal

    def slowly(*args: Any) -> Seal:
        time.sleep(1)
        return seal(*args)

    monkeypatch.setattr(DatasetFolder, "_seal", slowly)
    assert cli("generate", DIGITS, *options(tmp_path, total=20)).err.splitlines() == ["loading builtin:digits/generator"]


def test_a_folder_of_a_newer_schema(cli: Cli, tmp_path: Path) -> None:
    cli("generate", DIGITS, *options(tmp_path), "-q")
    manifest = tmp_path / "pool" / "dataset.json"
    manifest.write_text(manifest.read_text().replace(f'"schema_version": {SCHEMA}', f'"schema_version": {SCHEMA + 1}'))
    for command in (["verify", tmp_path / "pool"], ["status", tmp_path / "pool"], ["generate", DIGITS, *options(tmp_path)]):
        mistake(cli(*command), "written by a newer synthforge")


def test_damage_is_reported_with_status_1(cli: Cli, tmp_path: Path) -> None:
    cli("generate", DIGITS, *options(tmp_path), "-q")
    tar = tmp_path / "pool" / "train-000002.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    ran = cli("verify", tmp_path / "pool")
    assert ran.status == 1
    assert "NOT in order" in ran.out
    assert "train-000002.tar" in ran.out


def test_a_recipe_for_a_folder_of_images_leads_to_shards(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.generators.pixel.test_fit import colour_folder

    monkeypatch.chdir(tmp_path)
    colour_folder(tmp_path / "photos", 16)
    assert cli("recipe", "new", "photos").status == 0
    text = (tmp_path / "photos.yaml").read_text()
    assert '"blue": {}' in text
    assert "# guide: less_trained" in text
    assert cli("recipe", "check", "photos.yaml").status == 0
    mistake(cli("generate", "photos.yaml"), "make one with `synthforge fit`")
    sets = ["loop.images=2000", "loop.batch=20", "loop.checks=2", "width=16", "depth=1"]
    fitted = cli("fit", "photos", "--out", "runs/photos/generator", *[part for text in sets for part in ("--set", text)])
    assert fitted.status == 0
    assert "trained on" in fitted.out
    assert "near-copies" in fitted.err
    assert cli("generate", "photos.yaml", "--set", "count.per_class=5", "--set", "sampling.steps=3").status == 0
    assert len(list((tmp_path / "runs" / "photos" / "pool").glob("*.tar"))) == 1


def test_a_recipe_for_a_link_to_a_folder_with_strange_names(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    image = (ROOT / "docs" / "preview.png").read_bytes()
    for name in ("001", "yes", "🐈: 'a' #"):
        (tmp_path / "photos-v3" / name).mkdir(parents=True)
        (tmp_path / "photos-v3" / name / "0.png").write_bytes(image)
    (tmp_path / "- my: photos").symlink_to("photos-v3")
    made = cli("recipe", "new", "./- my: photos")
    assert made.status == 0 and "synthforge recipe check my-photos.yaml" in made.out
    checked = cli("recipe", "check", "my-photos.yaml", "--json").json["recipe"]
    assert checked["name"] == "my-photos" and list(checked["classes"]) == ["001", "yes", "🐈: 'a' #"]


def command(*arguments: object) -> list[str]:
    return [str(Path(sys.executable).with_name("synthforge")), *map(str, arguments)]


@pytest.mark.slow
def test_interrupting_the_real_command_loses_nothing(tmp_path: Path) -> None:
    chosen = options(tmp_path / "cut", total=80, per_shard=10, sampling__steps=100)
    process = subprocess.Popen(
        command("generate", DIGITS, *chosen),
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        # Where the tests themselves run in the background, interrupts are ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cut" / "pool").glob("*.tar")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "the same command continues from there" in err
    assert "Traceback" not in err
    assert subprocess.run(command("generate", DIGITS, *chosen, "-q"), env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    whole = options(tmp_path / "whole", total=80, per_shard=10, sampling__steps=100)
    assert subprocess.run(command("generate", DIGITS, *whole, "-q"), env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode == 0
    assert files_of(tmp_path / "cut" / "pool") == files_of(tmp_path / "whole" / "pool")


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(tmp_path: Path) -> None:
    """Built, installed without the checkout, its recipe copied and run."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(ROOT)], check=True, capture_output=True
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    site = tmp_path / "site"
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True, capture_output=True
    )
    environment = os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, "-P", "-m", "synthforge"]
    where = subprocess.check_output(
        [sys.executable, "-P", "-c", "import synthforge; print(synthforge.__file__)"], env=environment, cwd=tmp_path, text=True
    )
    assert where.startswith(str(site))
    subprocess.run([*run, "recipe", "new", "--builtin", "digits"], check=True, env=environment, cwd=tmp_path, capture_output=True)
    done = subprocess.run(
        [*run, "generate", "digits.yaml", "--set", "count.per_class=3", "--json"],
        check=True,
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert json.loads(done.stdout)["made"] == 30
    assert (tmp_path / "runs" / "digits" / "pool" / "complete.json").exists()
