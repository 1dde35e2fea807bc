"""`make bench`: run every benchmark, or those named: `python -m benchmarks engine fit`."""

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
    for name in sys.argv[1:] or NAMES:
        importlib.import_module(f"benchmarks.{name}").main()
