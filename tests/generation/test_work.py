"""Shards as work: a worker loads the model once, makes shards, and reports on each."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from synthforge.data.folder import DatasetFolder
from synthforge.data.layout import LOG
from synthforge.data.storage import Folder
from synthforge.executors.protocol import Place
from synthforge.generation.plan import Plan
from synthforge.generation.work import ShardWork, default_workers
from synthforge.progress import Counters
from synthforge.recipe.load import load_recipe
from tests.conftest import DIGITS, small


def test_work_is_sent_opened_and_makes_the_shards_it_is_given(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, small(tmp_path, total=20))
    plan = Plan.of(recipe)
    work = pickle.loads(pickle.dumps(ShardWork(recipe, plan.digests, len(plan))))
    stream = work.open(Place(0, 1))
    folder = Folder(recipe.pool_path)
    dataset = DatasetFolder.create(folder, plan.manifest(stream.describe()))
    shards, steps = list(dataset.shards()), []
    receipts = dict(stream.run(iter(shards), steps.append))
    stream.close()
    assert list(receipts) == shards
    assert all(isinstance(receipt, Counters) and receipt.images == 10 for receipt in receipts.values())
    assert sum(steps) == 20
    assert dataset.complete() is not None
    (log,) = (Path(recipe.pool_path) / LOG).glob("run-*.json")
    told = json.loads(log.read_text())
    assert told["counters"]["images"] == 20
    assert set(told["versions"]) >= {"python", "torch", "synthforge"}


def test_a_worker_without_shards_writes_nothing(tmp_path: Path) -> None:
    recipe = load_recipe(DIGITS, small(tmp_path, total=20))
    stream = ShardWork(recipe, Plan.of(recipe).digests, 20).open(Place(0, 1))
    assert list(stream.run(iter([]), lambda num: None)) == []
    stream.close()
    assert not list(tmp_path.rglob("*.json"))


def test_a_device_by_name_takes_one_worker() -> None:
    assert default_workers("cpu") == default_workers("cuda:0") == 1
