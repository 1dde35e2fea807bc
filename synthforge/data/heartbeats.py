"""Heartbeats: each process that writes to a dataset folder keeps a small file below `_log/`, outside every digest.

With heartbeats, writers begin with different shards, and `status` can tell the rate and the time left.
`--overwrite` refuses while another process writes.
Heartbeats are hints, not locks. Only create-only publishing keeps the data correct.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType

from synthforge.data.layout import LOG, canonical_json
from synthforge.data.storage import Folder, is_alive, writer_name
from synthforge.errors import SynthforgeError

BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0
"""A writer on another host whose last beat is older than this counts as dead."""

_PREFIX = "writer-"


@dataclass(frozen=True)
class Beat:
    """One heartbeat of a writer."""

    writer: str
    """Host and process id; see `storage.writer_name`."""
    shards: list[int]
    """Numbers of the shards in work: on the device, being compressed, or being committed."""
    images: int
    """Images made so far."""
    images_per_second: float
    started: float
    """When the writer started, in Unix time."""
    beat: float
    """When this heartbeat was written, in Unix time."""

    @property
    def is_live(self) -> bool:
        """Whether the process is alive. On another host, a recent heartbeat counts as alive."""
        alive = is_alive(self.writer, self.started)
        return alive if alive is not None else time.time() - self.beat < STALE_SECONDS


class Heartbeat:
    """A context in which other processes can see that this one writes to the folder."""

    def __init__(self, folder: Folder) -> None:
        self._log = folder.within(LOG)
        self._name = f"{_PREFIX}{writer_name()}-{secrets.token_hex(4)}.json"
        self._lock = threading.Lock()
        self._last = Beat(writer_name(), [], images=0, images_per_second=0.0, started=time.time(), beat=0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        for name, beat in _beats(self._log):
            if not beat.is_live:
                self._log.remove(name)
        self._send()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(SynthforgeError, OSError):
            self._log.remove(self._name)

    def tell(self, *, images: int, rate: float) -> None:
        """Set the progress that the next heartbeat reports."""
        with self._lock:
            self._last = replace(self._last, images=images, images_per_second=rate)

    def claim(self, shard: int) -> None:
        """Report at once that this process starts to make a shard."""
        with self._lock:
            self._last.shards.append(shard)
        self._send()

    def drop(self, shard: int) -> None:
        """Report with the next heartbeat that a shard is committed or has failed."""
        with self._lock:
            self._last.shards.remove(shard)

    def claimed_by_others(self) -> set[int]:
        """Numbers of the shards that other live writers are making."""
        return {shard for beat in self.others() for shard in beat.shards}

    def others(self) -> list[Beat]:
        """The other live writers of this folder."""
        return [beat for beat in live_writers(self._log) if beat.writer != writer_name()]

    def _beat_on(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._send()

    def _send(self) -> None:
        with self._lock:
            beat = replace(self._last, shards=list(self._last.shards), beat=time.time())
        # A heartbeat that can't be written does not stop the work. If the store is really gone, the next commit fails.
        with suppress(SynthforgeError, OSError):
            self._log.replace(self._name, canonical_json(asdict(beat)))


def live_writers(log: Folder) -> list[Beat]:
    """Heartbeats of the live writers in a `_log` folder."""
    return [beat for _, beat in _beats(log) if beat.is_live]


def _beats(log: Folder) -> Iterator[tuple[str, Beat]]:
    for name in log.list():
        if name.startswith(_PREFIX):
            with suppress(FileNotFoundError, ValueError, TypeError):  # it may be gone, or from another version
                yield name, Beat(**json.loads(log.read(name)))
