"""`make bench`: run every benchmark, or those named: `python -m benchmarks engine fit`. `planted` takes data of
your own, so it runs only by name."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "startup",
    "plan",
    "encode",
    "engine",
    "diffusion",
    "fit",
    "memory",
    "select",
    "neighbours",
    "embed",
    "trainer",
    "demo",
    "report",
    "diagnosis",
    "worth",
    "gpu",
)

if __name__ == "__main__":
    if sys.argv[1:2] == ["planted"]:  # on data of one's own
        importlib.import_module("benchmarks.planted").main(sys.argv[2:])
        sys.exit()
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
