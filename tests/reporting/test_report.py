"""The page in a real browser: headless Chromium by Playwright; contrast, names and roles by axe."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.curation.result import Distance, DistanceChange, Distances, Gap, Nearer
from synthforge.reporting.gathered import Gathered
from synthforge.reporting.report import _is_nearer, _why, report
from tests.conftest import DIGITS, Ran, small
from tests.evaluation.sets import digits, per_class
from tests.reporting.conftest import needs_browser, opened

Cli = Callable[..., Ran]


@pytest.mark.trains
@needs_browser
@pytest.mark.parametrize("width", [360, 1200])
def test_nothing_overflows_complains_or_asks_for_anything(run_folder: Path, browser: Any, width: int) -> None:
    page, trouble = opened(browser, run_folder / "report.html", width)
    assert trouble == []
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = page.evaluate("[...document.images].filter((image) => !image.complete || !image.naturalWidth).length")
    assert broken == 0
    assert page.evaluate("document.images.length") > 20
    assert all(alt for alt in page.evaluate("[...document.images].map((image) => image.alt)"))
    assert page.locator("figure svg").count() >= 4


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast_names_and_roles_pass_axe(run_folder: Path, browser: Any, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, _ = opened(browser, run_folder / "report.html", 1200, scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]})
    assert [(one["id"], one["nodes"][0]["html"][:200]) for one in found.response["violations"]] == []
    assert any(one["id"] == "color-contrast" for one in found.response["passes"])


@needs_browser
def test_why_images_were_dropped_is_told_without_the_names_of_gates(run_folder: Path, browser: Any) -> None:
    page, _ = opened(browser, run_folder / "report.html")
    shown = page.locator("section[aria-labelledby=dropped]").inner_text()  # what is folded up is not in it
    reasons = {one for one in Gathered.at(str(run_folder)).decisions.reason if one is not None}
    assert reasons and all(_why(one)[0] in shown and _why(one)[0] != one for one in reasons)
    assert "label disagrees" not in shown and "off-manifold" not in shown and "not selected" not in shown
    assert re.findall(r"(?m)^([0-9.]+) % of the median$", shown)
    assert "0 images were dropped as near-copies of a real image." in shown
    assert "All images that passed the filters were kept" in page.locator("section[aria-labelledby=gap]").inner_text()


@pytest.mark.parametrize(
    ("verdict", "floor", "told"),
    [
        (
            "smaller",
            (-0.1, 0.2),
            "a random selection of the same size. Curated images are at 2.0 times the largest distance expected for other real images.",
        ),
        (
            "larger",
            (0.1, 0.5),
            "farther from the real images than a random selection of the same size. The curated images are as near as other real images.",
        ),
        (
            "smaller",
            (0.5, 0.6),
            "of the same size. The curated images are nearer than other real images, so the selection overfits these real images.",
        ),
        ("no different", (None, None), "do not differ significantly in distance to the real images."),
    ],
)
def test_whether_curation_brought_the_set_nearer(verdict: Nearer, floor: tuple[float | None, float | None], told: str) -> None:
    def gap(verdict: Nearer | None, nothing_chosen: bool = False) -> Gap:
        after = Distance(value=0.4, low=0.3, high=0.5, n=100, over="images")
        real = Distance(value=0.0, low=floor[0], high=floor[1], n=100, over="real draws")
        change = DistanceChange(value=0.1, low=0.0, high=0.2, verdict=verdict)
        found = Distances(before=after, after=after, random=after, floor=real, after_minus_random=change)
        counts = dict.fromkeys(("num_views", "num_real", "num_before", "num_after", "num_random", "num_bootstrap", "num_splits"), 1)
        rest: dict[str, Any] = {"per_class": {}, "sigma": [1.0], "most_images": 100, **counts}
        return Gap(primary="mmd", metrics={"mmd": found}, nothing_chosen=nothing_chosen, **rest)

    assert _is_nearer(gap(verdict), None).endswith(told)
    assert _is_nearer(gap(None), None) == ""
    assert "no selection to compare" in _is_nearer(gap(verdict, nothing_chosen=True), None)
    assert ("there is no significant difference" in _is_nearer(gap(verdict), gap("no different"))) is (verdict != "no different")


@needs_browser
def test_what_was_read_is_told_with_its_number(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text()
    row = text.partition(">images read<")[2].partition("</tr>")[0]
    for told in ("pool: 200 images (dataset folder)", "reference: 1,000 images (dataset folder)", "holdout: 797 images (dataset folder)"):
        assert told in row


def test_it_prints_in_light_colours_without_navigation(run_folder: Path, browser: Any) -> None:
    page, _ = opened(browser, run_folder / "report.html", 800, "dark")
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(28, 31, 36)"


def test_without_real_images_none_is_in_the_page(run_folder: Path, tmp_path: Path) -> None:
    run = Gathered.at(str(run_folder))
    report(run, str(tmp_path / "with.html"))
    report(run, str(tmp_path / "without.html"), real_images=False)
    whole, without = ((tmp_path / name).read_text() for name in ("with.html", "without.html"))
    assert "real images of class" in whole
    assert "real images of class" not in without
    assert without.count("data:image") < whole.count("data:image")
    points = json.loads(without.partition('id="points">')[2].partition("</script>")[0])
    assert all(place < 0 for *_, kind, _, _, place in points if kind == "real")
    assert {kind for _, _, kind, *_ in points} == {"real", "pool", "kept"}


def test_plots_are_files_too_and_the_page_is_the_same_twice(run_folder: Path, tmp_path: Path) -> None:
    first = report(Gathered.at(str(run_folder)), str(tmp_path / "a.html"))
    report(Gathered.at(str(run_folder)), str(tmp_path / "b.html"))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
    endings = {Path(plot).suffix for plot in first.plots}
    assert endings == {".svg", ".png"}
    assert all(Path(plot).stat().st_size > 1000 for plot in first.plots)


def test_a_run_of_which_only_the_pool_is_there_says_what_is_missing(run_folder: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(run_folder / "pool", tmp_path / "run" / "pool")
    ran = cli("report", tmp_path / "run", "--json")
    assert ran.status == 0, ran.err
    assert len(ran.json["missing"]) == 3
    assert "Not evaluated yet" in ran.json["headline"]
    assert "run <code>synthforge curate</code>" in (tmp_path / "run" / "report.html").read_text()


def test_a_pool_without_records_is_shown_and_told(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "pool").mkdir(parents=True)
    for tar in (run_folder / "pool").glob("*.tar"):
        shutil.copy(tar, tmp_path / "run" / "pool")
    result = report(Gathered.asked(str(DIGITS), [f"output.path={tmp_path / 'run'}"]))
    assert "not known how the pool was made" in result.missing[0]
    assert "synthetic: an image of each class" in Path(result.file).read_text()


@pytest.mark.slow
def test_a_pool_of_which_nothing_can_be_kept_and_a_class_without_images(run_folder: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(run_folder / "pool", tmp_path / "run" / "pool")
    for number, example in enumerate(per_class(digits(), 0, 20)):  # no 9, and the others under names of others
        if example.class_name != "9":
            place = tmp_path / "real" / str((int(example.class_name) + 4) % 9)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.png").write_bytes(example.data)
    sets = [*small(tmp_path / "run", total=200, per_shard=100), f"reference={tmp_path / 'real'}", f"curation.cache={tmp_path / 'cache'}"]
    ran = cli("run", DIGITS, *[part for text in sets for part in ("--set", text)])
    assert ran.status == 2 and "no image passes the gates" in ran.err, ran.err
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The run ended early: " in page
    assert "real images of class 8" in page
    assert "real images of class 9" not in page


def test_wrong_requests_are_told(tmp_path: Path, cli: Cli, run_folder: Path) -> None:
    for arguments, told in [
        ((tmp_path,), "no run is there"),
        ((tmp_path / "none.yaml",), "none.yaml"),
        ((run_folder, "--set", "name=a"), "--set is for a recipe"),
        ((run_folder, "--out", "/proc/page.html"), "/proc"),
    ]:
        ran = cli("report", *arguments)
        assert ran.status in {1, 2}
        assert told in ran.err, ran.err
        assert "Traceback" not in ran.err


def test_names_in_a_recipe_are_text_and_not_markup(run_folder: Path, tmp_path: Path) -> None:
    run = Gathered.at(str(run_folder))
    diagnosis = json.loads((run_folder / "diagnosis.json").read_text())
    diagnosis["verdict"] = "<script>alert(1)</script>"
    shutil.copytree(run_folder, tmp_path / "run")
    (tmp_path / "run" / "diagnosis.json").write_text(json.dumps(diagnosis))
    report(Gathered.at(str(tmp_path / "run")), str(tmp_path / "page.html"))
    assert "<script>alert(1)" not in (tmp_path / "page.html").read_text()
    assert run.recipe.name == "digits"


def test_a_part_that_no_image_shows_is_no_zero_with_an_interval(run_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(run_folder, tmp_path / "run")
    diagnosis = json.loads((run_folder / "diagnosis.json").read_text())
    for loss in [diagnosis["tables"][0]["mean"], *(one["loss"] for one in diagnosis["tables"][0]["settings"])]:
        loss["parts"]["content"] = {"loss": None, "verdict": "not shown", "share": None}
    (tmp_path / "run" / "diagnosis.json").write_text(json.dumps(diagnosis))
    report(Gathered.at(str(tmp_path / "run")), str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "content: no measurable difference" in page
    assert "content: 0.0" not in page and "content +0.0" not in page


def test_a_page_has_room_for_a_large_pool(run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown of a pool does not grow with it: a map of all its points would."""
    run = Gathered.at(str(run_folder))
    assert run.pool is not None and run.decisions is not None
    num = len(run.pool)
    result = report(run, str(tmp_path / "page.html"))
    points = json.loads((tmp_path / "page.html").read_text().partition('id="points">')[2].partition("</script>")[0])
    assert len(points) < 300 + num + 1
    assert result.bytes < 2_000_000
    assert np.asarray(run.kept()).max() < num
