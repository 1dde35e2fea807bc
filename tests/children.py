"""What tests run in forked children: generating, with a kill at an exact moment. Imported once by the fork server."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import aiobotocore.httpsession  # noqa: F401 - what would otherwise be imported in each child
import diffusers.schedulers.scheduling_edm_dpmsolver_multistep  # noqa: F401
import pandas as pd  # noqa: F401
import pyarrow.parquet  # noqa: F401
import s3fs
import torch

import synthforge.generation.engine
import synthforge.generators.pixel.generator
from synthforge.data.layout import Shard
from synthforge.errors import ShardFailed, SynthforgeError
from synthforge.executors.protocol import Place
from synthforge.generation.run import generate
from synthforge.generation.work import ShardStream, ShardWork
from synthforge.recipe.load import load_recipe

gc.freeze()  # what is imported stays: children look through none of it for garbage, and share its memory

CHANGES = {"os.link", "os.remove", "os.rename", "os.mkdir", "os.truncate"}
"""Audit events of system calls that change a folder, besides opening a file for writing."""


def run(recipe: str, sets: list[str], options: dict[str, object] | None = None, spoil: int = 0) -> None:
    """Generate; leaves with the error's exit status. `spoil` is added to every pixel, to play a writer whose pixels
    differ."""
    torch.set_num_threads(1)
    if spoil:
        original = synthforge.generators.pixel.generator.PixelGenerator.sample

        def spoiled(self: object, batch: object) -> object:
            pixels, codes = original(self, batch)  # type: ignore[arg-type]
            return pixels // 2 + spoil, codes

        synthforge.generators.pixel.generator.PixelGenerator.sample = spoiled  # type: ignore[assignment, method-assign]
    try:
        result = generate(load_recipe(recipe, sets), **(options or {}))  # type: ignore[arg-type]
    except SynthforgeError as error:
        print(error, file=sys.stderr)
        os._exit(error.exit_status)
    os._exit(0 if result.is_complete else 1)


def run_and_die(
    recipe: str, sets: list[str], folder: str, at: int, count_file: str | None = None, options: dict[str, object] | None = None
) -> None:
    """Generate, and be killed just before the change number `at` (from 1) below `folder`; 0 only counts the changes."""
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == "open":
            path, _, flags = (*arguments, None, None, None)[:3]
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)
            if not writes or not isinstance(path, (str, bytes, os.PathLike)):
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not str(path).startswith(folder) or "/_log" in str(path):
            return
        seen += 1
        if count_file is not None:
            Path(count_file).write_text(str(seen))
        if seen == at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    run(recipe, sets, options)


def run_and_die_on_s3(recipe: str, sets: list[str], at: int, count_file: str | None = None) -> None:
    """Generate on S3, and be killed just before the request number `at` (from 1) that changes the store; 0 only counts
    them.

    Killed before a request that only reads, it would leave the store as before the next one that does not.
    """
    seen = 0
    original = s3fs.S3FileSystem._call_s3

    async def counted(self: object, method: str, *arguments: object, **named: object) -> object:
        nonlocal seen
        if not method.startswith(("get_", "head_", "list_")):
            seen += 1
            if count_file is not None:
                Path(count_file).write_text(str(seen))
            if seen == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return await original(self, method, *arguments, **named)

    s3fs.S3FileSystem._call_s3 = counted
    run(recipe, sets)


def fit(data: str, out: str, sets: list[str], die_at_check: int = 0) -> None:
    """Fit, and be killed right after the check number `die_at_check` was saved; 0 for never."""
    from synthforge.generators.pixel.config import PixelFitConfig
    from synthforge.generators.pixel.fit import fit as fit_model
    from synthforge.recipe.load import config_from_sets
    from synthforge.training.loop import TrainingLoop

    torch.set_num_threads(1)
    saves = 0
    original = TrainingLoop.save

    def save(self: TrainingLoop) -> None:
        nonlocal saves
        original(self)
        saves += 1
        if saves == die_at_check:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainingLoop.save = save  # type: ignore[method-assign]
    fit_model(data, out, config_from_sets(PixelFitConfig, sets))
    os._exit(0)


def run_blind(recipe: str, sets: list[str], spoil: int) -> None:
    """Generate without looking at other writers' heartbeats, so that every shard is made twice."""
    from synthforge.data.heartbeats import Heartbeat

    Heartbeat.others = lambda self: []  # type: ignore[method-assign]
    run(recipe, sets, None, spoil)


def with_environment(environment: dict[str, str], function: Callable[..., None], arguments: tuple[object, ...]) -> None:
    """Call a function after setting environment variables: the fork server has its own, from when it was started."""
    os.environ.update(environment)
    function(*arguments)


def hold_a_heartbeat(folder: str, stop: str) -> None:
    """Play a live writer until the file `stop` appears."""
    from synthforge.data.heartbeats import Heartbeat
    from synthforge.data.storage import Folder

    with Heartbeat(Folder(folder)):
        while not Path(stop).exists():
            time.sleep(0.02)


class FaultyWork(ShardWork):
    """ShardWork with one shard that goes wrong, as the environment says: FAULT=KIND:SHARD:TIMES, counted in the folder
    FAULTS."""

    def open(self, place: Place) -> ShardStream:
        from synthforge.generation.engine import Engine

        kind, index, times = os.environ["FAULT"].split(":")
        original = Engine._make

        def faulty(engine: Engine, shard: Shard, *rest: object) -> object:
            if shard.index == int(index):
                marks = Path(os.environ["FAULTS"])
                if len(list(marks.iterdir())) < int(times):
                    (marks / f"{os.getpid()}-{time.monotonic_ns()}").touch()
                    if kind == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    if kind == "hang":
                        time.sleep(3600)
                    if kind == "bug":
                        raise ZeroDivisionError("chosen")
                    raise ShardFailed(f"{shard.stem}: chosen")
            return original(engine, shard, *rest)  # type: ignore[arg-type]

        Engine._make = faulty  # type: ignore[assignment, method-assign]
        return super().open(place)
