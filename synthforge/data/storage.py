"""Files of one folder, on disk or on any store that fsspec reaches.

Everything else relies on create-only publishing: `Folder.publish` makes a whole file appear under its name.
A file that is already there stays as it is, and no reader ever sees half a file.
On disk, a finished and fsynced temporary file is hard-linked to its name. Object stores use a conditional put.
`STORES` lists what each store can do. A store without create-only publishing needs the promise of a single writer.

Not covered: real directories inside a folder (a name may only have a prefix such as `_log/`).
Not covered: multipart uploads that a killed process left on an object store; a lifecycle rule can remove them.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import importlib.resources
import os
import re
import secrets
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, cast

import fsspec
import psutil
import tenacity

from synthforge.errors import PlaceError, StorageFailed

P = ParamSpec("P")
T = TypeVar("T")

BUILTIN = "builtin:"
TEMPORARY = ".part-"
STALE_SECONDS = 24 * 3600.0
"""Temporary files of other hosts are removed once they are this old."""


@dataclass(frozen=True)
class Store:
    """Capabilities of one kind of store."""

    create_only: Literal["link", "conditional put", "no"]
    """How a file is created only if its name is free."""
    extra: str | None = None
    """The extra of this package that installs the store. None: nothing more is needed."""
    options: tuple[tuple[str, Any], ...] = ()
    """Arguments for fsspec."""


STORES: dict[str, Store] = {
    "file": Store("link"),
    "s3": Store(
        "conditional put",
        extra="s3",
        # Listings are not cached, because other writers change the folder.
        options=(("use_listings_cache", False), ("config_kwargs", {"retries": {"mode": "standard", "max_attempts": 8}})),
    ),
}
_OTHER_STORE = Store("no")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_PERMANENT = (FileExistsError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)


def resolve(address: str, base: Path | None = None) -> str:
    """Make an address absolute; raises PlaceError.

    `builtin:NAME` is a folder that ships with synthforge. Relative paths start at `base`, or at the current folder.
    """
    if "\0" in address:
        raise PlaceError(f"{address!r}: a path can't hold a null character")
    if address.startswith(BUILTIN):
        return str(importlib.resources.files("synthforge") / "assets" / address.removeprefix(BUILTIN))
    if "://" in address:
        if not address.partition("://")[2].strip("/"):
            raise PlaceError(f"{address}: names no bucket or folder; write for example s3://bucket/folder")
        return address.rstrip("/")
    return os.path.abspath(os.path.join(base or Path.cwd(), os.path.expanduser(address)))


def user_cache() -> Path:
    """The cache folder of synthforge: $SYNTHFORGE_CACHE, or a folder in this user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SYNTHFORGE_CACHE") or os.path.join(base, "synthforge"))


def _protocol(address: str) -> str:
    return address.split("://", 1)[0] if "://" in address else "file"


def _is_transient(error: BaseException) -> bool:
    """Whether another try may help. Libraries for object stores raise OSError for almost every fault."""
    if type(error).__module__.startswith("botocore"):
        return "Connect" in type(error).__name__ or "Timeout" in type(error).__name__
    return isinstance(error, (OSError, TimeoutError)) and not isinstance(error, _PERMANENT)


