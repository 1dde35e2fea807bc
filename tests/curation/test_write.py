"""The curated folder: one writer at a time, what is replaced and what is not, repair, and labels."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from synthforge.curation import write
from synthforge.curation.request import CurationRequest
from synthforge.curation.result import CurateResult, Gap
from synthforge.curation.run import _choice, _gated
from synthforge.curation.sides import Sides
from synthforge.data import tars
from synthforge.data.audit import verify
from synthforge.data.folder import DatasetFolder
from synthforge.data.images import encode
from synthforge.data.layout import COMPLETE, MANIFEST, Manifest, digest_of, parse
from synthforge.data.storage import Folder
from synthforge.errors import RequestError, SynthforgeError, WorkError
from synthforge.generation.run import generate
from synthforge.progress import Reporter
from synthforge.recipe.curation import CurationConfig
from synthforge.recipe.load import config_from_sets, load_recipe
from tests.conftest import DIGITS, files_of, in_child, s3_files
from tests.curation.planted import REFERENCE, real

PIXELS = ["encoder={kind: pixels, resolution: 8}", "metric_encoder={kind: pixels, resolution: 4}"]


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("pool")
    sets = [f"output.path={out}", "count={total: 200}", "output.samples_per_shard=200", "execution.threads=1"]
    return Path(generate(load_recipe(DIGITS, sets)).folder)


@dataclass
class Run:
    """What `curate` handed to `write`, so that a test can write as often as it likes."""

    arguments: tuple[Any, ...]

    def write(self, place: Path, reselect: bool = False) -> None:
        self.write_to(Folder(str(place)), reselect)

    def write_to(self, folder: Folder, reselect: bool = False) -> None:
        write.write(folder, *self.arguments, reselect=reselect)

    def written(self, place: Path) -> dict[str, str]:
        """The files of an undisturbed run."""
        self.write(place)
        return files_of(place)


def _no_gap() -> Gap:
    """Of nothing."""
    counts: dict[str, Any] = dict.fromkeys(
        ("num_views", "num_real", "num_before", "num_after", "num_random", "num_bootstrap", "num_splits", "most_images"), 0
    )
    return Gap(primary="mmd", metrics={}, per_class={}, sigma=[], **counts)


def caught(pool: Path, per_class: int, reference: str = REFERENCE, method: str = "mmd") -> Run:
    """A run as far as writing, without the gap."""
    sets = [*PIXELS, f"selection.method={method}", f"selection.size.per_class={per_class}", "samples_per_shard=20"]
    request = CurationRequest([str(pool)], reference, "", config_from_sets(CurationConfig, sets))
    sides = Sides.read(request.pools, request.reference, request.config, Reporter())
    sides.load(Reporter())
    sides.embed_reference(Reporter())
    sides.embed_pool(Reporter())
    result = CurateResult(
        digest=digest_of(sides.settings),
        regime="s2r",
        method=method,
        pool=len(sides.pool),
        unusable={},
        gates=[],
        kept=10 * per_class,
        per_class={},
        gap=_no_gap(),
        sentence=f"{per_class} of each class",
        trials={},
        regions=[],
        notes=[],
    )
    return Run((_choice(_gated(sides, Reporter()), Reporter()), result, request, Reporter()))


@pytest.fixture(scope="module")
def many(pool: Path) -> Run:
    """100 images in 5 shards."""
    return caught(pool, 10)


@pytest.fixture(scope="module")
def few(pool: Path) -> Run:
    """60 others in 3 shards."""
    return caught(pool, 6, method="random")


@pytest.mark.parametrize("reselect", [False, True])
def test_one_run_writes_at_a_time(tmp_path: Path, many: Run, few: Run, monkeypatch: pytest.MonkeyPatch, reselect: bool) -> None:
    """Both were let in while the folder was empty; the one that comes second is told so and changes nothing."""
    monkeypatch.setattr(write, "_PATIENCE", 0.1)
    wanted = many.written(tmp_path / "undisturbed")
    inside, go_on = threading.Event(), threading.Event()
    write_tar = tars.write_tar

    def slow(*arguments: Any) -> None:
        inside.set()
        assert go_on.wait(60)
        write_tar(*arguments)

    monkeypatch.setattr(write, "write_tar", slow)
    first = threading.Thread(target=many.write, args=(tmp_path / "out",))
    first.start()
    try:
        assert inside.wait(60)
        with pytest.raises(RequestError, match=r"out: another curate is writing there; wait for it, or use another folder$"):
            few.write(tmp_path / "out", reselect=reselect)
    finally:
        go_on.set()
        first.join()
    assert files_of(tmp_path / "out") == wanted
    assert verify(DatasetFolder.open(str(tmp_path / "out"))).problems == []


def test_another_process_is_told_too_and_the_lock_of_a_dead_one_is_free(tmp_path: Path, many: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "_PATIENCE", 0.1)
    with write._alone(Folder(str(tmp_path / "out"))):
        assert in_child(_take, str(tmp_path / "out")) == 3
    assert in_child(_take_and_die, str(tmp_path / "out")) == -signal.SIGKILL
    many.write(tmp_path / "out")


def _take(place: str) -> None:
    write._PATIENCE = 0.1
    try:
        with write._alone(Folder(place)):
            pass
    except RequestError:
        raise SystemExit(3) from None


def _take_and_die(place: str) -> None:
    with write._alone(Folder(place)):
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_set_that_came_meanwhile_is_not_replaced(tmp_path: Path, many: Run, few: Run) -> None:
    """The folder was empty when the second run began, and holds another set when it comes to writing."""
    place = tmp_path / "out"
    before = many.written(place)
    with pytest.raises(RequestError, match="replace it with --reselect"):
        few.write(place)
    assert files_of(place) == before
    many.write(place)  # an equal run finds its own
    assert files_of(place) == before
    few.write(place, reselect=True)
    assert files_of(place) == few.written(tmp_path / "undisturbed")


def test_a_pool_that_came_meanwhile_is_not_replaced(tmp_path: Path, many: Run, pool: Path) -> None:
    shutil.copytree(pool, tmp_path / "out")
    before = files_of(tmp_path / "out")
    with pytest.raises(RequestError, match="kind pool, which is not overwritten"):
        many.write(tmp_path / "out", reselect=True)
    assert files_of(tmp_path / "out") == before


def test_a_remote_set_is_replaced_and_repaired_too(s3: str, many: Run, few: Run) -> None:
    folder = Folder(f"{s3}/curated")
    many.write_to(folder)
    with pytest.raises(RequestError, match="replace it with --reselect"):
        few.write_to(folder)
    few.write_to(folder, reselect=True)
    wanted = s3_files(folder.address)
    folder.remove("train-000001.tar")
    with pytest.raises(WorkError, match=r"train-000001.tar: is missing.*; write it again with --reselect"):
        few.write_to(folder)
    few.write_to(folder, reselect=True)
    assert s3_files(folder.address) == wanted


def test_the_lock_is_no_stranger(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "out"))
    with write._alone(folder):
        write.require_free(folder)
        assert (tmp_path / "out" / "_log" / "curate.lock").exists() and not folder.list()
    write.require_free(folder)


def _swapped(place: Path) -> None:
    for suffix in ("tar", "parquet", "json"):
        one, two = (place / f"train-00000{number}.{suffix}" for number in (0, 1))
        one.rename(place / "aside"), two.rename(one), (place / "aside").rename(two)


def _other_shard(place: Path, other: Path, *suffixes: str, as_number: int = 1) -> None:
    for suffix in ("tar", "parquet", "json"):
        (place / f"train-{as_number:06d}.{suffix}").unlink(missing_ok=True)
    for suffix in suffixes:
        shutil.copy(other / f"train-000001.{suffix}", place / f"train-{as_number:06d}.{suffix}")


def _other_classes(place: Path) -> None:
    manifest = parse(Manifest, (place / MANIFEST).read_bytes(), "")
    (place / MANIFEST).write_bytes(manifest.model_copy(update={"classes": manifest.classes[::-1]}).to_bytes())


DAMAGE: dict[str, Callable[[Path, Path], object]] = {
    "a sealed shard of another set": lambda place, other: _other_shard(place, other, "tar", "parquet", "json"),
    "an unsealed shard of another set": lambda place, other: _other_shard(place, other, "tar"),
    "one shard too many": lambda place, other: _other_shard(place, other, "tar", "parquet", "json", as_number=5),
    "shards in another order": lambda place, other: _swapped(place),
    "a tar cut short": lambda place, other: (place / "train-000002.tar").write_bytes((place / "train-000002.tar").read_bytes()[:-512]),
    "a tar gone": lambda place, other: (place / "train-000002.tar").unlink(),
    "a table gone": lambda place, other: (place / "train-000002.parquet").unlink(),
    "a damaged table": lambda place, other: (place / "train-000002.parquet").write_bytes(b"x"),
    "a damaged seal": lambda place, other: (place / "train-000002.json").write_text("{"),
    "damaged totals": lambda place, other: (place / COMPLETE).write_text("{"),
    "a manifest of other classes": lambda place, other: _other_classes(place),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_reselect_repairs_a_set_of_equal_settings(tmp_path: Path, many: Run, few: Run, damage: Callable[[Path, Path], object]) -> None:
    place = tmp_path / "out"
    few.write(tmp_path / "few")
    wanted = many.written(place)
    damage(place, tmp_path / "few")
    with pytest.raises(WorkError, match=r"does not hold the set it claims to \(.*\); write it again with --reselect$"):
        many.write(place)
    many.write(place, reselect=True)
    assert files_of(place) == wanted
    assert verify(DatasetFolder.open(str(place))).problems == []


def test_a_table_without_its_tar_is_replaced(tmp_path: Path, many: Run, few: Run) -> None:
    place = tmp_path / "out"
    few.write(tmp_path / "few")
    wanted = many.written(place)
    _other_shard(place, tmp_path / "few", "parquet")
    with pytest.raises(SynthforgeError, match="does not match its tar"):
        many.write(place)
    many.write(place, reselect=True)
    assert files_of(place) == wanted


def test_reselect_leaves_what_agrees(tmp_path: Path, many: Run) -> None:
    many.write(tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train-*")}
    (tmp_path / "out" / "train-000003.json").unlink()  # killed before the seal, which a later run makes
    many.write(tmp_path / "out", reselect=True)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("train-*")}
    assert [path.name for path in after if after[path] != before[path]] == ["train-000003.json"]
    (tmp_path / "out" / "sizes.json").write_text("{}")
    many.write(tmp_path / "out", reselect=True)
    assert files_of(tmp_path / "out") == many.written(tmp_path / "undisturbed")


def test_another_size_of_shards_is_heeded_by_reselect_alone(tmp_path: Path, many: Run) -> None:
    before = many.written(tmp_path / "out")
    choice, *others = many.arguments
    sides = choice.gated.sides
    in_50 = _like(sides, config=sides.config.model_copy(update={"samples_per_shard": 50}))
    larger = Run((_like(choice, gated=_like(choice.gated, sides=in_50)), *others))
    larger.write(tmp_path / "out")
    assert files_of(tmp_path / "out") == before
    larger.write(tmp_path / "out", reselect=True)
    assert sorted(path.name for path in (tmp_path / "out").glob("*.tar")) == ["train-000000.tar", "train-000001.tar"]


def _like(original: Any, **changes: Any) -> Any:
    """A copy with all that was read and computed, unlike `replace`."""
    copy = object.__new__(type(original))
    copy.__dict__.update({**original.__dict__, **changes})
    return copy


def test_a_tar_of_another_selection_is_work_that_failed(tmp_path: Path, many: Run, few: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a store without locks: another run's tar comes between looking and writing."""
    few.write(tmp_path / "few")
    write_tar = tars.write_tar

    def overtaken(path: Path, samples: Any) -> None:
        write_tar(path, samples)
        if not (tmp_path / "out" / "train-000001.tar").exists():
            shutil.copy(tmp_path / "few" / "train-000001.tar", tmp_path / "out" / "train-000001.tar")

    monkeypatch.setattr(write, "write_tar", overtaken)
    with pytest.raises(
        WorkError, match=r"train-000001.tar: was written from another selection; write the set again with --reselect"
    ) as error:
        many.write(tmp_path / "out")
    assert error.value.exit_status == 1


