"""Settings of a curation."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from synthforge.recipe.curation import GATES, CurationConfig, SelectionConfig, SizeConfig, cache_folder


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        (SizeConfig(), 7),
        (SizeConfig(ratio=2.5), 18),
        (SizeConfig(per_class=3), 3),
        (SizeConfig(quota={"a": 5}), 5),
        (SizeConfig(quota={"b": 5}), 0),
    ],
)
def test_how_many_images_are_kept(size: SizeConfig, kept: int) -> None:
    assert size.of("a", 7) == kept


def test_sizes_exclude_each_other() -> None:
    with pytest.raises(ValidationError, match="give one of ratio, per_class and quota"):
        SizeConfig(ratio=1.0, per_class=3)
    with pytest.raises(ValidationError, match="give one of the two"):
        SelectionConfig(weights=True, size=SizeConfig(per_class=3))


def test_gates_have_their_defaults_in_order_and_two_are_off() -> None:
    gates = CurationConfig().gates
    assert list(gates) == list(GATES)
    assert [name for name, gate in gates.items() if not gate.on] == ["content", "pictures"]  # type: ignore[attr-defined]


def test_a_rule_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(ValidationError, match="mmd"):
        SelectionConfig(method="mmmd")


def test_the_cache_is_the_users_unless_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHFORGE_CACHE", str(tmp_path / "mine"))
    assert cache_folder(CurationConfig()) == tmp_path / "mine"
    assert cache_folder(CurationConfig(cache=str(tmp_path / "other"))) == tmp_path / "other"
