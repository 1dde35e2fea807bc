"""The images of a diagnosis's arms: which encoder compares them, and which real image a rendering is of."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from synthforge.curation.default_encoders import CLIP, SMALL
from synthforge.data.image_table import Table
from synthforge.data.read_config import Reading
from synthforge.errors import RequestError
from synthforge.evaluation.diagnosis.sources import Renderings, arm_images_of, with_encoder
from synthforge.evaluation.preparation.protocol import Pool
from synthforge.evaluation.reference import Reference
from synthforge.evaluation.sets import Images
from synthforge.features.encoders.config import PixelsConfig
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.evaluation import DiagnosisConfig, EvaluationConfig
from tests.evaluation.sets import digits, per_class, write


def test_pixels_compare_small_images_and_wherever_a_model_would_have_seen_too_much() -> None:
    config, curation = DiagnosisConfig(), CurationConfig()
    assert with_encoder(config, curation, SMALL, "elsewhere").encoder == PixelsConfig()
    assert with_encoder(config, curation, SMALL + 1, "own").encoder == PixelsConfig()
    assert with_encoder(config, curation, SMALL + 1, "elsewhere").encoder == CLIP
    asked = DiagnosisConfig(encoder=PixelsConfig(resolution=4))
    assert with_encoder(asked, curation, SMALL + 1, "elsewhere") == asked


def test_renderings_are_found_by_the_names_of_real_images(tmp_path: Path) -> None:
    """All but those of one class have a rendering, which is the image itself; then none of another set."""
    reference = Reference.open(str(write(tmp_path / "real", per_class(digits(), 0, 10))), tmp_path / "cache", Reporter())
    (draw,) = reference.draws("all", EvaluationConfig())
    rendered = write(tmp_path / "rendered", per_class(digits(), 0, 10))
    shutil.rmtree(rendered / "9")
    found = Renderings.given(str(rendered), reference, draw, tmp_path / "cache", Reading())
    assert np.array_equal(found.row_N < 0, draw.fit.label_N == 9)
    config = with_encoder(DiagnosisConfig(), CurationConfig(), 8, "elsewhere")
    curation = CurationConfig(cache=str(tmp_path / "cache"))
    table = Table.open(str(rendered), tmp_path / "cache")
    pool = Pool(table.collections[0], Images.of(table, reference.classes, is_real=False))
    arms = arm_images_of(reference, draw, pool, found, config=config, curation=curation)
    assert arms.facts.compared == pytest.approx(0.9)
    assert arms.facts.recognised == 1
    of_each = {"real": 80, "resampled": 80, "rendered": 72, "rendered-resampled": 72, "random": 90, "label-filtered": 90, "repeated": 90}
    assert {name: len(images) for name, images in arms.images.items()} == of_each
    assert set(arms.images["rendered"].sha256_N) == set(draw.fit.sha256_N[draw.fit.label_N != 9])
    for image in [*rendered.rglob("*.png")]:
        image.rename(image.with_name(f"other-{image.name}"))
    with pytest.raises(RequestError, match="0% of the real images have a rendering of the same name"):
        Renderings.given(str(rendered), reference, draw, tmp_path / "cache-of-others", Reading())
