"""What curation chooses for an evaluation's arms."""

from __future__ import annotations

from pathlib import Path

import pytest

from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small
from tests.evaluation.sets import run
from tests.features.clips import write_clip


@pytest.mark.slow
def test_what_an_encoder_of_unknown_origin_chose_is_in_the_other_table(tmp_path: Path) -> None:
    generate(load_recipe(str(DIGITS), small(tmp_path, total=1000, per_shard=500)))
    encoder = f"curation.encoder={{kind: open_clip, model: {write_clip(tmp_path / 'clip')}}}"
    result = run(tmp_path, "evaluation.real_per_class=[all]", "count={total: 1000}", "output.samples_per_shard=500", encoder)
    assert [table.origin for table in result.tables] == ["elsewhere"]
    assert set(result.tables[0].settings[0].arms) == {"real", "random", "curated", "real+curated"}
    assert "may have seen more real images than the classifiers" in result.verdict


def test_a_draw_of_which_nothing_passes_the_gates_lacks_that_arm_and_no_other(tmp_path: Path) -> None:
    result = run(tmp_path, "curation.gates.copies.factor=10", "curation.gates.copies.loss=0.99")
    (setting,) = result.tables[0].settings
    assert set(setting.arms) == {"real", "random"}
    assert setting.missing["curated"] == "there are no images of curated"
    assert any("no image passes the gates" in note for note in result.notes)
