"""The error tree: exit statuses, and names in messages."""

from __future__ import annotations

import pytest

from synthforge.errors import (
    DatasetError,
    ModelError,
    OutdatedError,
    PlaceError,
    RecipeError,
    RequestError,
    ShardFailed,
    StorageFailed,
    SynthforgeError,
    WorkError,
    did_you_mean,
    some,
)


@pytest.mark.parametrize("kind", [DatasetError, ModelError, OutdatedError, PlaceError, RequestError])
def test_a_wrong_request_ends_with_status_2(kind: type[SynthforgeError]) -> None:
    assert issubclass(kind, RequestError) and kind("x").exit_status == 2


@pytest.mark.parametrize("kind", [ShardFailed, StorageFailed, WorkError])
def test_failed_work_ends_with_status_1(kind: type[SynthforgeError]) -> None:
    assert issubclass(kind, WorkError) and kind("x").exit_status == 1


def test_a_recipe_error_holds_every_problem() -> None:
    error = RecipeError(["first: wrong", "second: wrong too"])
    assert error.problems == ["first: wrong", "second: wrong too"]
    assert str(error) == "first: wrong\nsecond: wrong too"


def test_long_lists_of_names_are_cut() -> None:
    assert some(["a", "b"]) == "a, b"
    assert some({"a": 1, "b": 2}, most=2) == "a, b"
    assert some([str(i) for i in range(1500)], most=3) == "0, 1, 2 and 1,497 more"


def test_near_names_are_offered() -> None:
    assert did_you_mean("Resnet5", ["resnet50", "vit"], "see the list") == "did you mean 'resnet50'?"
    assert did_you_mean("nonsense", ["resnet50", "vit"], "see the list") == "see the list"
    assert did_you_mean("resnet", ["resnet50", "resnet18"]).count(" or ") == 1
    assert did_you_mean("resnet", ["resnet50", "resnet18"], most=1).count(" or ") == 0
