"""From predictions to tables."""

from __future__ import annotations

from pathlib import Path

from tests.evaluation.sets import REAL, Sets, ask


def test_what_is_required_is_asked_of_the_amounts_that_it_names_and_changes_nothing_else(sets: Sets, tmp_path: Path) -> None:
    both = (f"real_per_class=[{REAL}, {2 * REAL}]",)
    asked = ["more-set > wrong", "more-set >= wrong", f"more-set > wrong @ {REAL}", "real >= 0.1"]
    plain = ask(sets, tmp_path, sets.more, sets.wrong, arms="real,more-set,wrong", more=both)
    result = ask(sets, tmp_path, sets.more, sets.wrong, arms="real,more-set,wrong", more=both, require=asked)
    by_what = {one.claim.what: one.claim for one in result.tables[0].required}
    assert {what: one.comparisons for what, one in by_what.items()} == {
        "more-set minus wrong": 2,
        f"more-set minus wrong with {REAL} real images per class": 1,
    }
    assert list(result.requirements) == asked
    assert result.requirements["more-set > wrong"] == (by_what["more-set minus wrong"].verdict == "helped")
    assert result.tables[0].model_copy(update={"required": []}) == plain.tables[0]
    assert result.verdict == plain.verdict
