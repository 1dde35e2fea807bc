"""croissant.json, proven by mlcroissant."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.loaders import STRANGE, Pool, behind_the_times, built, check_croissant, leaves_files_open, pool_of


@behind_the_times
@leaves_files_open
@pytest.mark.parametrize("image_format", ["png", "jpg"])
def test_croissant_validates_and_reads(any_pool: Pool, tmp_path: Path, croissant: Callable[[Pool], Any], image_format: str) -> None:
    pool = any_pool
    if image_format == "jpg":
        pool = pool_of(
            built(str(tmp_path / "d"), tmp_path, classes=STRANGE, image_format="jpg", num_samples=20, quarantined=(1,), left_out=(9,))
        )
        (pool.path / "train-000001.failures.parquet").write_bytes((pool.path / "train-000000.parquet").read_bytes())
    check_croissant(pool, croissant)


@behind_the_times
@leaves_files_open
def test_croissant_notices_another_tar(tmp_path: Path, croissant: Callable[[Pool], Any]) -> None:
    import mlcroissant

    pool = pool_of(built(str(tmp_path / "d"), tmp_path))
    with (pool.path / "train-000001.tar").open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(mlcroissant.GenerationError) as raised:
        list(croissant(pool).records("samples"))
    assert "train-000001.tar is not identical" in str(raised.value.__cause__)


@behind_the_times
def test_croissant_of_webp_validates(tmp_path: Path, croissant: Callable[[Pool], Any]) -> None:
    pool = pool_of(built(str(tmp_path / "d"), tmp_path, image_format="webp"))
    assert not croissant(pool).metadata.ctx.issues.errors
