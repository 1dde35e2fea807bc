"""Errors arrive from a worker as they were raised."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from synthforge.errors import DatasetError, RecipeError, RequestError, ShardFailed
from synthforge.executors.messages import Raised
from tests.contracts.works import Placed


@pytest.mark.parametrize(
    "error", [RecipeError(["a", "b"]), DatasetError("x"), RequestError("y"), ShardFailed("z", is_final=True), Placed("here", "wrong")]
)
def test_errors_travel_whole(error: Any) -> None:
    arrived = pickle.loads(pickle.dumps(Raised.of(error))).error()
    assert type(arrived) is type(error) and str(arrived) == str(error) and vars(arrived) == vars(error)
