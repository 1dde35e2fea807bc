"""Work that executors run in their tests: squares numbers, several in flight, and fails as it is told to. Imports
nothing heavy.

What happened is written to files, because workers are other processes and may be killed at any moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synthforge.errors import ModelError, RecipeError, RequestError, ShardFailed, StorageFailed, SynthforgeError, WorkError
from synthforge.executors.local import LocalExecutor
from synthforge.executors.protocol import Place, Terms

SIZE = 10
"""Samples of a unit; reported in two halves, and a fault strikes between them."""
ALWAYS = 1_000_000


class Hopeless(WorkError):
    """A failure that another try can't change."""

    is_final = True


class Placed(RequestError):
    """An error whose constructor takes other arguments than it hands on."""

    def __init__(self, where: str, what: str) -> None:
        self.where = where
        super().__init__(f"{where}: {what}")


@dataclass
class Squares:
    """The square of each unit.

    Args:
        folder: where what happened is written.
        faults: unit (or "open", "begin", "close") to what goes wrong and how often, such as {3: ("kill", 1)}.
        depth: units in flight.
        seconds: time for a unit.
        opening: worker number to seconds that it takes to open.
    """

    folder: str
    faults: dict[int | str, tuple[str, int]] = field(default_factory=dict)
    depth: int = 3
    seconds: float = 0.005
    opening: dict[int, float] = field(default_factory=dict)
    chatter: str = ""

    def open(self, place: Place) -> Stream:
        self.write("opened", f"{place.worker}/{place.workers} {os.getpid()}")
        if self.chatter:
            print(self.chatter, "print", flush=True)
            os.write(1, f"{self.chatter} write\n".encode())
        time.sleep(self.opening.get(place.worker, 0))
        self.strike("open")
        return Stream(self, place)

    def write(self, name: str, line: str) -> None:
        with (Path(self.folder) / name).open("a") as file:
            file.write(line + "\n")

    def read(self, name: str) -> list[str]:
        path = Path(self.folder) / name
        return path.read_text().splitlines() if path.exists() else []

    def strike(self, what: int | str, neighbours: Iterable[int] = ()) -> SynthforgeError | None:
        """Do what is to go wrong; the error of a failed try is returned. Writes what else was in flight."""
        kind, times = self.faults.get(what, ("", 0))
        if len(self.read(f"fault-{what}")) >= times:
            return None
        self.write(f"fault-{what}", ",".join(map(str, neighbours)))
        match kind:
            case "fail":
                return ShardFailed(f"unit {what} failed")
            case "hopeless":
                return Hopeless(f"unit {what} is hopeless")
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "hang":
                time.sleep(600)
            case "bug":
                raise ZeroDivisionError("division\nby nothing")
            case "storage":
                raise StorageFailed("disk full")
            case "request":
                raise ModelError("no such model; give another")
            case "recipe":
                raise RecipeError(["first: wrong", "second: wrong too"])
        return None


class Stream:
    def __init__(self, work: Squares, place: Place) -> None:
        self.work, self.place = work, place
        self.in_flight: deque[int] = deque()

    def describe(self) -> dict[str, Any]:
        return {"worker": self.place.worker, "pid": os.getpid()}

    def run(
        self, units: Iterator[int], advance: Callable[[int], None]
    ) -> Generator[tuple[int, tuple[int, int] | SynthforgeError], None, None]:
        self.in_flight.clear()
        for unit in units:
            self.in_flight.append(unit)
            self.work.write("taken", str(unit))
            if len(self.in_flight) >= self.work.depth:
                yield self._made(self.in_flight.popleft(), advance)
        while self.in_flight:
            yield self._made(self.in_flight.popleft(), advance)

    def _made(self, unit: int, advance: Callable[[int], None]) -> tuple[int, tuple[int, int] | SynthforgeError]:
        self.work.strike("begin")
        advance(SIZE // 2)
        for _ in range(4):
            time.sleep(self.work.seconds / 4)  # a process that is stopped meanwhile needs the rest later
        error = self.work.strike(unit, self.in_flight)
        if error is not None:
            advance(-(SIZE // 2))
            return unit, error
        advance(SIZE - SIZE // 2)
        return unit, (unit * unit, self.place.worker)

    def close(self) -> None:
        self.work.strike("close")
        self.work.write("closed", str(self.place.worker))


class Losing(Squares):
    """Its stream takes a unit and ends."""

    def open(self, place: Place) -> Any:
        super().open(place)
        return LosingStream(self, place)


class LosingStream(Stream):
    def run(self, units: Iterator[int], advance: Callable[[int], None]) -> Generator[Any, None, None]:
        next(units)
        yield from ()


class FirstOnly(Squares):
    """Only its first worker has a device that works."""

    def open(self, place: Place) -> Stream:
        if place.worker > 0:
            os._exit(3)
        return super().open(place)


class OnlyOnce(Squares):
    """Its model is gone when it is opened again."""

    def open(self, place: Place) -> Stream:
        if self.read("opened"):
            raise ModelError("the model is gone; put it back")
        return super().open(place)


def run_all(executor: Any, units: list[int]) -> list[int]:
    """What a script does with an executor; the squares."""
    terms = Terms(3, lambda unit: SIZE, lambda num: None, lambda *told: None)
    with closing(executor.run(iter(units), terms)) as outcomes:
        return sorted(outcome.receipt[0] for outcome in outcomes)


def main(folder: str, faults: str, chatter: str) -> None:
    """A program that runs work in two processes and prints JSON."""
    work = Squares(folder, {int(unit): ("hang", ALWAYS) for unit in faults.split(",") if unit}, chatter=chatter)
    with LocalExecutor(work, 2) as executor:
        executor.open()
        print(json.dumps(run_all(executor, list(range(6)))))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RequestError as error:
        sys.exit(str(error))
