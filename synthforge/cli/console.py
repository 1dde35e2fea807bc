"""Output of the command line: tables, progress, images in a terminal, sizes and durations."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synthforge.progress import Reporter

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID
    from rich.table import Table

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


def _table(title: str, columns: Iterable[str]) -> Table:
    """An empty table whose first column holds names."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, title=title or None, title_justify="left", title_style="bold")
    table.add_column(no_wrap=bool(title), style="dim")
    for column in columns:
        table.add_column(column)
    return table


def print_evaluation(console: Console, table: TableResult) -> None:
    """Accuracies, differences and exchange rates by the amount of real data, each with its interval."""
    from synthforge.evaluation.results.words import most, percent, points, told, worth_in_words

    kind = "generator trained on these real images only" if table.origin == "own" else "generator trained elsewhere"
    headers, columns = [], []
    for setting in table.settings:
        headers.append(
            f"{setting.real_per_class:g} real images per class, {setting.synthetic_per_real:g} synthetic per real image\n"
            f"{setting.budget:,} real images in total"
        )
        arms = {name: f"{percent(score.accuracy)}, {score.images:,} images" for name, score in setting.arms.items()}
        differences = {
            f"{one.arm} − {one.against}": "\n".join(filter(None, [f"{points(one.difference)} points", told(one), most(one)]))
            for one in setting.comparisons
        }
        rates = {f"exchange rate, {name}": worth_in_words(one) for name, one in setting.worth.items()}
        columns.append((arms | {name: f"not measured: {why}" for name, why in setting.missing.items()}, differences, rates))
    drawn = _table(f"accuracy on the held-out test set ({kind})", headers)
    for section in zip(*columns, strict=True):
        for name in dict.fromkeys(name for column in section for name in column):
            drawn.add_row(name, *(column.get(name, "") for column in section))
        drawn.add_section()
    console.print(drawn, markup=False)


def print_diagnosis(console: Console, table: TableDiagnosis) -> None:
    """The loss and its parts by the amount of real data, and on average, each with its interval."""
    from synthforge.evaluation.results.types import PARTS
    from synthforge.evaluation.results.words import lost
    from synthforge.reporting.answers import TITLES, part_of_loss

    origin = "" if table.origin == "own" else " (generator trained elsewhere)"
    columns = {f"{setting.real_per_class:g} real images per class": setting.loss for setting in table.settings}
    if len(columns) > 1:
        columns["mean"] = table.mean
    drawn = _table(f"accuracy lost with random synthetic images in place of real ones, in points{origin}", columns)

    def in_cell(part: LossPart) -> str:
        verdict = "no relevant loss" if part.verdict == "none" else part.verdict
        return f"{lost(part.loss, 'points')}\n{verdict}" if part.loss is not None else part_of_loss(part) or verdict

    rows = {"total": [loss.whole for loss in columns.values()]}
    rows |= {TITLES[name]: [loss.parts[name] for loss in columns.values()] for name in PARTS}
    for title, parts in rows.items():
        drawn.add_row(title, *map(in_cell, parts))
    console.print(drawn, markup=False)


def print_comparison(console: Console, result: CompareResult) -> None:
    """Runs as columns; settings and figures as rows."""
    drawn = _table("", [run.name for run in result.runs])
    for row in result.rows:
        drawn.add_row(row, *(run.cells.get(row, "") for run in result.runs))
    console.print(drawn, markup=False)


def draw_image(console: Console, data: bytes) -> None:
    """Draw an image as coloured half blocks, two pixels per character. Does nothing on a terminal without colours."""
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

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else 200)


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
    """Progress on standard error: a live bar on a terminal, else one line every ten seconds."""

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
        """Set the number of finished units."""
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
