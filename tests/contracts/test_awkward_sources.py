"""Awkward images and names in every form in which a set may come: the same images, labels, parts and number, and the
same error for what can't be read. `test_sources` does this for plain images and every verb."""

from __future__ import annotations

import io
import json
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.data.folder import import_shard
from synthforge.data.image_table import Table
from synthforge.data.images import EXTENSIONS, Uint8, decode, format_of
from synthforge.data.layout import Manifest, Segment, key_of
from synthforge.data.opening import open_collection
from synthforge.data.read_config import Reading
from synthforge.data.reading import read_labelled
from synthforge.data.storage import Folder
from synthforge.data.tars import EncodedSample, write_tar
from synthforge.errors import DatasetError
from synthforge.evaluation.sets import Images, SetReader, write_set
from synthforge.evaluation.trainer.loader import decoded
from synthforge.generation.plan import Plan
from synthforge.generation.run import generate
from synthforge.generators.pixel.config import PixelFitConfig
from synthforge.generators.pixel.fit import fit
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from synthforge.stages import _Run
from tests.conftest import DIGITS, small
from tests.data.loaders import NAMES
from tests.evaluation.sets import QUICK

Labelled = Sequence[tuple[str, bytes]]
"""Class and image file of each image."""

# Forms: each writes images to a place


def dataset_folder(place: Path | str, images: Labelled) -> None:
    classes = list(dict.fromkeys(name for name, _ in images))
    segment = Segment(first_sample=0, num_samples=len(images), first_shard=0, samples_per_shard=len(images))
    extension = format_of(images[0][1]) or "png"
    manifest = Manifest(
        kind="real", classes=classes, image_format=extension, plan_digest="real", recipe={}, generator=None, segment=segment, parts={}
    )
    samples = [
        EncodedSample(key_of(n), data, extension, classes.index(name), name, {"class": name}) for n, (name, data) in enumerate(images)
    ]
    import_shard(Folder(str(place)), manifest, lambda path: write_tar(path, samples))


def image_folder(place: Path, images: Labelled) -> None:
    for number, (name, data) in enumerate(images):
        (place / name).mkdir(parents=True, exist_ok=True)
        (place / name / f"{number:03d}.{format_of(data) or 'jpg'}").write_bytes(data)


def webdataset(place: Path, images: Labelled, mode: str = "w", suffix: str = "tar") -> None:
    place.mkdir()
    with tarfile.open(place / f"set.{suffix}", mode) as tar:  # type: ignore[call-overload]
        for number, (name, data) in enumerate(images):
            for extension, content in ((format_of(data) or "jpg", data), ("cls", name.encode())):
                member = tarfile.TarInfo(f"{number:03d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def compressed(place: Path, images: Labelled) -> None:
    webdataset(place, images, "w:gz", "tar.gz")


def img2dataset(place: Path, images: Labelled) -> None:
    """As `img2dataset --encode_format=... --save_additional_columns=["label"]` writes it."""
    place.mkdir()
    with tarfile.open(place / "00000.tar", "w") as tar:
        for number, (name, data) in enumerate(images):
            record = json.dumps({"label": name, "caption": "a photo", "status": "success"}).encode()
            for extension, content in ((format_of(data) or "jpg", data), ("json", record), ("txt", b"a photo")):
                member = tarfile.TarInfo(f"{number:09d}.{extension}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    (place / "00000_stats.json").write_text("{}")


def _dataset(images: Labelled) -> datasets.Dataset:
    classes = list(dict.fromkeys(name for name, _ in images))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=classes)})
    columns = {"image": [{"bytes": data, "path": None} for _, data in images], "label": [classes.index(name) for name, _ in images]}
    return datasets.Dataset.from_dict(columns, features=features)


def save_to_disk(place: Path, images: Labelled) -> None:
    _dataset(images).save_to_disk(place)


def parquet(place: Path, images: Labelled) -> None:
    place.mkdir()
    _dataset(images).to_parquet(place / "train-00000-of-00001.parquet")


def paths_in_parquet(place: Path, images: Labelled) -> None:
    image_folder(place / "files", images)
    names = [f"files/{name}/{number:03d}.{format_of(data) or 'jpg'}" for number, (name, data) in enumerate(images)]
    pq.write_table(pa.table({"image": names, "label": [name for name, _ in images]}), place / "set.parquet")


FORMS: dict[str, Callable[[Path, Images], None]] = {
    "dataset folder": dataset_folder,
    "image folder": image_folder,
    "webdataset": webdataset,
    "compressed webdataset": compressed,
    "img2dataset": img2dataset,
    "datasets on disk": save_to_disk,
    "datasets as parquet": parquet,
    "parquet with paths": paths_in_parquet,
}


