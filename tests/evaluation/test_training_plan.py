"""Arms of one setting are of one size."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.evaluation.sets import Sets, ask, digits, per_class, write


def test_a_source_that_is_short_bounds_all_arms_and_one_that_lacks_a_class_none(sets: Sets, tmp_path: Path) -> None:
    short = write(tmp_path / "short", [*per_class(digits(), 40, 70)])
    for image in sorted((short / "3").iterdir())[4:]:
        image.unlink()
    result = ask(sets, tmp_path, sets.more, short, arms="real,more-set,short")
    (setting,) = result.tables[0].settings
    assert {name: score.images for name, score in setting.arms.items()} == {"real": 100, "more-set": 94, "short": 94}
    assert any("10 images of class '3' were wanted from each source, but one source has only 4" in note for note in result.notes)
    shutil.rmtree(short / "3")
    result = ask(sets, tmp_path / "lacking", sets.more, short, arms="real,more-set,short")
    (setting,) = result.tables[0].settings
    assert {name: score.images for name, score in setting.arms.items()} == {"real": 100, "more-set": 100}
    assert setting.missing == {"short": "short has no image of class 3"}
    assert "Not measured: short (short has no image of class 3)" in setting.sentence
