"""`curate` from end to end: bytes, decisions, several pools, kills, other settings, other people's pools, and mistakes
in words."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import webdataset as wds

from synthforge.curation.request import CurationRequest
from synthforge.curation.run import curate
from synthforge.data.audit import verify
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import encode
from synthforge.errors import DatasetError, RequestError
from synthforge.generation.run import generate
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from tests.conftest import DIGITS, Ran, files_of, in_child, s3_files
from tests.curation.planted import REFERENCE, Made, curated, decisions, images_of, noisy, real, write_tar

SMALL = ["selection.size.per_class=10"]
Cli = Callable[..., Ran]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 images in two shards."""
    out = tmp_path_factory.mktemp("pool")
    sets = [f"output.path={out}", "count={total: 300}", "output.samples_per_shard=200", "execution.threads=1"]
    return Path(generate(load_recipe(DIGITS, sets)).folder)


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SYNTHFORGE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_bytes_are_the_pools_and_every_image_has_a_decision(pool: Path, tmp_path: Path) -> None:
    result = curated(tmp_path, pool, sets=SMALL)
    assert result.kept == 100 and {report.kept for report in result.per_class.values()} == {10}
    ours, theirs = DatasetFolder.open(result.folder), DatasetFolder.open(str(pool))
    rows = decisions(result)
    assert Counter(row["key"] for row in rows) == Counter(f"{index:09d}" for index in range(300))
    for row in rows:
        assert row["kept"] == (row["reason"] is None) == (row["rank"] is not None)
        if row["kept"]:
            assert ours.sample(str(row["curated_key"]))[1] == theirs.sample(str(row["key"]))[1]
    assert verify(ours).problems == [] and ours.completion() is not None
    assert ours.manifest.parents and ours.manifest.kind == "curated"
    gap = json.loads((Path(result.folder) / "gap.json").read_text())
    assert gap["gap"]["metrics"]["mmd"]["after"]["value"] is not None and gap["sentence"] == result.sentence


def test_a_prefix_of_the_set_is_a_smaller_selection(pool: Path, tmp_path: Path) -> None:
    curated(tmp_path, pool, sets=["selection.size.per_class=4"], out="few")
    curated(tmp_path, pool, sets=SMALL, out="more")

    def keys(folder: str) -> list[str]:
        dataset = DatasetFolder.open(str(tmp_path / folder))
        return [key for shard in dataset.shards() for key in dataset.table(shard).column("key").to_pylist()]

    assert keys("more")[:40] == keys("few")


def test_two_pools_with_equal_keys(pool: Path, tmp_path: Path) -> None:
    """The second one is noise, and hardly any of it is kept."""
    made = images_of(pool)
    made.images = np.random.default_rng(0).integers(0, 256, made.images.shape, np.uint8)
    other = write_tar(tmp_path / "noise.tar", made)
    copied = shutil.copytree(pool, tmp_path / "run" / "pool")
    result = curated(tmp_path, copied, other, sets=SMALL)
    rows = decisions(result)
    assert len(rows) == 600 and len({(row["pool"], row["key"]) for row in rows}) == 600
    kept = [row for row in rows if row["kept"]]
    assert len({row["curated_key"] for row in kept}) == len(kept) == 100
    assert sum(row["pool"] == "run" for row in kept) >= 90
    ours = DatasetFolder.open(result.folder)
    assert all(ours.sample(str(row["curated_key"]))[0]["class"] == row["class"] for row in kept)


def test_killed_and_run_again_is_the_same(pool: Path, tmp_path: Path) -> None:
    undisturbed = curated(tmp_path, pool, sets=[*SMALL, "samples_per_shard=20"])
    for kill_after in (0.5, 4.0, 8.0, 9.0):
        in_child(_curate, tmp_path, pool, kill_after=kill_after)
    _curate(tmp_path, pool)
    assert files_of(Path(undisturbed.folder)) == files_of(tmp_path / "again")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("train-*")}
    _curate(tmp_path, pool)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "again").glob("train-*")}


def _curate(tmp_path: Path, pool: Path) -> None:
    curated(tmp_path, pool, sets=[*SMALL, "samples_per_shard=20"], out="again")


def test_other_settings_need_reselect(pool: Path, tmp_path: Path) -> None:
    curated(tmp_path, pool, sets=SMALL)
    other = config_from_sets(CurationConfig, ["selection.method=random", "trials.check=false", *SMALL])
    with pytest.raises(RequestError, match="--reselect"):
        curate(CurationRequest([str(pool)], REFERENCE, str(tmp_path / "curated"), other))
    result = curate(CurationRequest([str(pool)], REFERENCE, str(tmp_path / "curated"), other), reselect=True)
    assert result.method == "random" and verify(DatasetFolder.open(result.folder)).problems == []
    shutil.copytree(pool, tmp_path / "other-pool")
    with pytest.raises(RequestError, match="kind pool"):
        curate(CurationRequest([str(pool)], REFERENCE, str(tmp_path / "other-pool"), other), reselect=True)