# Awkward images


def _pixels(seed: int, channels: int = 3) -> Uint8:
    return np.random.default_rng(seed).integers(0, 256, (12, 10, channels), dtype=np.uint8)


def _file(image: Image.Image, image_format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def _plain(seed: int, image_format: str = "PNG", **options: Any) -> bytes:
    return _file(Image.fromarray(_pixels(seed)), image_format, **options)


def _turned(seed: int, orientation: int, **tags: Any) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for tag, value in tags.items():
        exif[int(tag[1:], 16)] = value
    return _plain(seed, "JPEG", exif=exif)


def _transparent(seed: int, mode: str) -> bytes:
    if mode == "P":
        image = Image.fromarray(_pixels(seed)).quantize(16)
        image.info["transparency"] = 3
        return _file(image, "PNG", transparency=3)
    return _file(Image.fromarray(_pixels(seed, len(mode)), mode), "PNG")


CLASSES = [*NAMES[:8], unicodedata.normalize("NFD", "é"), *NAMES[9:13], "a'b\"c"]
SETS: dict[str, list[bytes]] = {
    "jpg": [_plain(n, "JPEG") for n in range(6)],
    "turned": [_turned(n, n + 1) for n in range(8)],
    "odd tags": [_turned(0, 6, x0128="inch"), _turned(2, 9), _turned(3, 3)],
    "transparent": [_transparent(n, mode) for n, mode in enumerate(["RGBA", "LA", "P", "RGBA"])],
    "grey and deep": [_file(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG"), _file(Image.new("1", (8, 8), 1), "PNG")],
    "CMYK": [_file(Image.new("CMYK", (8, 8), (10, 200, 30, n)), "JPEG") for n in range(4)],
    "webp": [_plain(n, "WEBP") for n in range(4)],
}
OTHER_FORMATS = ("GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")
"""Formats that a dataset folder does not hold."""
DAMAGED = {
    "truncated": _plain(1, "JPEG")[:400],
    "a page in place of an image": b"<html>404</html>",
    "empty": b"",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n",
}


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def found(place: Path | str, cache: Path, **options: Any) -> Table:
    return Table.of([open_collection(str(place), cache, **options)])


def content(table: Table) -> Counter[tuple[str | None, bytes]]:
    """Class and file of each image."""
    names = table.strings("class")
    return Counter((names[row], members.image) for row, members in table.samples(np.arange(len(table))))


def in_nfc(images: Labelled) -> Counter[tuple[str, bytes]]:
    return Counter((unicodedata.normalize("NFC", name), data) for name, data in images)


def by_two(files: Sequence[bytes]) -> list[tuple[str, bytes]]:
    return [(("cat", "dog")[number % 2], data) for number, data in enumerate(files)]


def test_names_of_classes(form: str, tmp_path: Path) -> None:
    images = [(name, _plain(10 * index + number)) for index, name in enumerate(CLASSES) for number in range(5)]
    FORMS[form](tmp_path / "set", images)
    table = found(tmp_path / "set", tmp_path / "cache")
    assert content(table) == in_nfc(images)
    assert Counter(table.strings("class")[~table.fit]) == dict.fromkeys([unicodedata.normalize("NFC", name) for name in CLASSES], 1)
    assert len(set(table.keys())) == len(images)


@pytest.mark.parametrize("kind", SETS)
def test_images(form: str, kind: str, tmp_path: Path) -> None:
    images = by_two(SETS[kind])
    FORMS[form](tmp_path / "set", images)
    table = found(tmp_path / "set", tmp_path / "cache")
    assert content(table) == in_nfc(images)
    table.require_readable(np.arange(len(table)))


@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"dataset folder"}))
@pytest.mark.parametrize("image_format", OTHER_FORMATS)
def test_other_formats(form: str, image_format: str, tmp_path: Path) -> None:
    images = by_two([_plain(n, image_format) for n in range(4)])
    FORMS[form](tmp_path / "set", images)
    table = found(tmp_path / "set", tmp_path / "cache")
    assert content(table) == in_nfc(images)
    assert not set(table.strings("extension")) & set(EXTENSIONS)


