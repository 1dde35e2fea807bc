"""Counters of a run: sums, differences and copies."""

from __future__ import annotations

from synthforge.progress import Counters, Reporter


def test_counters_add_and_subtract_by_field_and_reason() -> None:
    first = Counters(images=3, padding=1, rejected={"blank": 2}, shards=1)
    second = Counters(images=4, rejected={"blank": 1, "not finite": 1}, left_out=1, halvings=2)
    both = first + second
    assert both == Counters(images=7, padding=1, rejected={"blank": 3, "not finite": 1}, left_out=1, halvings=2, shards=1)
    assert both - second == first
    assert (both - both).rejected == {}


def test_a_copy_does_not_change_with_its_original() -> None:
    counters = Counters(rejected={"blank": 1})
    before = counters.copy()
    counters.images += 1
    counters.rejected["blank"] += 1
    assert before == Counters(rejected={"blank": 1})


def test_a_plain_reporter_prints_nothing(capsys: object) -> None:
    reporter = Reporter()
    reporter.begin("make", 10)
    reporter.advance(10)
    reporter.note("a note")
    reporter.end()
    assert capsys.readouterr() == ("", "")  # type: ignore[attr-defined]
