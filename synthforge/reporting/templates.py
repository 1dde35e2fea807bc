"""Render a page from its template, and write it with its plots."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from synthforge.data.storage import Folder
from synthforge.errors import PlaceError
from synthforge.reporting.answers import distance
from synthforge.reporting.plots import Plot

PLOTS = "plots"


def page_of(template: str, **values: Any) -> bytes:
    """Render a template. All values are escaped, so names in a recipe cannot add markup."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("synthforge.reporting", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code": _code, "distance": distance}
    return environment.get_template(template).render(**values).encode()


def _code(text: str) -> Markup:
    """Text in backticks becomes `<code>`."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped first


def write_page(address: str, page: bytes, plots: Iterable[Plot]) -> list[str]:
    """Write a page, and beside it its plots as SVG and PNG. Returns the plots' addresses; raises PlaceError."""
    place, _, file = address.rpartition("/")
    folder, written = Folder(place), []
    try:
        if folder.path is not None:
            Path(folder.path, PLOTS).mkdir(parents=True, exist_ok=True)
        for plot in plots:
            for ending, data in (("svg", plot.svg), ("png", plot.png)):
                folder.within(PLOTS).replace(f"{plot.name}.{ending}", data)
                written.append(f"{place}/{PLOTS}/{plot.name}.{ending}")
        folder.replace(file, page)
    except OSError as error:
        raise PlaceError(f"{address}: can't be written ({error.strerror}); name another file with --out") from error
    return written
