"""The map of images in the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from synthforge.reporting.gathered import Gathered
from synthforge.reporting.map import map_of
from tests.reporting.conftest import needs_browser, opened


@needs_browser
def test_the_maps_points_are_told_by_mouse_and_keys(run_folder: Path, browser: Any) -> None:
    page, trouble = opened(browser, run_folder / "report.html")
    circle = page.locator("#map circle").first
    circle.scroll_into_view_if_needed()
    box = circle.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    told = page.locator("#tip").inner_text()
    assert "class" in told
    assert page.locator("#tip i").count() == 1
    assert page.locator("#map circle.on").count() == 1
    page.locator("#map svg").focus()
    seen = {told}
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        page.keyboard.press(key)
        seen.add(page.locator("#tip").inner_text())
    assert len(seen) > 1
    page.locator("[data-kind=real]").uncheck()
    assert page.locator("#map circle.real").first.is_hidden()
    assert trouble == []


def test_every_kind_has_points_and_lost_features_are_told(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, missing = Gathered.at(str(run_folder)), list[str]()
    found = map_of(run, missing, real_images=True)
    assert found is not None and run.pool is not None and missing == []
    assert found.num["pool"] + found.num["kept"] <= len(run.pool) and found.num["real"] <= 300
    assert len(json.loads(found.points)) == sum(found.num.values())
    monkeypatch.setattr(Gathered, "features", lambda *_: None)
    assert map_of(run, missing, real_images=True) is None
    assert "no longer in the cache" in missing[0]
