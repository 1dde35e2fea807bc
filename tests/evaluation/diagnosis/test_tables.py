"""Which parts of the loss a diagnosis can show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from synthforge.evaluation.diagnosis.tables import _unshown


def test_nothing_is_shown_where_there_are_too_few_images_to_ask() -> None:
    def known(**facts: float) -> Any:
        return SimpleNamespace(facts=facts)

    assert _unshown([known(doubted=0.1), known(doubted=0.0, differing=0.0)]) == {"content", "interaction"}
    assert _unshown([known(doubted=0.0, differing=0.3)]) == {"labels"}
    assert _unshown([known()]) == set()  # nothing is known
