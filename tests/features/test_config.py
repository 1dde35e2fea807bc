"""Settings of nearest-neighbour search."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from synthforge.config import identity_of
from synthforge.features.config import IndexConfig


@pytest.mark.parametrize("fields", [{"kind": "tree"}, {"recall": 0.0}, {"recall": 1.1}, {"memory_gb": 0}])
def test_what_no_index_has_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        IndexConfig.model_validate(fields)


def test_working_memory_changes_no_result_so_it_is_no_part_of_the_identity() -> None:
    def identity(config: IndexConfig) -> object:
        return identity_of(config, lambda path, value: value)

    assert identity(IndexConfig(memory_gb=0.1)) == identity(IndexConfig())
    assert identity(IndexConfig(recall=0.9)) != identity(IndexConfig())
