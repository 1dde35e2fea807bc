"""Plots of results, as SVG in the page and as SVG and PNG files.

In the page, text is text in the page's font, and colours are CSS variables, since the page has a light and a dark
scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from synthforge.statistics import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIGHT = {
    "ink": "#1c1f24",
    "soft": "#5a626e",
    "line": "#d5d9df",
    "paper": "#ffffff",
    "real": "#2456a6",
    "random": "#8a5a00",
    "curated": "#0b7a53",
    "other": "#7a3b9c",
}
"""Colours by meaning, for a white background."""
_MARKS = {name: f"#0100{number:02x}" for number, name in enumerate(LIGHT)}
_WIDTH = 4.8
"""Inches; at 100 pixels per inch this fits a phone."""


@dataclass(frozen=True)
class Dot:
    """A figure with its interval: one row of a plot."""

    label: str
    value: float
    low: float
    high: float
    colour: str = "ink"


@dataclass(frozen=True)
class Plot:
    """A finished plot."""

    name: str
    alt: str
    """What it shows in words, for screen readers."""
    inline: str
    """SVG for the page."""
    svg: bytes
    png: bytes


def in_points(one: Measured) -> tuple[float, float, float]:
    """Value, low and high of a share or of a difference of shares, times 100."""
    return 100 * one.value, 100 * one.low, 100 * one.high


def dots(
    name: str,
    title: str,
    groups: Mapping[str, Sequence[Dot]],
    axis: str,
    *,
    form: str = ".1f",
    zero: bool = False,
    band: tuple[float, float] | None = None,
) -> Plot:
    """Figures with intervals as rows, in titled groups.

    Args:
        title: what is shown, for screen readers; figures follow in `form`.
        axis: label of the axis, with its unit.
        zero: draw a line at 0.
        band: shade this range. None: no band.
    """
    num = sum(len(rows) for rows in groups.values()) + len(groups)

    def draw(figure: Figure, colours: Mapping[str, str]) -> None:
        from matplotlib.ticker import MaxNLocator

        axes = _axes(figure, colours)
        labels: list[tuple[float, str]] = []
        at = 0.0
        for title, rows in groups.items():
            if title:
                labels.append((at, title))
                at += 1
            for row in rows:
                colour = colours[row.colour]
                axes.plot([row.low, row.high], [at, at], color=colour, linewidth=2, solid_capstyle="round")
                axes.plot([row.value], [at], "o", color=colour, markersize=6)
                labels.append((at, row.label))
                at += 1
            at += 0.4
        if band is not None:
            axes.axvspan(*band, color=colours["line"], alpha=0.6, linewidth=0, zorder=0)
        if zero:
            axes.axvline(0, color=colours["soft"], linewidth=1, zorder=0)
        axes.set_yticks([place for place, _ in labels], [text for _, text in labels])
        for tick, (_, text) in zip(axes.get_yticklabels(), labels, strict=True):
            tick.set_fontweight("bold" if text in groups else "normal")
        axes.set_ylim(at, -0.8)
        axes.set_xlabel(axis)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))  # long labels, such as 0.0012, would touch
        axes.grid(axis="x", color=colours["line"], linewidth=0.6)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

    figures = "; ".join(
        (f"{group}: " if group else "") + ", ".join(f"{row.label} {row.value:{form}}" for row in rows) for group, rows in groups.items()
    )
    return _plot(name, f"{title}. {figures}", draw, 0.9 + 0.27 * num)


def curves(
    name: str, title: str, lines: Mapping[str, tuple[str, Sequence[tuple[float, float, float, float]]]], x_axis: str, y_axis: str
) -> Plot:
    """Lines with interval bands over a logarithmic axis.

    Args:
        lines: for each name its colour, and points of x, value, low, high.
    """

    def draw(figure: Figure, colours: Mapping[str, str]) -> None:
        from matplotlib.ticker import NullFormatter, NullLocator

        axes = _axes(figure, colours)
        ticks: set[float] = set()
        for label, (colour, points) in lines.items():
            x, value, low, high = (list(column) for column in zip(*sorted(points), strict=True))
            axes.plot(x, value, "o-", color=colours[colour], label=label, markersize=5, linewidth=1.8)
            axes.fill_between(x, low, high, color=colours[colour], alpha=0.15, linewidth=0)
            ticks.update(x)
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])
        axes.set_xlabel(x_axis)
        axes.set_ylabel(y_axis)
        axes.grid(color=colours["line"], linewidth=0.6)
        axes.legend(frameon=False, loc="lower right", labelcolor=colours["ink"])

    figures = "; ".join(
        f"{label}: {', '.join(f'{value:.1f} with {x:g}' for x, value, _, _ in points)}" for label, (_, points) in lines.items()
    )
    return _plot(name, f"{title}. {figures}", draw, 3.4)


def _axes(figure: Figure, colours: Mapping[str, str]) -> Axes:
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in {"bottom", "left"})
        spine.set_color(colours["line"])
    axes.tick_params(colors=colours["soft"], labelcolor=colours["ink"])
    axes.xaxis.label.set_color(colours["soft"])
    axes.yaxis.label.set_color(colours["soft"])
    return axes


def _plot(name: str, alt: str, draw: Any, height: float) -> Plot:
    inline = _saved(draw, height, _MARKS, "svg", name).decode()
    inline = inline[inline.index("<svg") :]
    for colour, mark in _MARKS.items():
        inline = inline.replace(mark, f"var(--{colour})")
    # A page holds several plots, so their ids must differ. The page decides the size.
    inline = re.sub(r'\bid="', f'id="{name}-', inline)
    inline = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", inline)
    inline = re.sub(r"<metadata>.*?</metadata>", "", inline, flags=re.DOTALL)
    inline = re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg xmlns="http://www.w3.org/2000/svg" viewBox="\1" aria-hidden="true">', inline, count=1
    )
    return Plot(name, alt, inline, _saved(draw, height, LIGHT, "svg", name), _saved(draw, height, LIGHT, "png", name))


def _saved(draw: Any, height: float, colours: Mapping[str, str], form: str, name: str) -> bytes:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    style: Any = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 10, "text.parse_math": False, "font.family": "sans-serif"}
    buffer = io.BytesIO()
    with mpl.rc_context(style):
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        figure.patch.set_facecolor(colours["paper"])
        figure.patch.set_alpha(1.0 if colours is LIGHT else 0.0)
        draw(figure, colours)
        figure.savefig(buffer, format=form, dpi=160, metadata={"Date": None} if form == "svg" else {})
    return buffer.getvalue()
