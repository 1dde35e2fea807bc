"""Files at a path or pattern."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthforge.data.collection import Collection
from tests.data.sets import IMAGES, check_contract, labelled, raw_tar


@pytest.mark.parametrize(
    "pattern", ["", "x-*.tar", "x-{00..02}.tar", "x-{00,01,02}.tar", "x-0[0-2].tar", "x-{00..09}.tar"], ids=lambda text: text or "folder"
)
def test_patterns(tmp_path: Path, pattern: str, opened: Callable[..., Collection]) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"x-{shard:02d}.tar", labelled(range(5)))
    found = opened(tmp_path / pattern)
    check_contract(found)
    assert [block.name for block in found.blocks] == ["x-00.tar", "x-01.tar", "x-02.tar"]
    assert found.num_samples == 15
    assert opened(tmp_path / "x-01.tar").num_samples == 5


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("x-{00..02}.tar", None),
        ("x-*.tar", None),
        ("x-{00..05}.tar", "{0}/x-{{00..05}}.tar: 3 of the 6 files that it spells out are missing, the first is {0}/x-03.tar"),
        ("x-{02,07}.tar", "{0}/x-{{02,07}}.tar: 1 of the 2 files that it spells out are missing, the first is {0}/x-07.tar"),
        ("{x,y}-0{0..2}.tar", "{0}/{{x,y}}-0{{0..2}}.tar: 3 of the 6 files that it spells out are missing, the first is {0}/y-00.tar"),
    ],
)
def test_files_that_braces_spell_out_and_are_not_there_are_told(
    tmp_path: Path, pattern: str, told: str | None, opened: Callable[..., Collection]
) -> None:
    for shard in range(3):
        raw_tar(tmp_path / f"x-{shard:02d}.tar", labelled(range(5)))
    assert opened(tmp_path / pattern).problems == ([told.format(tmp_path)] if told else [])


def test_tables_that_braces_spell_out_and_are_not_there_are_told(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    cells = [{"bytes": IMAGES[i], "path": None} for i in range(6)]
    pq.write_table(pa.table({"image": cells, "label": ["a", "b"] * 3}), tmp_path / "x-0.parquet")
    (problem,) = opened(tmp_path / "x-{0..3}.parquet").problems
    assert problem == f"{tmp_path}/x-{{0..3}}.parquet: 3 of the 4 files that it spells out are missing, the first is {tmp_path}/x-1.parquet"


def test_a_name_of_brackets_is_no_pattern(tmp_path: Path, opened: Callable[..., Collection]) -> None:
    (tmp_path / "[old] {1,2}").mkdir()
    raw_tar(tmp_path / "[old] {1,2}" / "a.tar", labelled(range(5)))
    assert opened(tmp_path / "[old] {1,2}" / "a.tar").num_samples == opened(tmp_path / "[old] {1,2}").num_samples == 5
