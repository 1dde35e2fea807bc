"""Folders of digits that several evaluations take."""

from __future__ import annotations

import numpy as np
import pytest

from tests.evaluation.sets import Sets, digits, per_class, write


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    place, fit = tmp_path_factory.mktemp("sets"), digits()
    fit = [fit[row] for row in np.random.default_rng(0).permutation(len(fit))]  # neighbours are by one hand
    return Sets(
        write(place / "real" / "fit", per_class(fit, 0, 40)).parent,
        write(place / "holdout", digits("holdout")[:200]),
        write(place / "more", per_class(fit, 40, 70)),
        write(place / "wrong", per_class(fit, 40, 70), wrong=0.5),
    )
