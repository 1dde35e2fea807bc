"""Run lists of units with a progress bar: in this process, or in workers that stay open for the next list."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Generic, Self, TypeVar

from synthforge.executors.inline import InlineExecutor
from synthforge.executors.local import LocalExecutor
from synthforge.executors.protocol import Executor, Failed, Finished, Outcome, Terms, U, Work
from synthforge.progress import Reporter

R = TypeVar("R")


class Workers(Generic[U, R]):
    """Workers for one kind of work, started with the first list of units. A context manager that ends them.

    Args:
        most: largest number of processes. With fewer units there are fewer processes.
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
        """Run a list of units. Returns the finished and the failed ones, in any order.

        Args:
            task, what: name of the task and of what is counted, for the progress bar.
            size: what a unit adds to the progress.
            name: gives the name of a unit, for notes on failed tries.
            done: progress from before.
            tries: most tries of a unit.
            beside: optional units of size 0, with one try, for idle workers. They end when the last of `units` is done,
                or when one of them fails; the rest is left out.
            deadline_seconds: deadline for these units. None: as in the constructor.
        """
        assert not beside or tries == 1, "a unit that is tried again would come after all units in `beside`"
        executor, reporter = self._for(len(units) + len(beside)), self._reporter
        if isinstance(executor, LocalExecutor):
            executor.allow(deadline_seconds or self._deadline)
        reporter.begin(task, done + sum(map(size, units)), done, unit=what)
        outcomes: list[Outcome[U, R]] = []
        left = {*units} if beside else set()

        def feed() -> Iterator[U]:
            yield from units
            yield from itertools.takewhile(lambda unit: left, beside)

        def on_try_failed(unit: U, reason: str, number: int) -> None:
            reporter.note(f"try {number} of {tries}: {name(unit)}: {reason}")

        try:
            for outcome in executor.run(feed(), Terms(tries, size, reporter.advance, on_try_failed)):
                outcomes.append(outcome)
                if isinstance(outcome, Failed) and outcome.unit not in left:
                    left.clear()
                elif left:
                    left.discard(outcome.unit)
        finally:
            reporter.end()
        return [one for one in outcomes if isinstance(one, Finished)], [one for one in outcomes if isinstance(one, Failed)]

    def _for(self, num_units: int) -> Executor[U, R]:
        """The open executor, or a new one if this many units need more workers."""
        num = max(1, min(self._most, num_units))
        if self._executor is None or num > self._num:
            self.__exit__(None, None, None)
            self._num = num
            if num == 1:
                self._executor = InlineExecutor(self._work)
            else:
                self._executor = LocalExecutor(self._work, num, deadline_seconds=self._deadline, note=self._reporter.note)
            self._executor.open()
        return self._executor
