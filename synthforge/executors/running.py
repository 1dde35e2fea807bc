"""Run lists of units to their end with a progress bar: in this process, or in several that one run leaves open for the next."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from synthforge.executors.inline import InlineExecutor
from synthforge.executors.local import LocalExecutor
from synthforge.executors.process import end_early
from synthforge.executors.protocol import Executor, Failed, Finished, U, Work
from synthforge.progress import Reporter

R = TypeVar("R")


class Workers(Generic[U, R]):
    """Workers for one kind of work, started when the first units come; a context manager that ends them.

    Args:
        most: as many processes at a time; fewer where there are fewer units.
        deadline_seconds: see `LocalExecutor`.
    """

    def __init__(self, work: Work[U, R], most: int, reporter: Reporter, *, deadline_seconds: float = 600.0) -> None:
        self._work, self._most, self._reporter, self._deadline = work, most, reporter, deadline_seconds
        self._executor: Executor[U, R] | None = None
        self._num = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        executor, self._executor = self._executor, None
        if executor is not None:
            executor.__exit__(kind, error, trace)

    def run(
        self,
        units: Sequence[U],
        *,
        task: str,
        size: Callable[[U], int],
        name: Callable[[U], str],
        done: int = 0,
        what: str = "images",
        tries: int = 1,
        beside: Sequence[U] = (),
        deadline_seconds: float | None = None,
    ) -> tuple[list[Finished[U, R]], list[Failed[U]]]:
        """What is finished and what has failed for good, in any order.

        Args:
            task, what: for the progress bar.
            size: what a unit adds to progress.
            name: of a unit, for notes on failed tries.
            done: progress that was made before.
            beside: of size 0, with one try; done by workers that have no unit left, until the last unit is done or one of these has failed.
                The rest of them are left.
            deadline_seconds: of these units, if it is another.
        """
        assert not beside or tries == 1, "units that are to be tried again would come after all that stand beside"
        executor, reporter = self._for(len(units) + len(beside)), self._reporter
        if isinstance(executor, LocalExecutor):
            executor.allow(deadline_seconds or self._deadline)
        reporter.begin(task, done + sum(map(size, units)), done, unit=what)
        finished: list[Finished[U, R]] = []
        failed: list[Failed[U]] = []
        left = {*units} if beside else set()

        def feed() -> Iterator[U]:
            yield from units
            yield from itertools.takewhile(lambda unit: left, beside)

        try:
            outcomes = executor.run(
                feed(),
                tries=tries,
                size=size,
                on_progress=reporter.advance,
                on_try_failed=lambda unit, reason, number: reporter.note(f"try {number} of {tries}: {name(unit)}: {reason}"),
            )
            for outcome in outcomes:
                if isinstance(outcome, Failed) and outcome.unit not in left:
                    left.clear()
                elif left:
                    left.discard(outcome.unit)
                if isinstance(outcome, Failed):
                    failed.append(outcome)
                else:
                    finished.append(outcome)
        finally:
            reporter.end()
        return finished, failed

    def _for(self, num_units: int) -> Executor[U, R]:
        """Those that are open, or more if so many units want more."""
        num = max(1, min(self._most, num_units))
        if self._executor is None or num > self._num:
            self.__exit__(None, None, None)
            self._num = num
            self._executor = (
                InlineExecutor(self._work)
                if num == 1
                else LocalExecutor(self._work, num, deadline_seconds=self._deadline, note=self._reporter.note)
            )
            self._executor.open()
            if num == self._most:  # otherwise a longer list may want them
                end_early()
        return self._executor
