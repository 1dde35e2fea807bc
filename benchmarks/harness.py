"""Pair two ways of doing the same, print medians and ranges, keep them with hardware and versions."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": round(statistics.median(values), 4), "min": round(min(values), 4), "max": round(max(values), 4), "n": len(values)}


def paired(one: Callable[[], float], other: Callable[[], float], n: int) -> dict[str, Any]:
    """Run two measurements in turn, once to warm up and then n times; rates of both and the ratio of each pair."""
    one()
    other()
    pairs = [(one(), other()) if turn % 2 == 0 else (other(), one())[::-1] for turn in range(n)]
    return {
        "rate": spread([a for a, _ in pairs]),
        "bare": spread([b for _, b in pairs]),
        "ratio": spread([a / b for a, b in pairs]),
    }


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def machine() -> dict[str, Any]:
    import torch

    processor = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), "?")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("synthforge", "torch", "diffusers", "numpy", "pillow", "pyarrow")},
    }


def keep(name: str, claim: str, found: dict[str, Any], part: str = "") -> None:
    """Print what was found and write it to results/NAME.json, or one part of it to results/NAME-PART.json."""
    document = {
        "claim": claim,
        "command": f"python -m benchmarks {name}",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "found": found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{'-'.join(filter(None, (name, part)))}.json").write_text(json.dumps(document, indent=2) + "\n")
    print(f"{name}: {claim}")
    print(json.dumps(found, indent=2))