def _guarded(method: Callable[P, T]) -> Callable[P, T]:
    """Wrap a method of Folder: retry faults of a remote store that may pass, and give other errors in one line."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        folder = cast("Folder", args[0])
        try:
            if folder.path is not None:
                return method(*args, **kwargs)
            return tenacity.Retrying(
                retry=tenacity.retry_if_exception(_is_transient),
                wait=tenacity.wait_random_exponential(multiplier=0.2, max=10),
                stop=tenacity.stop_after_attempt(6),
                reraise=True,
            )(method, *args, **kwargs)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise as_our_error(error, folder.address) from error
        except Exception as error:
            if type(error).__module__.split(".")[0] in {"botocore", "aiobotocore", "aiohttp"}:
                raise PlaceError(f"{folder.address}: the store can't be used ({error}); check address and credentials") from error
            raise

    return call


def as_our_error(error: OSError, place: str) -> PlaceError | StorageFailed:
    """The error to raise for an error of the operating system: one line that says what to do."""
    reason = error.strerror or str(error)
    if error.errno in _FULL:
        return StorageFailed(f"{place}: disk full ({reason}); free space and run again, finished shards are kept")
    if isinstance(error, PermissionError) or error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
        return PlaceError(f"{place}: not permitted ({reason}); choose another place")
    if isinstance(error, (NotADirectoryError, IsADirectoryError, FileExistsError)):
        return PlaceError(f"{place}: {reason}; a folder is needed there")
    return StorageFailed(f"{place}: {reason}; run again to go on")


class Folder:
    """A folder of files at a local path or at any address that fsspec opens (`s3://bucket/folder`).

    Args:
        address: absolute; see `resolve`.
        single_writer: the caller promises that nobody else writes here. Then any store may be written to.
    """

    def __init__(self, address: str, single_writer: bool = False) -> None:
        self.address = address
        self.single_writer = single_writer
        self.store = STORES.get(_protocol(address), _OTHER_STORE)
        try:
            if "://" not in address:  # url_to_fs would take :: in a path for chained stores
                self._fs, self._root = fsspec.filesystem("file"), address
            else:
                self._fs, self._root = fsspec.core.url_to_fs(address, **dict(self.store.options))
        except ImportError as error:
            install = f"pip install 'synthforge[{self.store.extra}]'" if self.store.extra else f"install what fsspec asks for: {error}"
            raise PlaceError(f"{address}: this kind of store needs another package; {install}") from error
        except ValueError as error:
            raise PlaceError(f"{address}: not an address that fsspec knows ({error})") from error
        except OSError as error:
            raise PlaceError(f"{address}: can't be reached ({error}); check the address") from error
        self.path = Path(self._root) if _protocol(address) == "file" else None
        """The folder on this machine's disk. None: it is remote."""

    def where(self, name: str) -> str:
        """The full address of a file, for messages."""
        return f"{self.address}/{name}"

    def require_writable(self) -> None:
        """Check that files can be created here, before hours of work depend on it; raises PlaceError."""
        if self.store.create_only == "no" and not self.single_writer:
            raise PlaceError(
                f"{self.address}: this store has no create-only writing, so two writers could damage a shard; "
                "use a disk or S3, or promise one writer with --set output.single_writer=true"
            )
        if self.path is None:
            return self._probe()
        try:
            (self.path / "_log").mkdir(parents=True, exist_ok=True)
            probe = self._temporary("probe")
            probe.touch()
            linked = probe.with_name(probe.name + "-link")
            os.link(probe, linked)
            linked.unlink()
            probe.unlink()
        except OSError as error:
            if error.errno in _FULL or isinstance(error, (FileExistsError, NotADirectoryError)):
                raise as_our_error(error, self.address) from error
            raise PlaceError(f"{self.address}: can't be written ({error.strerror}); choose another place") from error

    @_guarded
    def _probe(self) -> None:
        """Write one small file twice: the store must accept the first and refuse the second."""
        name = f"_log/probe-{writer_name()}-{secrets.token_hex(4)}"
        try:
            self.publish(name, b"probe")
            if self.store.create_only != "no" and self.publish(name, b"probe"):
                raise PlaceError(f"{self.address}: the store ignores conditional writes, so two writers could damage a shard; use another")
            self.remove(name)
        except FileNotFoundError as error:
            raise PlaceError(f"{self.address}: no such bucket; create it, or choose another with --set output.path=ADDRESS") from error

    @_guarded
    def list(self) -> dict[str, int]:
        """Size in bytes of every file directly in the folder, by name; empty if there is no folder."""
        try:
            entries = self._fs.ls(self._root, detail=True, **({} if self.path else {"refresh": True}))
        except FileNotFoundError:
            return {}
        sizes = {str(entry["name"]).rstrip("/").rpartition("/")[2]: int(entry["size"] or 0) for entry in entries if entry["type"] == "file"}
        return {name: size for name, size in sizes.items() if not name.startswith(TEMPORARY)}

    @_guarded
    def exists(self, name: str) -> bool:
        """Whether the file is there."""
        return bool(self._fs.exists(self._join(name)))

    @_guarded
    def read(self, name: str) -> bytes:
        """The whole file; raises FileNotFoundError."""
        return bytes(self._fs.cat_file(self._join(name)))

    @_guarded
    def read_many(self, names: Sequence[str]) -> tuple[bytes, ...]:
        """Whole files, fetched together where the store can do that; raises FileNotFoundError."""
        if self.path is not None or len(names) < 2:
            return tuple(self.read(name) for name in names)
        contents = self._fs.cat([self._join(name) for name in names])
        return tuple(bytes(contents[self._join(name)]) for name in names)

    def read_or_none(self, name: str) -> bytes | None:
        """The whole file. None: there is no such file."""
        try:
            return self.read(name)
        except FileNotFoundError:
            return None

    @_guarded
    def read_range(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes from `start`; raises FileNotFoundError."""
        if length == 0:
            return b""
        data = bytes(self._fs.cat_file(self._join(name), start=start, end=start + length))
        if len(data) != length:
            raise OSError(f"{name}: got {len(data)} bytes instead of {length}")
        return data

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """The file as a local path. A remote file is downloaded to a temporary one."""
        if self.path is not None:
            yield self.path / name
            return
        with tempfile.TemporaryDirectory(prefix="synthforge-") as directory:
            target = Path(directory) / Path(name).name
            self._download(name, target)
            yield target

    @_guarded
    def _download(self, name: str, target: Path) -> None:
        self._fs.get_file(self._join(name), str(target))
        expected = int(self._fs.size(self._join(name)))
        if target.stat().st_size != expected:
            raise OSError(f"{name}: got {target.stat().st_size} bytes instead of {expected}")

    @contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A private local path to write a file to before it is published; removed afterwards."""
        try:
            path = self._temporary(name)
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)
        except (FileNotFoundError, FileExistsError):
            raise
        except OSError as error:
            raise as_our_error(error, self.address) from error

    def publish(self, name: str, content: Path | bytes) -> bool:
        """Make the whole file appear under its name. Returns False, and changes nothing, if the name is taken.

        A remote store may write the file and then lose its answer. Then False can also mean "written by this call".
        Compare contents where that matters.
        """
        if isinstance(content, Path) and (self.path is None or content.name.startswith(TEMPORARY)):
            return self._publish_file(name, content)
        with self.scratch(name) as path:
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:  # copied, because a hard link would let later changes of that file into the folder
                shutil.copyfile(content, path)
            return self._publish_file(name, path)

    @_guarded
    def _publish_file(self, name: str, source: Path) -> bool:
        try:
            if self.path is not None:
                _fsync(source)
                target = self.path / name
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(source, target)
                _fsync(target.parent)
            elif self.store.create_only == "conditional put":
                self._fs.put_file(str(source), self._join(name), mode="create")
            elif self._fs.exists(self._join(name)):
                return False
            else:
                self._fs.put_file(str(source), self._join(name))
        except FileExistsError:
            return False
        except OSError as error:
            # Some servers refuse a taken name with a bare 412. The library reports that like any invalid request.
            if self.path is None and error.errno in {errno.EINVAL, errno.EBUSY} and self.exists(name):
                return False
            raise
        return True

    def replace(self, name: str, content: bytes) -> None:
        """Put a whole file under its name, replacing what was there. Only for telemetry, results and caches."""
        self.replace_by(name, lambda path: path.write_bytes(content))

    def replace_by(self, name: str, write: Callable[[Path], object]) -> None:
        """Like `replace`, for content that `write` writes to a path. The path has the suffix of the name."""
        try:
            with self.scratch(name) as path:
                write(path)
                self._replace_file(name, path)
        except (FileNotFoundError, FileExistsError) as error:
            raise as_our_error(error, self.address) from error

    @_guarded
    def _replace_file(self, name: str, source: Path) -> None:
        if self.path is not None:
            target = self.path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
        else:
            self._fs.put_file(str(source), self._join(name))

    @_guarded
    def remove(self, name: str) -> None:
        """Remove a file if it is there."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._join(name))

    @contextmanager
    def without_traces(self) -> Iterator[None]:
        """A context at whose end folders that were made in it are removed, if they are empty: a refused run leaves
        nothing."""
        places = [self.path / "_log", self.path, *self.path.parents] if self.path is not None else []
        new = [place for place in places if not os.path.exists(place)]
        try:
            yield
        finally:
            for place in new:
                with suppress(OSError):  # not empty
                    place.rmdir()

    def within(self, name: str) -> Folder:
        """A folder inside this one."""
        return Folder(f"{self.address}/{name}", self.single_writer)

    def free_bytes(self) -> int | None:
        """Free space in bytes. None: the store has no such figure."""
        if self.path is None:
            return None
        existing = next(parent for parent in (self.path, *self.path.parents) if parent.exists())
        return shutil.disk_usage(existing).free

    def sweep(self) -> int:
        """Remove temporary files of writers that are dead or long gone, here and in `_log`. Returns their number."""
        places = [self.path, self.path / "_log"] if self.path is not None else [Path(tempfile.gettempdir())]
        dead = [path for place in places if place.is_dir() for path in place.glob(f"{TEMPORARY}*") if _is_abandoned(path)]
        for path in dead:
            path.unlink(missing_ok=True)
        return len(dead)

    def _join(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _temporary(self, name: str) -> Path:
        directory = self.path or Path(tempfile.gettempdir())
        directory.mkdir(parents=True, exist_ok=True)
        return directory / f"{TEMPORARY}{writer_name()}-{secrets.token_hex(4)}-{Path(name).name}"


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a whole file on this machine, replacing what was there. Of several processes the last one wins."""
    Folder(str(path.parent)).replace_by(path.name, write)