def test_on_s3_it_is_the_same_set(pool: Path, tmp_path: Path, s3: str) -> None:
    import fsspec

    fsspec.filesystem("s3").put(str(pool), f"{s3.removeprefix('s3://')}/pool", recursive=True)
    config = config_from_sets(CurationConfig, ["selection.method=mmd", "trials.check=false", *SMALL])
    remote = curate(CurationRequest([f"{s3}/pool"], REFERENCE, f"{s3}/curated", config))
    local = curate(CurationRequest([str(pool)], REFERENCE, str(tmp_path / "curated"), config))
    assert remote.digest == local.digest and remote.contact_sheet is None
    there, here = s3_files(remote.folder), files_of(Path(local.folder))
    del there["decisions.parquet"], here["decisions.parquet"]  # names the pool after its address
    assert there == here
    with fsspec.open(f"{remote.folder}/decisions.parquet") as file:
        assert pq.read_table(file).drop(["pool"]).to_pylist() == [
            {name: value for name, value in row.items() if name != "pool"} for row in decisions(local)
        ]
    assert curate(CurationRequest([f"{s3}/pool"], REFERENCE, f"{s3}/curated", config)).kept == 100
    with pytest.raises(RequestError, match="which is only read"):
        curate(CurationRequest([f"{s3}/pool"], REFERENCE, f"{s3}/pool/curated", config))


def test_inputs_are_never_written_to(pool: Path, tmp_path: Path) -> None:
    before = files_of(pool)
    for out in (pool, pool / "curated", pool.parent):
        with pytest.raises(RequestError, match="which is only read"):
            curate(CurationRequest([str(pool)], REFERENCE, str(out), config_from_sets(CurationConfig, SMALL)), reselect=True)
    assert files_of(pool) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "gap.json").write_text("{}")
    with pytest.raises(RequestError, match=r"holds gap\.json but no dataset\.json"):
        curate(CurationRequest([str(pool)], REFERENCE, str(tmp_path / "mine"), config_from_sets(CurationConfig, SMALL)))


def test_what_is_refused_leaves_the_old_set(pool: Path, tmp_path: Path) -> None:
    result = curated(tmp_path, pool, sets=SMALL)
    before = files_of(Path(result.folder))
    made = images_of(pool)
    folder = tmp_path / "jpegs" / "3"
    folder.mkdir(parents=True)
    for row in np.flatnonzero(made.labels == 3):
        (folder / f"{row}.jpeg").write_bytes(encode(made.images[row], "jpg", 95, marking=False))
    config = config_from_sets(CurationConfig, SMALL)
    with pytest.raises(RequestError, match=r"300 png .* and 30 jpg"):
        curate(CurationRequest([str(pool), str(tmp_path / "jpegs")], REFERENCE, result.folder, config), reselect=True)
    for quota, words in (("{a: 1}", "class 'a' is not in"), ("{3: 0}", "asks for no image")):
        config = config_from_sets(CurationConfig, [f"selection.size={{quota: {quota}}}"])
        with pytest.raises(RequestError, match=words):
            curate(CurationRequest([str(pool)], REFERENCE, result.folder, config), reselect=True)
    assert files_of(Path(result.folder)) == before
    alone = curated(tmp_path, tmp_path / "jpegs", sets=["selection.size.per_class=5"], out="alone")
    assert alone.kept == 5 and DatasetFolder.open(alone.folder).manifest.image_format == "jpg"


def test_names_of_pools_stay_apart(pool: Path, tmp_path: Path) -> None:
    """Two of one name, and one that has the name that a second one would get; keys too long for a tar."""
    made = images_of(pool)
    pools = [write_tar(tmp_path / place / "a.tar", made) for place in ("x", "y")] + [write_tar(tmp_path / "z" / "a_2.tar", made)]
    folder = tmp_path / "long" / "3"
    folder.mkdir(parents=True)
    for row in np.flatnonzero(made.labels == 3):
        (folder / f"{'n' * 84}{row}.png").write_bytes(encode(noisy(made.images[row], 40), "png", 100, marking=False))
    result = curated(tmp_path, pools[0], pools[2], pools[1], tmp_path / "long", sets=["selection.size.quota={3: 40}"])
    rows = decisions(result)
    kept = [str(row["curated_key"]) for row in rows if row["kept"]]
    assert len(kept) == len(set(kept)) == 40 and max(map(len, kept)) <= 90 and len({row["pool"] for row in rows}) == 4
    assert verify(DatasetFolder.open(result.folder)).problems == []


