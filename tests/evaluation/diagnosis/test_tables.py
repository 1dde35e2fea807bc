"""Which parts of the loss a diagnosis can show."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from synthforge.evaluation.diagnosis.tables import _untested
from synthforge.evaluation.results.types import ImageFacts


def test_nothing_is_shown_where_there_are_too_few_images_to_ask() -> None:
    def known(doubted: float, differing: float | None) -> Any:
        facts = ImageFacts(doubted=doubted, doubted_real=0.0, p_value=1.0, variety=1.0, differing=differing, compared=1.0, recognised=None)
        return SimpleNamespace(facts=facts)

    assert _untested([known(0.1, None), known(0.0, 0.0)]) == {"content", "interaction"}
    assert _untested([known(0.0, 0.3)]) == {"labels"}
    nothing: Any = SimpleNamespace(facts=None)
    assert _untested([nothing]) == set()
