"""Who is writing to a folder now: a small heartbeat file per process below `_log/`, outside every digest.

Heartbeats are advice, not locks: they let writers begin with different shards, `status` tell rate and time left, and
`--overwrite` refuse while somebody writes. Correctness rests on create-only publishing alone.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
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
    """What one writer says of itself."""

    writer: str
    shards: list[int]
    """The shards it is making: on the device, being encoded, or being committed."""
    images: int
    """Images made so far."""
    images_per_second: float
    started: float
    """Unix time."""
    beat: float
    """Unix time of this beat."""

    @property
    def is_live(self) -> bool:
        """Whether the process lives, as far as can be told from here."""
        alive = is_alive(self.writer, self.started)
        return alive if alive is not None else time.time() - self.beat < STALE_SECONDS


class Heartbeat:
    """Tells others that this process writes here, from entering the context to leaving it."""

    def __init__(self, folder: Folder) -> None:
        self._log = folder.within(LOG)
        self._name = f"{_PREFIX}{writer_name()}-{secrets.token_hex(4)}.json"
        self._started = time.time()
        self._lock = threading.Lock()
        self._shards: list[int] = []
        self._images = 0
        self._rate = 0.0
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
        """Note what was done so far; it goes out with the next beat."""
        with self._lock:
            self._images, self._rate = images, rate

    def claim(self, shard: int) -> None:
        """Say at once that this process makes a shard now."""
        with self._lock:
            self._shards.append(shard)
        self._send()

    def drop(self, shard: int) -> None:
        """The shard is committed, or failed; goes out with the next beat."""
        with self._lock:
            self._shards.remove(shard)

    def claimed_by_others(self) -> set[int]:
        """Shards that other live writers are making."""
        return {shard for beat in self.others() for shard in beat.shards}

    def others(self) -> list[Beat]:
        """The other live writers of this folder."""
        return [beat for beat in live_writers(self._log) if beat.writer != writer_name()]

    def _beat_on(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            self._send()

    def _send(self) -> None:
        with self._lock:
            beat = Beat(writer_name(), list(self._shards), self._images, self._rate, started=self._started, beat=time.time())
        # A beat that can't be written is no reason to stop work; a store that is really gone stops the next commit.
        with suppress(SynthforgeError, OSError):
            self._log.replace(self._name, canonical_json(asdict(beat)))


def live_writers(log: Folder) -> list[Beat]:
    """The writers whose heartbeats lie in a `_log` folder and who live."""
    return [beat for _, beat in _beats(log) if beat.is_live]


def _beats(log: Folder) -> Iterator[tuple[str, Beat]]:
    for name in log.list():
        if name.startswith(_PREFIX):
            with suppress(FileNotFoundError, ValueError, TypeError):  # it may be removed, or a beat of another version
                yield name, Beat(**json.loads(log.read(name)))
