"""Cross-fitted models on disk: which images each has seen, and how large the built-in ones are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from synthforge.data.reading import Labelled
from synthforge.features.encoders.clip import WEIGHTS_FILES
from synthforge.features.encoders.config import EncoderConfig
from synthforge.features.encoders.fitted import without_fold
from tests.features.encoders.made import ASSETS, BUILTIN, digests, load


@pytest.mark.parametrize("config", BUILTIN, ids=lambda config: config.kind)
def test_folds_of_the_embedded_models_cover_the_fit_part_and_nothing_else(
    config: EncoderConfig, digits: dict[str, Labelled], tmp_path: Path
) -> None:
    first, second = load(config, tmp_path)
    fit, validation = digests(digits["fit"]), digests(digits["validation"])
    assert first.seen | second.seen == fit
    assert not first.seen & second.seen
    assert not validation & (first.seen | second.seen)
    for number, encoder in enumerate((first, second)):
        fitted, left_out = without_fold(digits["fit"], number, 2)
        assert (digests(fitted), digests(left_out) & encoder.seen) == (encoder.seen, set())
    assert first.name != second.name
    assert first.identity() != second.identity()


def test_the_embedded_models_are_small_and_say_how_well_they_do() -> None:
    for kind, name in (("encoder", "zero_shot_accuracy"), ("judge", "accuracy")):
        folders = sorted((ASSETS / kind).iterdir())
        assert [folder.name for folder in folders] == ["fold-0", "fold-1"]
        for folder in folders:
            report = json.loads((folder / "fitted.json").read_text())
            assert min(report[name].values()) > 0.9
            assert set(report[name]) == {"left_out_fold", "validation"}
            assert "scripts/fit_encoder.py" in report["command"]
    files = [path for kind in ("encoder", "judge") for path in (ASSETS / kind).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    table = load_file(ASSETS / "encoder" / "fold-0" / WEIGHTS_FILES[0])
    assert sum(value.numel() for name, value in table.items() if name != "token_embedding.weight") < 1_000_000
    assert int((table["token_embedding.weight"] != 0).any(dim=1).sum()) < 60