@pytest.mark.parametrize("background", ["white", "black", "#ff0080"])
def test_a_background(form: str, background: str, tmp_path: Path) -> None:
    """Pixels are those that Pillow's own compositing gives."""
    images = by_two(SETS["transparent"])
    FORMS[form](tmp_path / "set", images)
    table = found(tmp_path / "set", tmp_path / "cache", reading=Reading(background=background))
    for _, members in table.samples(np.arange(len(table))):
        stored = Image.open(io.BytesIO(members.image)).convert("RGBA")
        wanted = Image.alpha_composite(Image.new("RGBA", stored.size, background), stored).convert("RGB")
        np.testing.assert_array_equal(members.pixels(3), np.asarray(wanted))


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_can_not_be_read_is_the_same_error(form: str, damage: str, tmp_path: Path) -> None:
    good = by_two([_plain(n, "JPEG") for n in range(4)])
    FORMS[form](tmp_path / "set", [*good, ("cat", DAMAGED[damage])])
    table = found(tmp_path / "set", tmp_path / "cache")
    assert len(table) == 5
    with pytest.raises(DatasetError) as wanted:
        decode(DAMAGED[damage])
    with pytest.raises(DatasetError) as raised:
        table.require_readable(np.arange(len(table)))
    assert f": {wanted.value}; remove or replace it" in str(raised.value)
    assert str(tmp_path / "set") in str(raised.value)


def test_a_remote_dataset_folder(s3: str, tmp_path: Path) -> None:
    for number, files in enumerate(SETS.values()):
        dataset_folder(f"{s3}/{number}", by_two(files))
        assert content(found(f"{s3}/{number}", tmp_path / "cache")) == in_nfc(by_two(files))


# Every verb uses this reader, and takes its settings


def two_pictures(place: Path, seed: int, num: int = 15) -> str:
    """A table whose images stand in one of two columns: `photo` is an image, `drawing` another one."""
    place.mkdir()
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(2 * num):
        name = ("cat", "dog")[number % 2]
        ramp = np.linspace(0, 120, 8, dtype=np.uint8)[:: 1 if name == "cat" else -1, None, None]
        one, other = (_file(Image.fromarray(rng.integers(0, 120, (8, 8, 3), dtype=np.uint8) + ramp), "PNG") for _ in range(2))
        rows.append({"photo": {"bytes": one, "path": None}, "drawing": {"bytes": other, "path": None}, "label": name})
    pq.write_table(pa.Table.from_pylist(rows), place / "train-00000-of-00001.parquet")
    return str(place)


SETTING = "columns.image=photo"
PIXELS = ["encoder={kind: pixels}", "metric_encoder={kind: pixels, resolution: 4}", "trials.check=false", "selection.size.per_class=4"]
QUICK_FIT = ["loop.images=64", "loop.batch=16", "loop.checks=1", "width=8", "depth=1", "threads=1"]


def _sets(texts: Sequence[str]) -> list[str]:
    return [word for text in texts for word in ("--set", text)]


def _commands(tmp_path: Path) -> dict[str, list[str]]:
    """Each verb on a set that leaves open which column has the image, as a reference, a pool or a held-out test set."""
    doubt, holdout, pool = (two_pictures(tmp_path / name, seed) for seed, name in enumerate(("doubt", "holdout", "pool")))
    few = [*QUICK, "real_per_class=[4]", "curve=[2, 4]", "trainer.steps=8", "draws=2"]
    measure = ["--synthetic", pool, "--real", doubt, "--holdout", holdout]
    return {
        "recipe new": ["recipe", "new", doubt, "--out", str(tmp_path / "r.yaml")],
        "fit": ["fit", doubt, "--out", str(tmp_path / "model"), *_sets(QUICK_FIT)],
        "curate": ["curate", pool, "--real", doubt, "--out", str(tmp_path / "curated"), *_sets(PIXELS)],
        "evaluate": ["evaluate", *measure, "--out", str(tmp_path / "e.json"), *_sets(few)],
        "diagnose": ["diagnose", *measure, "--out", str(tmp_path / "d.json"), *_sets(few)],
    }


@pytest.mark.parametrize("verb", ["recipe new", "fit", "curate", "evaluate", "diagnose"])
def test_every_verb_asks_which_column_and_takes_the_answer(verb: str, tmp_path: Path, cli: Callable[..., Any]) -> None:
    command = [*_commands(tmp_path)[verb], "--json"]
    refused = cli(*command)
    assert refused.status == 2
    assert "photo and drawing could all be the image; say which with --set columns.image=photo" in refused.json["error"]
    done = cli(*command, "--set", SETTING)
    assert done.status == 0, done.err
    counts = done.json.get("inputs") or [{"images": done.json["images_found"], "unused": done.json["unused"]}]
    assert all((one["images"], one["unused"]) == (30, {}) for one in counts)


