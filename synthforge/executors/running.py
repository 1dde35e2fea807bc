"""Run a list of units to their end with a progress bar: in this process, or in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from synthforge.executors.inline import InlineExecutor
from synthforge.executors.local import LocalExecutor
from synthforge.executors.protocol import Executor, Failed, Finished, U, Work
from synthforge.progress import Reporter

R = TypeVar("R")


def run_all(
    work: Work[U, R],
    units: Sequence[U],
    workers: int,
    *,
    task: str,
    reporter: Reporter,
    size: Callable[[U], int],
    name: Callable[[U], str],
    done: int = 0,
    what: str = "images",
    tries: int = 1,
    deadline_seconds: float = 600.0,
) -> tuple[list[Finished[U, R]], list[Failed[U]]]:
    """What is finished and what has failed for good, in any order.

    Args:
        task, what: for the progress bar.
        size: what a unit adds to progress.
        name: of a unit, for notes on failed tries.
        done: progress that was made before.
    """
    count = min(workers, len(units))
    executor: Executor[U, R] = (
        InlineExecutor(work) if count <= 1 else LocalExecutor(work, count, deadline_seconds=deadline_seconds, note=reporter.note)
    )
    finished: list[Finished[U, R]] = []
    failed: list[Failed[U]] = []
    with executor:
        executor.open()
        reporter.begin(task, done + sum(map(size, units)), done, unit=what)
        outcomes = executor.run(
            iter(units),
            tries=tries,
            size=size,
            on_progress=reporter.advance,
            on_try_failed=lambda unit, reason, number: reporter.note(f"try {number} of {tries}: {name(unit)}: {reason}"),
        )
        for outcome in outcomes:
            if isinstance(outcome, Failed):
                failed.append(outcome)
            else:
                finished.append(outcome)
        reporter.end()
    return finished, failed
