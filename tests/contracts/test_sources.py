"""One suite over every form in which real images may lie, and every verb that reads them: equal images give equal
answers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import datasets
import numpy as np
import pytest

from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.data.folder import import_shard
from synthforge.data.images import encode
from synthforge.data.layout import Manifest, Segment, key_of
from synthforge.data.reading import Sources, read_labelled
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.evaluation.request import evaluation_of
from synthforge.evaluation.run import evaluate
from synthforge.generation.run import generate
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.generators.pixel.fit import fit
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from synthforge.recipe.new import for_folder
from tests.conftest import DIGITS, small
from tests.evaluation.sets import QUICK

CLASSES = ["0", "1"]
PER_CLASS, HELD_OUT = 15, 3
"""Images of each class, and how many of them are the validation part: the last fifth."""

Image = tuple[str, bytes]
"""Class and image file."""


def made(seed: int) -> list[Image]:
    """Grey images of 8 x 8, class after class; those of one class are brighter at the top."""
    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 120, 8, dtype=np.uint8)[:, None, None]
    found = []
    for name in CLASSES:
        for _ in range(PER_CLASS):
            pixels = rng.integers(0, 120, (8, 8, 1), dtype=np.uint8) + (ramp if name == "0" else ramp[::-1])
            found.append((name, encode(pixels, "png", 95, marking=False)))
    return found


def parts_of(images: Sequence[Image]) -> dict[str, list[Image]]:
    by_class = [[image for image in images if image[0] == name] for name in CLASSES]
    fitted = [image for of_class in by_class for image in of_class[:-HELD_OUT]]
    return {"train": fitted, "validation": [image for of_class in by_class for image in of_class[-HELD_OUT:]]}


# Forms: each writes images to a place


def dataset_folder(place: Path | str, images: Sequence[Image]) -> None:
    segment = Segment(first_sample=0, num_samples=len(images), first_shard=0, samples_per_shard=len(images))
    manifest = Manifest(
        kind="real", classes=CLASSES, image_format="png", plan_digest="real", recipe={}, generator=None, segment=segment, parts={}
    )
    samples = [
        EncodedSample(key_of(number), data, "png", CLASSES.index(name), name, {"class": name}) for number, (name, data) in enumerate(images)
    ]
    import_shard(Folder(str(place)), manifest, lambda path: write_tar(path, samples))


def image_folder(place: Path, images: Sequence[Image]) -> None:
    for number, (name, data) in enumerate(images):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / f"{number:03d}.png").write_bytes(data)


def tar(path: Path, entries: Mapping[str, bytes], mode: str = "w") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:  # type: ignore[call-overload]
        for name, data in entries.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))


def webdataset(place: Path, images: Sequence[Image], mode: str = "w") -> None:
    for shard, start in enumerate(range(0, len(images), 7)):
        entries = {}
        for number, (name, data) in enumerate(images[start : start + 7], start):
            entries |= {f"{number:03d}.png": data, f"{number:03d}.cls": name.encode()}
        tar(place / f"real-{shard:02d}.tar", entries, mode)


def compressed(place: Path, images: Sequence[Image]) -> None:
    webdataset(place, images, "w:gz")


def img2dataset(place: Path, images: Sequence[Image]) -> None:
    entries = {}
    for number, (name, data) in enumerate(images):
        record = json.dumps({"label": int(name), "caption": f"a {name}", "status": "success"})
        entries |= {f"{number:09d}.png": data, f"{number:09d}.txt": b"a digit", f"{number:09d}.json": record.encode()}
    tar(place / "00000.tar", entries)
    (place / "00000_stats.json").write_text("{}")


def table(images: Sequence[Image]) -> datasets.Dataset:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CLASSES)})
    columns = {"image": [{"bytes": data, "path": None} for _, data in images], "label": [CLASSES.index(name) for name, _ in images]}
    return datasets.Dataset.from_dict(columns, features=features)


def save_to_disk(place: Path, images: Sequence[Image]) -> None:
    table(images).save_to_disk(place, num_shards=2)


def dictionary(place: Path, images: Sequence[Image]) -> None:
    datasets.DatasetDict({name: table(part) for name, part in parts_of(images).items()}).save_to_disk(place)


def parquet(place: Path, images: Sequence[Image]) -> None:
    place.mkdir()
    table(images).to_parquet(place / "train-00000-of-00001.parquet")


def in_parts(write: Callable[[Path, Sequence[Image]], None]) -> Callable[[Path, Sequence[Image]], None]:
    def written(place: Path, images: Sequence[Image]) -> None:
        for name, part in parts_of(images).items():
            write(place / name, part)

    return written


FORMS: dict[str, Callable[[Path, Sequence[Image]], None]] = {
    "dataset folder": dataset_folder,
    "image folder": image_folder,
    "image folder in parts": in_parts(image_folder),
    "webdataset": webdataset,
    "webdataset in parts": in_parts(webdataset),
    "compressed webdataset": compressed,
    "img2dataset": img2dataset,
    "datasets on disk": save_to_disk,
    "datasets on disk in parts": dictionary,
    "datasets as parquet": parquet,
}
REAL, HOLDOUT = made(0), made(1)


@pytest.fixture(params=FORMS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    FORMS[request.param](tmp_path / "real", REAL)
    return str(tmp_path / "real")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Synthetic images of the two classes."""
    return generate(load_recipe(DIGITS, [*small(tmp_path_factory.mktemp("pool")), f"classes={CLASSES}"])).folder