def test_a_small_reference_does_not_empty_the_pool(pool: Path, tmp_path: Path) -> None:
    """Three images of each class: no validation part, and no class can have most of ten votes."""
    source = real()
    for number in range(10):
        folder = tmp_path / "few" / str(number)
        folder.mkdir(parents=True)
        for row in np.flatnonzero(source.labels == number)[:3]:
            (folder / f"{row}.png").write_bytes(encode(source.images[row], "png", 100, marking=False))
    models = ["encoder={kind: open_clip}", "metric_encoder={kind: fitted, model: 'builtin:digits/judge'}"]
    result = curated(tmp_path, pool, sets=[*SMALL, *models, "trials.check=true"], reference=str(tmp_path / "few"))
    assert result.kept == 100 and result.training is None and any("no validation part" in note for note in result.notes)
    blank = np.zeros((8, 8, 1), np.uint8)
    (tmp_path / "few" / "0" / "blank.png").write_bytes(encode(blank, "png", 100, marking=False))
    with pytest.raises(RequestError, match="blank"):
        curated(tmp_path, pool, sets=[*SMALL, *models], reference=str(tmp_path / "few"), out="blank")


def test_weights_instead_of_a_subset(pool: Path, tmp_path: Path) -> None:
    result = curated(tmp_path, pool, sets=["selection.weights=true"])
    rows = [row for row in decisions(result) if row["kept"]]
    weights = np.array([row["weight"] for row in rows])
    assert len(rows) > 250 and 0.9 < weights.mean() < 1.1 and weights.std() > 0


