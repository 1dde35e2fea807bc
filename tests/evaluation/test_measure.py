"""The steps that evaluations share: weights reach the trainings, and any number of processes gives the same figures."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets
from tests.evaluation.sets import Sets, ask


def test_importance_weights_of_a_curated_set_count_in_trainings(sets: Sets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import synthforge.evaluation.trainer.jobs as trainings

    settings = ["encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}", "selection.weights=true"]
    config = config_from_sets(CurationConfig, [*settings, f"cache={tmp_path / 'cache'}", "gates.labels.on=false"])
    curated = curate(CurationRequest([str(sets.more)], str(sets.real), str(tmp_path / "weighted"), config))
    decisions = pq.read_table(tmp_path / "weighted" / "decisions.parquet").to_pylist()
    given = {row["curated_key"]: row["weight"] for row in decisions if row["kept"]}
    assert len(given) == curated.kept > 200 and len(set(given.values())) > 20

    train, seen = trainings.train, []

    def trained(config: Any, mixing: Any, images: Any, **rest: Any) -> Any:
        if not images.is_real_N.any():
            seen.append(images)
        return train(config, mixing, images, **rest)

    monkeypatch.setattr(trainings, "train", trained)
    ask(sets, tmp_path / "asked", tmp_path / "weighted", arms="weighted")
    by_image = {}
    for shard in (tmp_path / "weighted").glob("*.tar"):
        with tarfile.open(shard) as tar:
            images = [member for member in tar if member.name.endswith(".png")]
            by_image |= {tar.extractfile(member).read(): given[member.name.removesuffix(".png")] for member in images}  # type: ignore[union-attr]
    assert len(by_image) == len(given) and seen
    for images in seen:
        files = images.gather(np.arange(len(images)))
        assert images.weight_N.tolist() == [by_image[data] for data in files]


@pytest.mark.slow
def test_several_processes_find_what_one_finds(sets: Sets, tmp_path: Path) -> None:
    """With one training to tune by in this process, and then the arms in two."""
    tuned = ("tuning.on=true", "tuning.augmentations=[affine]", "tuning.flip=[false]", "tuning.learning_rates=[0.01, 0.003]", "curve=[5]")
    one = ask(sets, tmp_path / "one", sets.more, arms="real,more-set", more=tuned)
    two = ask(sets, tmp_path / "two", sets.more, arms="real,more-set", more=(*tuned, "workers=2"))
    assert one.tables == two.tables
    assert one.tuned == two.tuned