class Once:
    """What the first form gave, which every other one has to give too."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}

    def same(self, verb: str, answer: object) -> bool:
        return self.answers.setdefault(verb, answer) == answer


@pytest.fixture(scope="module")
def once() -> Once:
    return Once()


def test_the_same_images_are_found(source: str) -> None:
    parts, wanted = read_labelled(source), parts_of(REAL)
    for part, name in (("fit", "train"), ("validation", "validation")):
        found = parts[part]  # type: ignore[index]
        assert found.classes == CLASSES
        assert [(example.class_name, example.data) for example in found.examples] == wanted[name]
        assert len({example.key for example in found.examples}) == len({example.name for example in found.examples}) == len(wanted[name])


def test_fit(source: str, tmp_path: Path, once: Once) -> None:
    sets = ["loop.images=64", "loop.batch=16", "loop.checks=1", "width=8", "depth=1", "threads=1"]
    report = fit(source, tmp_path / "model", config_from_sets(PixelFitConfig, sets))
    assert (report.images_fitted, report.images_validation, report.classes) == (24, 6, CLASSES)
    assert once.same("fit", report.data_digest)


def test_curate_with_an_encoder_fitted_on_it(source: str, tmp_path: Path, pool: str, once: Once) -> None:
    encoder = "encoder={kind: fitted, loop: {images: 256, batch: 16, checks: 1}}"
    sets = [encoder, "metric_encoder={kind: pixels, resolution: 4}", "selection.size.per_class=5", "trials.check=false"]
    request = CurationRequest([pool], source, str(tmp_path / "curated"), config_from_sets(CurationConfig, sets))
    result = curate(request)
    assert result.kept == 10
    chosen = sorted(path.name for path in (tmp_path / "curated").glob("train-*.tar"))
    assert once.same("curate", [(tmp_path / "curated" / name).read_bytes() for name in chosen])


def test_evaluate(source: str, tmp_path: Path, pool: str, once: Once, request: pytest.FixtureRequest) -> None:
    FORMS[request.node.callspec.params["source"]](tmp_path / "holdout", HOLDOUT)
    sets = [*QUICK, "real_per_class=[4]", "curve=[2, 4]", "trainer.steps=8", "draws=2"]
    out, holdout = str(tmp_path / "evaluation.json"), str(tmp_path / "holdout")
    asked = evaluation_of(None, synthetic=[pool], real=source, holdout=holdout, arms="real", out=out, sets=sets)
    (setting,) = evaluate(asked).tables[0].settings
    assert once.same("evaluate", {name: score.accuracy for name, score in setting.arms.items()})


def test_recipe_new(source: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(for_folder(source, path).text)
    assert list(load_recipe(path, []).classes) == CLASSES
    assert f"{len(REAL)} images" in path.read_text()


def test_generate_with_real_guidance(source: str, tmp_path: Path) -> None:
    guided = f"{{reference: {source}, strength: [0.5]}}"
    sets = [*small(tmp_path / "out", total=4), f"classes={CLASSES}", f"sampling.real_guidance={guided}"]
    folder = Path(generate(load_recipe(DIGITS, sets)).folder)
    sources, fitted = Sources.read(source), {data for _, data in parts_of(REAL)["train"]}
    with tarfile.open(folder / "train-000000.tar") as file:
        records = [json.load(file.extractfile(member)) for member in file if member.name.endswith(".json")]  # type: ignore[arg-type]
    assert len(records) == 4
    assert all(sources.find(record["source"]).data in fitted for record in records)
    assert all(sources.find(record["source"]).sha256 == record["source_sha256"] for record in records)


def test_a_remote_dataset_folder_is_read_alike(s3: str, tmp_path: Path, once: Once) -> None:
    dataset_folder(f"{s3}/real", REAL)
    sets = ["loop.images=64", "loop.batch=16", "loop.checks=1", "width=8", "depth=1", "threads=1"]
    assert once.same("fit", fit(f"{s3}/real", tmp_path / "model", config_from_sets(PixelFitConfig, sets)).data_digest)