def test_a_pool_by_webdataset_with_faults(pool: Path, tmp_path: Path) -> None:
    """A torn tar, a missing label, an unknown class, a broken image: nothing stops, and each is told."""
    made = images_of(pool)
    with wds.ShardWriter(str(tmp_path / "wds-%06d.tar"), maxcount=150, verbose=0) as writer:
        for row, (image, label) in enumerate(zip(made.images, made.labels, strict=True)):
            sample = {"__key__": f"s{row:04d}", "png": image[:, :, 0], "cls": int(label)}
            if row == 3:
                del sample["cls"]
            if row == 4:
                sample["cls"] = 17
            writer.write(sample)
    with tarfile.open(tmp_path / "wds-000000.tar", "a") as tar:
        for name, data in (("broken.png", b"no image"), ("broken.cls", b"3")):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    torn = tmp_path / "wds-000001.tar"
    torn.write_bytes(torn.read_bytes()[: torn.stat().st_size // 2])
    names = [str(number) for number in range(18)]
    result = curated(tmp_path, tmp_path / "wds-{000000..000001}.tar", sets=["selection.size.per_class=5", f"classes={json.dumps(names)}"])
    assert result.kept == 50
    reasons = Counter(row["reason"] for row in decisions(result))
    assert reasons["no label"] == 1 and reasons["class unknown to the reference"] == 1
    assert any("torn" in note or "wds-000001" in note for note in result.notes), result.notes
    assert sum(count for reason, count in reasons.items() if reason and "not a readable image" in str(reason)) == 1


def test_a_class_with_too_few_says_so(pool: Path, tmp_path: Path) -> None:
    result = curated(tmp_path, pool, sets=["selection.size.per_class=100"])
    assert any("class 3: 100 asked" in note for note in result.notes)
    assert result.per_class["3"].kept == result.per_class["3"].passed


def test_a_pool_of_real_images_is_at_the_floor(tmp_path: Path) -> None:
    """Other images of the same writers; fit and validation part are of different ones, which the gap does see."""
    made = real("fit")
    order = np.random.default_rng(0).permutation(len(made.images))
    pool, reference = (
        write_tar(tmp_path / f"{name}.tar", Made(made.images[rows], made.labels[rows]))
        for name, rows in (("pool", order[::2]), ("real", order[1::2]))
    )
    sets = [*SMALL, "encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}"]
    found = curated(tmp_path, pool, sets=sets, reference=str(reference)).gap.metrics["mmd"]
    assert found.before.value is not None and found.floor.low is not None and found.floor.high is not None
    assert found.floor.low <= found.before.value <= found.floor.high


def test_the_judge_is_not_the_encoder(pool: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is the same model as the encoder"):
        curated(tmp_path, pool, sets=["metric_encoder={kind: open_clip}", "encoder={kind: open_clip}"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("{pool}",), "--real REAL and --out FOLDER"),
        (("{pool}", "recipe.yaml"), "one recipe, or pools"),
        (("{pool}", "--real", "nowhere", "--out", "{out}"), "nowhere"),
        (("nowhere", "--real", REFERENCE, "--out", "{out}"), "nowhere"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "selection.methd=mmd"), "did you mean 'method'"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "encoder={kind: open_clip, model: ViT-B-33}"), "ViT-B-32"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "selection.size={quota: {x: 3}}"), "class 'x'"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "cache=/dev/null/features"), "the setting `cache`"),
        (("{pool}", "--real", REFERENCE, "--out", "/dev/null/curated"), "/dev/null/curated"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "device=cuda"), "device: cuda is not on this machine"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "cache={pool}/cache"), "choose another folder for the cached features"),
        (("", "--real", REFERENCE, "--out", "{out}"), "an address is empty"),
        (("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "selection={weights: true, size: {ratio: 2}}"), "give one of the two"),
        (
            ("{pool}", "--real", REFERENCE, "--out", "{out}", "--set", "encoder={kind: pixels}", "--set", "gates.content.on=true"),
            "an encoder with texts",
        ),
    ],
)
def test_mistakes_are_one_line(cli: Cli, pool: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    ran = cli("curate", *(argument.replace("{pool}", str(pool)).replace("{out}", str(tmp_path / "out")) for argument in arguments), "-q")
    assert ran.status == 2 and words in ran.err and "Traceback" not in ran.err, ran.err
    assert len(ran.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_labels_are_numbered_in_the_order_of_the_reference_and_that_is_said(pool: Path, tmp_path: Path) -> None:
    made = real("fit")
    reference = tmp_path / "real"
    for row, (image, label) in enumerate(zip(made.images, made.labels.tolist(), strict=True)):
        if label > 0:
            (reference / str(label)).mkdir(parents=True, exist_ok=True)
            (reference / str(label) / f"{row}.png").write_bytes(encode(image, "png", 100, marking=False))
    sets = [*SMALL, "encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}"]
    result = curated(tmp_path, pool, sets=sets, reference=str(reference))
    ours = DatasetFolder.open(result.folder)
    assert ours.manifest.classes == [*"1234567890"] and result.kept == 90
    assert any("labels are numbered in the order of the reference (0 1, 1 2, 2 3, ...)" in note for note in result.notes)
    for row in decisions(result):
        assert (row["reason"] == "class unknown to the reference") == (row["class"] == "0")
        if row["kept"]:
            assert ours.sample(str(row["curated_key"]))[0]["class_index"] == int(str(row["class"])) - 1


def test_a_broken_real_image_is_told_before_the_pool_is_embedded(pool: Path, tmp_path: Path) -> None:
    reference = tmp_path / "real"
    for row, label in enumerate("0011223344"):
        (reference / label).mkdir(parents=True, exist_ok=True)
        (reference / label / f"{row}.png").write_bytes(encode(real().images[row], "png", 100, marking=False) if row else b"")
    sets = [*SMALL, "encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}", f"cache={tmp_path / 'cache'}"]
    with pytest.raises(DatasetError, match="remove or replace it"):
        curated(tmp_path, pool, sets=sets, reference=str(reference))
    assert len(list((tmp_path / "cache").rglob("*.npy"))) == 2 and not (tmp_path / "curated").exists()


def test_where_everything_is_kept_nothing_was_chosen(cli: Cli, pool: Path, tmp_path: Path) -> None:
    options = [part for text in ("selection.size.per_class=1000", "trials.images=64") for part in ("--set", text)]
    ran = cli("curate", str(pool), "--real", REFERENCE, "--out", str(tmp_path / "all"), *options, "--json")
    assert ran.status == 0 and ran.json["training"] is None, ran.err
    assert "nothing was chosen" in ran.json["sentence"].lower() and "Training" not in ran.json["sentence"]


def test_several_processes_embed_the_same(pool: Path, tmp_path: Path) -> None:
    """Each with a cache of its own, so that all is embedded anew."""
    one, two = (
        curated(tmp_path, pool, sets=[*SMALL, f"workers={workers}", f"cache={tmp_path}/cache-{workers}"], out=f"by-{workers}")
        for workers in (1, 2)
    )
    assert files_of(Path(one.folder)) == files_of(Path(two.folder))


def test_the_command_with_a_recipe(cli: Cli, pool: Path) -> None:
    run = pool.parent
    sets = [
        f"output.path={run}",
        "curation.trials.images=640",
        "curation.trials.seeds=1",
        "curation.trials.check=true",
        "curation.selection.size.per_class=8",
        "curation.selection.method=auto",
    ]
    options = [part for text in sets for part in ("--set", text)]
    ran = cli("curate", DIGITS, *options, "--json")
    assert ran.status == 0, ran.err
    assert ran.json["kept"] == 80 and ran.json["training"]["kept"]["seeds"] == 1 and set(ran.json["trials"]) >= {"mmd", "random"}
    assert (run / "curated" / "decisions.parquet").exists() and (run / "curated-sheet.png").exists()
    shown = cli("curate", DIGITS, *options)
    assert "other real images" in shown.out and "Training" in shown.out
