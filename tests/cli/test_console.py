"""Tables, progress, sizes and durations on a terminal."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from synthforge.cli.console import ConsoleReporter, draw_image, duration, print_evaluation, print_rows, size, stdout
from synthforge.data.images import encode
from tests.evaluation.results import made
from tests.evaluation.results.made import measured


def recorded(**options: object) -> Console:
    return Console(record=True, width=120, file=io.StringIO(), **options)  # type: ignore[arg-type]


def test_progress_goes_to_standard_error_with_rate_and_time_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ConsoleReporter, "LINE_SECONDS", 0.0)
    console = ConsoleReporter(quiet=False)
    console.begin("generating", 1000, 100)
    time.sleep(0.01)
    console.advance(50)
    console.end()
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"generating: 150 of 1,000 images, [\d,]+/s, [\d.]+ (s|min).* left\n", err)


def test_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConsoleReporter, "LINE_SECONDS", 0.0)
    console = ConsoleReporter(quiet=True)
    console.begin("generating", 10)
    console.advance(5)
    console.note("a note")
    console.end()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("num", "text"), [(0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (2e9, "2 GB"), (5e15, "5 PB")])
def test_sizes_have_three_digits_and_a_unit(num: float, text: str) -> None:
    assert size(num) == text


@pytest.mark.parametrize(("seconds", "text"), [(1.25, "1.2 s"), (61, "1 min 1 s"), (3 * 3600 + 120, "3 h 2 min")])
def test_durations_have_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_rows_without_a_value_are_left_out_and_markup_is_text() -> None:
    console = recorded()
    print_rows(console, "done", {"images": "10 [bold]", "quarantined": ""})
    assert console.export_text() == "done\nimages  10 [bold]\n"


def test_names_in_colons_are_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(stdout(), "done", {"folder": ":cat:"})
    assert capsys.readouterr().out == "done\nfolder  :cat:\n"


def test_a_difference_has_a_unit_an_interval_and_a_verdict() -> None:
    setting = made.setting([made.comparison("curated", "real", "helped", 0.02)], {"curated": measured(0.9)}, per_class=5)
    console = recorded()
    print_evaluation(console, made.table([setting]))
    text = console.export_text()
    assert text.startswith("accuracy on the held-out test set (generator trained on these real")
    assert re.search(r"curated − real +\+2\.0 \[\+1\.0, \+3\.0\] points +\n +helped", text)


def test_an_image_is_drawn_only_where_there_are_colours() -> None:
    import numpy as np

    image = encode(np.zeros((4, 6, 3), np.uint8), "png", 100, False)
    coloured, plain = recorded(force_terminal=True, color_system="truecolor"), recorded()
    draw_image(coloured, image)
    draw_image(plain, image)
    assert coloured.export_text() == ("▀" * 6 + "\n") * 2
    assert plain.export_text() == ""
