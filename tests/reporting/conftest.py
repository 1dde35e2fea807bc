"""A small run with every stage, and a browser to look at its page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small
from tests.evaluation.sets import QUICK

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small run with every stage."""
    from synthforge.stages import run

    place = tmp_path_factory.mktemp("run")
    few = ["evaluation.real_per_class=[5, 20]", "evaluation.curve=[5, 20]", "evaluation.arms=[real, random, real+random]"]
    quick = [f"evaluation.{text}" for text in QUICK]
    curation = [f"curation.cache={place / 'cache'}", "curation.trials.check=false"]
    run(load_recipe(DIGITS, [*small(place / "run", total=200, per_shard=100), *quick, *few, *curation]))
    return place / "run"


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def opened(browser: Any, page_file: Path, width: int = 1200, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page, and everything that it complained of or asked a network for."""
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on(
        "request",
        lambda request: trouble.append(f"asked for {request.url}") if request.url.partition(":")[0] not in {"file", "data"} else None,
    )
    page.goto(page_file.as_uri())
    return page, trouble
