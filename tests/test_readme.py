"""Every command of README and guide is one that the command line takes, and those of the digits do what they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import typer

from synthforge.cli.main import app
from tests.conftest import ROOT, Ran
from tests.evaluation.sets import QUICK

Cli = Callable[..., Ran]


def commands(text: str) -> list[list[str]]:
    """What stands after a prompt in a console block, without comments."""
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ synthforge ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


def links(text: str) -> list[str]:
    """Where links and pictures of a page lead, but for addresses on the web."""
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def leads(page: Path, link: str) -> bool:
    """Whether there is such a file, and such a heading in it."""
    name, _, heading = link.partition("#")
    place = page.parent / name if name else page
    if not place.exists() or not heading:
        return place.exists()
    titles = re.findall(r"^#+ (.+)$", place.read_text(), re.MULTILINE)
    return heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_command_line_takes_every_command(page: Path) -> None:
    root = typer.main.get_command(app)
    for words in commands(page.read_text()):
        context, command, rest = click.Context(root, info_name="synthforge"), root, words
        while isinstance(command, click.Group):
            name, found, rest = command.resolve_command(context, rest)
            assert found is not None, words
            command, context = found, click.Context(found, info_name=name, parent=context)
        command.make_context(command.name or "", list(rest), parent=context.parent)  # raises for what it does not know


def test_there_are_commands_to_look_at() -> None:
    assert sum(len(commands(page.read_text())) for page in PAGES) > 35


def test_every_link_leads_somewhere() -> None:
    broken = [f"{page.name}: {link}" for page in PAGES for link in links(page.read_text()) if not leads(page, link)]
    assert not broken


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_those_of_the_digits_run_as_they_stand(tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a recipe that asks for little."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYNTHFORGE_CACHE", str(tmp_path / "cache"))
    done = []
    for words in [words for page in PAGES for words in commands(page.read_text())]:
        if not any("digits" in word for word in words):
            continue
        words = ["100" if word == "1000" else word for word in words]
        ran = cli(*words)
        assert ran.status == 0, (words, ran.err[-2000:])
        done.append(words[0])
        if words[:2] == ["recipe", "new"]:
            recipe = (tmp_path / "digits.yaml").read_text()
            quick = "\n".join(f"  {text.replace('=', ': ', 1)}" for text in QUICK if not text.startswith(("trainer.", "tuning.", "seeds")))
            recipe = recipe.replace("per_class: 500", "per_class: 20").replace("seeds: 5", f"seeds: 1\n{quick}")
            recipe = recipe.replace("real_per_class: [5, 20, 50]", "real_per_class: [5]").replace(
                "real_per_class: [5, 20]", "real_per_class: [5]"
            )
            (tmp_path / "digits.yaml").write_text(recipe.replace("steps: 150", "steps: 30"))
    verbs = "recipe plan preview generate status verify curate evaluate diagnose report run show"
    assert set(verbs.split()) <= set(done)