@functools.cache
def _host() -> str:
    """A name for this host, boot and process namespace. Process ids mean the same wherever it is equal.

    The namespace counts because containers may share a hostname.
    """
    marks = [socket.gethostname()]
    with suppress(OSError):
        marks.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    with suppress(OSError):
        marks.append(os.readlink("/proc/self/ns/pid"))
    return f"{re.sub('[^A-Za-z0-9.]', '_', marks[0])}.{hashlib.blake2b('|'.join(marks).encode(), digest_size=4).hexdigest()}"


def writer_name() -> str:
    """Host and id of this process, as used in names of temporary files and heartbeats."""
    return f"{_host()}-{os.getpid()}"


def is_alive(writer: str, since: float) -> bool | None:
    """Whether the process with a writer name is still alive. None: it is on another host.

    Args:
        since: a Unix time when it was alive.
    """
    host, _, pid = writer.rpartition("-")
    if host != _host() or not pid.isdigit():
        return None
    try:
        process = psutil.Process(int(pid))
        # Process ids are used again: a process that was created later is another one.
        return bool(process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + 2)
    except psutil.NoSuchProcess:
        return False


def _is_abandoned(path: Path) -> bool:
    writer = "-".join(path.name.removeprefix(TEMPORARY).split("-")[:2])
    try:
        modified = path.stat().st_mtime
        alive = is_alive(writer, modified)
        return not alive if alive is not None else time.time() - modified > STALE_SECONDS
    except FileNotFoundError:
        return False


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_of(path: str) -> Any:
    """The content of a path or model, for digests.

    Files on this disk are named by path and SHA-256. Anything else, such as a model of the hub, is named by its name.
    """
    place = Path(resolve(path))
    files = sorted(file for file in (place.rglob("*") if place.is_dir() else [place]) if file.is_file())
    return [[str(file.relative_to(place)), sha256_of(file)] for file in files] or path


def require_writable_file(out: str) -> None:
    """Check that a result can be written to this file, before hours of work depend on it; raises PlaceError."""
    if "://" in out:
        Folder(out.rpartition("/")[0]).require_writable()
        return
    path = Path(out)
    if path.is_dir():
        raise PlaceError(f"{out}: is a folder; name a file, such as {path / 'result.json'}")
    if path.exists() and not path.is_file():
        raise PlaceError(f"{out}: is not a regular file; name another one with --out")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(prefix=f".{path.name[:200]}", suffix=path.name[200:], dir=path.parent):
            pass
    except OSError as error:
        raise PlaceError(f"{out}: can't be written ({error.strerror}); name another file with --out") from error
