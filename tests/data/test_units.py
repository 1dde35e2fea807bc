"""The format of an image is told by its bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synthforge.data.collection import Collection
from tests.data.sets import check_contract, column, images_of, raw_tar


@pytest.mark.parametrize("how", ["folder", "tar", "table"])
def test_the_format_is_that_of_the_bytes(tmp_path: Path, how: str, opened: Callable[..., Collection]) -> None:
    files = {name: data for name, (data, _) in misnamed().items() if data or how == "folder"}
    if how == "folder":
        (tmp_path / "a").mkdir()
        for name, data in files.items():
            (tmp_path / "a" / name).write_bytes(data)
    elif how == "tar":
        raw_tar(
            tmp_path / "a.tar", [entry for name, data in files.items() for entry in ((name, data), (f"{name.partition('.')[0]}.cls", b"a"))]
        )
    else:
        cells = [{"bytes": data, "path": name} for name, data in files.items()]
        pq.write_table(pa.table({"image": cells, "label": ["a"] * len(cells)}), tmp_path / "a.parquet")
    found = opened(tmp_path)
    check_contract(found)
    assert column(found, "extension") == [misnamed()[name][1] for name in files]
    assert images_of(found) == list(files.values())
