"""Fixtures: a small recipe over the built-in generator, folders compared by bytes, the command line in process, an S3
server."""

from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "recipes" / "digits.yaml"

# Children are forked from a server that has imported torch once; each starts in milliseconds and dies alone.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.children"])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files whose tests take long come first, so that at the end no worker has one before it while others wait."""
    seconds: Counter[Path] = Counter()
    for item in items:
        if item.get_closest_marker("slow"):
            limit = item.get_closest_marker("timeout")
            seconds[item.path] += limit.args[0] if limit else 60
    items.sort(key=lambda item: -seconds[item.path])


def small(out: object, total: int = 40, per_shard: int = 10, **sets: object) -> list[str]:
    """`--set` values for a run of seconds; keyword names use `__` for the dot."""
    chosen: dict[str, object] = {
        "output.path": out,
        "count": f"{{total: {total}}}",
        "output.samples_per_shard": per_shard,
        "execution.threads": 1,
        "execution.batch": 8,
        "sampling.steps": 4,
    }
    chosen |= {name.replace("__", "."): value for name, value in sets.items()}
    return [f"{name}={value}" for name, value in chosen.items()]


def files_of(folder: Path) -> dict[str, str]:
    """SHA-256 by name of every file of a dataset folder, telemetry left out; hidden files count, so litter shows."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and "_log" not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


@pytest.fixture(autouse=True, scope="session")
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test indexes or fits lands in the user's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SYNTHFORGE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@dataclass
class Ran:
    """What one command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Ran]:
    """Run a `synthforge` command in this process."""

    def run(*arguments: object) -> Ran:
        from synthforge.cli import main as cli

        monkeypatch.setattr(sys, "argv", ["synthforge", *map(str, arguments)])
        out, err, status = io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as leaving:
                status = int(leaving.code or 0)
        return Ran(status, out.getvalue(), err.getvalue())

    return run


@pytest.fixture
def sets_for() -> Callable[..., list[str]]:
    return small


def child(function: Callable[..., Any], *arguments: Any) -> Any:
    """A forked child that will run a function, with today's address of the S3 server in its environment."""
    from tests import children

    process = FORKS.Process(
        target=children.with_environment, args=({k: v for k, v in os.environ.items() if k.startswith("AWS_")}, function, arguments)
    )
    process.start()
    return process


def in_child(function: Callable[..., Any], *arguments: Any, kill_after: float | None = None) -> int:
    """Run a function in a forked child; its exit code, negative if a signal ended it."""
    process = child(function, *arguments)
    if kill_after is not None:
        process.join(kill_after)
        if process.is_alive():
            process.kill()
    process.join()
    return int(process.exitcode)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real server that speaks the S3 protocol (moto), on loopback; its address."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    address = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        raise RuntimeError("the S3 server did not start")
    yield address
    server.terminate()
    server.wait()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """A fresh bucket on the S3 server, as `s3://bucket`; credentials and address stand in the environment."""
    import fsspec

    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"b{hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]}"
    fsspec.filesystem("s3", endpoint_url=s3_server).mkdir(bucket)
    yield f"s3://{bucket}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def s3_files(address: str) -> dict[str, str]:
    """SHA-256 by name of a dataset folder on S3, telemetry left out."""
    import fsspec

    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False)
    root = address.removeprefix("s3://")
    names = [name for name in fs.find(root) if "/_log/" not in name]
    return {name.removeprefix(f"{root}/"): hashlib.sha256(fs.cat_file(name)).hexdigest() for name in names}


def brief(out: object, **changes: object) -> list[str]:
    """A run of three shards, for tests that make it many times."""
    return small(out, total=24, per_shard=8, **changes)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of a `brief` run that nothing disturbed."""
    from tests import children

    out = tmp_path_factory.mktemp("undisturbed")
    assert in_child(children.run, str(DIGITS), brief(out)) == 0
    return files_of(out / "pool")
