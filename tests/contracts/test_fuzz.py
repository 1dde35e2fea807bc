"""A thousand damaged and hostile inputs: no traceback, no hang, no swelling, nothing lost, nothing written outside."""

from __future__ import annotations

import pytest

from tests.contracts.fuzz import READERS, findings


@pytest.mark.parametrize("first", range(0, 1000, 250))
def test_readers_survive(first: int) -> None:
    assert list(findings(first, 250)) == []


def test_every_reader_is_tried() -> None:
    assert {number % (len(READERS) + 1) for number in range(250)} == set(range(len(READERS) + 1))
