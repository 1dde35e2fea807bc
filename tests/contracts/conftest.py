"""For all contracts."""

from __future__ import annotations

from collections.abc import Iterator

import datasets
import pytest


@pytest.fixture(scope="module", autouse=True)
def quiet() -> Iterator[None]:
    """Hugging Face `datasets` draws no progress bars."""
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