def test_a_new_recipe_keeps_the_answer(tmp_path: Path, cli: Callable[..., Any]) -> None:
    doubt, out = two_pictures(tmp_path / "doubt", 0), tmp_path / "r.yaml"
    for builtin in ([], ["--builtin", "pixels"]):
        out.unlink(missing_ok=True)
        assert cli("recipe", "new", doubt, *builtin, "--out", str(out), "--set", SETTING, "--set", "background=black").status == 0
        recipe = load_recipe(out)
        assert (recipe.curation.columns.image, recipe.curation.background) == ("photo", "black")


def test_generate_asks_too(tmp_path: Path) -> None:
    doubt = two_pictures(tmp_path / "doubt", 0)
    guided = f"{{reference: {doubt}, strength: [0.5]}}"
    sets = [*small(tmp_path / "out", total=4), "classes={cat: {label: 0}, dog: {label: 1}}", f"sampling.real_guidance={guided}"]
    with pytest.raises(DatasetError, match="could all be the image"):
        generate(load_recipe(DIGITS, sets))
    assert generate(load_recipe(DIGITS, [*sets, f"curation.{SETTING}"])).samples == 4


# A background reaches everything that looks at pixels


def sprites(place: Path, seed: int, num: int = 20) -> str:
    """Transparent images whose shapes differ by class; their hidden colours are noise."""
    rng = np.random.default_rng(seed)
    images = []
    for number in range(2 * num):
        pixels = rng.integers(0, 256, (8, 8, 4), dtype=np.uint8)
        pixels[:, :, 3] = np.where(np.arange(8)[:, None] < 4, 255, 0) if number % 2 else np.where(np.arange(8)[None] < 4, 255, 0)
        images.append((("cat", "dog")[number % 2], _file(Image.fromarray(pixels), "PNG")))
    image_folder(place, images)
    return str(place)


@pytest.mark.parametrize("background", ["white", "black"])
def test_a_background_reaches_features_fit_and_trainings(background: str, tmp_path: Path) -> None:
    real, pool = sprites(tmp_path / "real", 0), sprites(tmp_path / "pool", 1)
    reading = Reading(background=background)
    hidden = 255 if background == "white" else 0

    sets = ["encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}", f"background={background}"]
    config = cast("CurationConfig", config_from_sets(CurationConfig, [*sets, "trials.check=false", "selection.size.per_class=4"]))
    config = config.model_copy(update={"cache": str(tmp_path / "cache")})
    result = curate(CurationRequest([pool], real, str(tmp_path / "out"), config))
    assert any(f"8 kept images are transparent. They were compared on {background}" in note for note in result.notes)
    (features,) = [path for path in (tmp_path / "cache").rglob("*.npy") if np.load(path).shape == (40, 192)][:1]
    assert (np.isclose(np.load(features), hidden / 255).mean()) > 0.4

    report = fit(
        real, tmp_path / "model", cast("PixelFitConfig", config_from_sets(PixelFitConfig, [*QUICK_FIT, f"background={background}"]))
    )
    arrays = read_labelled(real, reading=reading)["fit"].arrays(8, 3)[0]
    assert (arrays == hidden).mean() > 0.4 and report.channels == 3

    table = found(real, tmp_path / "cache", reading=reading)
    digest = write_set(tmp_path / "sets", [Images.of(table, ["cat", "dog"], is_real=True)])
    training_set = SetReader(tmp_path / "sets", tmp_path / "cache", reading).read(digest)
    images_NCHW = decoded(training_set.gather(np.arange(40)), 8, training_set.background)
    assert (images_NCHW == hidden).mean() > 0.4


def test_another_background_is_another_plan_and_another_diagnosis(tmp_path: Path) -> None:
    real = sprites(tmp_path / "real", 0)
    guided = f"{{reference: {real}, strength: [0.5]}}"
    sets = [*small(tmp_path / "out", total=4), "classes={cat: {label: 0}, dog: {label: 1}}", f"sampling.real_guidance={guided}"]
    digests = {Plan.of(load_recipe(DIGITS, [*sets, *more])).digest for more in ([], ["curation.background=black"])}
    assert len(digests) == 2
    without = {Plan.of(load_recipe(DIGITS, [*small(tmp_path / "out"), *more])).digest for more in ([], ["curation.background=black"])}
    assert len(without) == 1
    inputs = [
        _Run(load_recipe(DIGITS, [*small(tmp_path / "run"), *more]), Reporter()).diagnosis_inputs()
        for more in ([], ["curation.background=black"])
    ]
    assert inputs[0] != inputs[1]
