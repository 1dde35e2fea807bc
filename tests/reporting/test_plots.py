"""Plots: words for screen readers, colours that the page decides, and files that stand alone."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image

from synthforge.reporting.plots import LIGHT, Dot, Plot, curves, dots, in_points
from synthforge.statistics import Measured


def two_rows() -> Plot:
    return dots("a", "Accuracy", {"few": [Dot("real", 90, 88, 92, "real")], "": [Dot("<b>", 80.04, 79, 81)]}, "accuracy, %", zero=True)


def one_line() -> Plot:
    return curves("b", "Accuracy by amount", {"real": ("real", [(5, 80, 78, 82), (20, 90, 89, 91)])}, "images", "accuracy, %")


def test_what_a_plot_shows_is_said_in_words() -> None:
    assert two_rows().alt == "Accuracy. few: real 90.0; <b> 80.0"
    assert one_line().alt == "Accuracy by amount. real: 80.0 with 5, 90.0 with 20"


@pytest.mark.parametrize("plot", [two_rows, one_line])
def test_the_page_decides_colours_and_ids_differ_between_plots(plot: type[Plot]) -> None:
    picture = plot()
    assert "var(--real)" in picture.inline and LIGHT["real"] not in picture.inline
    assert LIGHT["real"] in picture.svg.decode() and "var(" not in picture.svg.decode()
    names = re.findall(r'\bid="([^"]+)"', picture.inline)
    assert names and all(name.startswith(f"{picture.name}-") for name in names)
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', picture.inline)) <= set(names)
    assert Image.open(io.BytesIO(picture.png)).width > 500


def test_points_are_hundredths() -> None:
    assert in_points(Measured(value=0.031, low=0.012, high=0.05)) == pytest.approx((3.1, 1.2, 5.0))


def test_labels_are_text_and_not_markup() -> None:
    assert "&lt;b&gt;" in two_rows().inline and "<b>" not in two_rows().inline
    assert two_rows() == two_rows()  # bytes too