def test_a_removal_that_was_killed_leaves_a_folder_of_ours(tmp_path: Path, many: Run, few: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is still one that `curate` takes, and replaces."""
    few.write(tmp_path / "few")
    wanted = files_of(tmp_path / "few")
    many.write(tmp_path / "many")
    remove, removed = Folder.remove, 0

    class Killed(BaseException):
        pass

    def dying(self: Folder, name: str) -> None:
        nonlocal removed
        if (self.path or Path()).joinpath(name).exists():
            if removed == 0:
                raise Killed
            removed -= 1
        remove(self, name)

    num = len(wanted) + 6  # two shards of three files more
    assert len(files_of(tmp_path / "many")) == num
    for steps in (0, 1, 2, 3, 8, num - 2, num - 1):
        place = tmp_path / f"out-{steps}"
        shutil.copytree(tmp_path / "many", place)
        removed = steps
        with monkeypatch.context() as patch:
            patch.setattr(Folder, "remove", dying)
            with pytest.raises(Killed):
                few.write(place, reselect=True)
        write.require_free(Folder(str(place)))
        few.write(place, reselect=True)
        assert files_of(place) == wanted


def test_labels_follow_the_order_of_the_reference(tmp_path: Path, pool: Path) -> None:
    """Classes of the pool alone come after those of the reference."""
    source = real()
    for number in range(7, 10):
        folder = tmp_path / "real" / str(number)
        folder.mkdir(parents=True)
        for row in np.flatnonzero(source.labels == number)[:40]:
            (folder / f"{row}.png").write_bytes(encode(source.images[row], "png", 100, marking=False))
    caught(pool, 3, str(tmp_path / "real")).write(tmp_path / "out")
    ours, theirs = DatasetFolder.open(str(tmp_path / "out")), DatasetFolder.open(str(pool))
    assert ours.manifest.classes == ["7", "8", "9", "0", "1", "2", "3", "4", "5", "6"]
    rows = [row for shard in ours.shards() for row in ours.table(shard).to_pylist()]
    assert {(row["class"], row["class_index"]) for row in rows} == {("7", 0), ("8", 1), ("9", 2)}
    for row in rows:
        mine, other = ours.sample(row["key"])[1], theirs.sample(row["key"])[1]
        assert {name: mine[name] for name in mine if name != "cls"} == {name: other[name] for name in other if name != "cls"}
        assert mine["cls"] == str(row["class_index"]).encode()
    totals = json.loads((tmp_path / "out" / COMPLETE).read_text())
    assert totals["class_samples"] == {str(number): 3 if number >= 7 else 0 for number in range(10)}
