"""Pages from templates, and where they are written."""

from __future__ import annotations

from pathlib import Path

import jinja2
import pytest

from synthforge.errors import PlaceError
from synthforge.reporting.compare import ComparedRun
from synthforge.reporting.plots import Plot
from synthforge.reporting.templates import _code, page_of, write_page

PICTURE = Plot("accuracy", "Accuracy.", "<svg></svg>", b"<svg/>", b"png")


def test_text_in_backticks_is_code_and_markup_is_escaped() -> None:
    assert _code("run `a <b>` now") == "run <code>a &lt;b&gt;</code> now"


def test_names_of_runs_are_text_and_a_missing_value_is_an_error() -> None:
    runs = [ComparedRun("<script>", "/a", "headline", {"row": "cell"})]
    page = page_of("compare.html.j2", runs=runs, rows=["row"], warnings=[], plots={}).decode()
    assert "&lt;script&gt;" in page and '<th scope="col"><script>' not in page
    with pytest.raises(jinja2.UndefinedError):
        page_of("compare.html.j2", runs=runs)


def test_a_page_lies_beside_its_plots(tmp_path: Path) -> None:
    written = write_page(f"{tmp_path}/page.html", b"page", [PICTURE])
    assert (tmp_path / "page.html").read_bytes() == b"page"
    assert written == [f"{tmp_path}/plots/accuracy.svg", f"{tmp_path}/plots/accuracy.png"]
    assert (tmp_path / "plots" / "accuracy.png").read_bytes() == b"png"


def test_a_place_that_cant_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlaceError, match=r"can't be written .*--out"):
        write_page(f"{tmp_path}/file/page.html", b"page", [])
