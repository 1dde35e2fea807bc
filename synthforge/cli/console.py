"""How the command line looks: summaries, progress, pictures in a terminal, sizes and durations in words."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthforge.progress import Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from synthforge.evaluation.results.types import LossPart, TableDiagnosis, TableResult
    from synthforge.reporting.compare import CompareResult


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_rows(console: Console, title: str, rows: dict[str, str]) -> None:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        if value:
            table.add_row(name, value)
    console.print(title, style="bold", markup=False)
    console.print(table, markup=False)


def print_evaluation(console: Console, table: TableResult) -> None:
    """Arms and comparisons by the amount of real data, each with its interval."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from synthforge.evaluation.results.words import most, percent, points, told, worth_in_words

    kind = "all that was fitted has seen these real images alone" if table.origin == "own" else "generator from elsewhere"
    drawn = Table(box=SIMPLE_HEAD, title=f"accuracy on the holdout: {kind}", title_justify="left", title_style="bold")
    drawn.add_column(no_wrap=True, style="dim")
    by_column = []
    for setting in table.settings:
        asked = f"{setting.real_per_class:g} real per class, {setting.synthetic_per_real:g} synthetic for each"
        drawn.add_column(f"{asked}\n{setting.budget:,} real images in all")
        arms = {name: f"{percent(score.accuracy)}, {score.images:,} images" for name, score in setting.arms.items()}
        differences = {
            f"{one.arm} less {one.against}": "\n".join(filter(None, [points(one.difference), told(one), most(one)]))
            for one in setting.comparisons
        }
        worths = {f"worth of {name}": worth_in_words(one) for name, one in setting.worth.items()}
        by_column.append((arms | {name: f"none: {why}" for name, why in setting.missing.items()}, differences, worths))
    for section in zip(*by_column, strict=True):
        for name in dict.fromkeys(name for column in section for name in column):
            drawn.add_row(name, *(column.get(name, "") for column in section))
        drawn.add_section()
    console.print(drawn, markup=False)


def print_diagnosis(console: Console, table: TableDiagnosis) -> None:
    """The loss and its parts by the amount of real data, and over all, each with its interval."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from synthforge.evaluation.results.types import PARTS
    from synthforge.evaluation.results.words import points

    origin = "" if table.origin == "own" else ", of a generator from elsewhere"
    drawn = Table(box=SIMPLE_HEAD, title=f"points of accuracy lost by synthetic images{origin}", title_justify="left", title_style="bold")
    drawn.add_column(no_wrap=True, style="dim")
    losses = [one.loss for one in table.settings]
    for one in table.settings:
        drawn.add_column(f"{one.real_per_class:g} real per class")
    if len(losses) > 1:
        losses.append(table.mean)
        drawn.add_column("mean")

    def add(name: str, parts: Sequence[LossPart]) -> None:
        drawn.add_row(name, *(f"{points(one.loss)}\n{one.verdict}" if one.loss is not None else one.verdict for one in parts))

    add("in all", [loss.whole for loss in losses])
    for name in PARTS:
        add(name, [loss.parts[name] for loss in losses])
    console.print(drawn, markup=False)


def print_comparison(console: Console, result: CompareResult) -> None:
    """Runs as columns, what was asked for and found as rows."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    drawn = Table(box=SIMPLE_HEAD)
    drawn.add_column(style="dim")
    for one in result.runs:
        drawn.add_column(one.name)
    for row in result.rows:
        drawn.add_row(row, *(one.cells.get(row, "") for one in result.runs))
    console.print(drawn, markup=False)


def draw_image(console: Console, data: bytes) -> None:
    """The image as coloured half blocks, two pixels a character; only on a terminal that shows colours."""
    if not console.is_terminal or console.color_system is None:
        return
    from rich.color import Color
    from rich.style import Style
    from rich.text import Text

    from synthforge.data.images import decode, resize

    image = decode(data, 3)
    if max(image.shape[:2]) > 48:
        image = resize(image, 48)
    for top in range(0, image.shape[0] - 1, 2):
        line = Text()
        for upper, lower in zip(image[top], image[top + 1], strict=True):
            line.append("▀", Style(color=Color.from_rgb(*map(int, upper)), bgcolor=Color.from_rgb(*map(int, lower))))
        console.print(line)


def stdout() -> Console:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 200)


def say(text: str) -> None:
    print(text, file=sys.stderr)


def size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.0f} PB"


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def relative(address: str) -> str:
    path = Path(address)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else address


class ConsoleReporter(Reporter):
    """Draws progress on standard error: a live bar on a terminal, a line now and then elsewhere."""

    LINE_SECONDS = 10.0

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._total = self._first = self._done = 0
        self._started = self._last_line = 0.0
        self._what = self._unit = ""

    def note(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            say(text)

    def begin(self, task: str, total: int, done: int = 0, unit: str = "images") -> None:
        if self._quiet:
            return
        self._what, self._unit, self._total, self._first, self._done = task, unit, total, done, done
        self._started = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (
                TextColumn(task),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[extra]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task(task, total=total, completed=done, rate="", extra="")
            self._bar.start()

    def advance(self, num: int) -> None:
        self.reach(self._done + num)

    def reach(self, done: int, extra: str = "") -> None:
        """Work is done up to here."""
        if self._quiet:
            return
        self._done = done
        now = time.monotonic()
        rate = (done - self._first) / max(now - self._started, 1e-9)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, rate=f"{rate:,.0f} {self._unit}/s", extra=extra)
        elif now - self._last_line >= self.LINE_SECONDS:
            self._last_line = now
            left = duration((self._total - done) / rate) if rate else "?"
            say(f"{self._what}: {done:,} of {self._total:,} {self._unit}, {rate:,.0f}/s, {left} left {extra}".rstrip())

    def end(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = self._task = None
