"""Generate, curate and evaluate the digits in whole processes, as a user does, and where evaluate's time goes.

Asked of evaluate: 3 amounts of real data x 4 arms x 5 seeds, with tuning and the check of steps, in under three minutes on two cores.
Nothing is there before: pools, features and trainings are made anew in each run. Five minutes a run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.harness import keep, seconds, spread

RUNS = 3
PARTS = {"start": "reading the real images", "pools, curation, tuning": "opening the holdout"}
"""What ends each part: the first line that begins so; the rest are the arms and what follows from them."""


def main() -> None:
    found: dict[str, list[float]] = {}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as place:
            sets = ["--set", f"output.path={place}/run", "--set", f"curation.cache={place}/cache"]
            for verb in ("generate", "curate"):
                took = seconds(lambda verb=verb, sets=sets: subprocess.run(_command(verb, sets), check=True, capture_output=True))  # type: ignore[misc]
                found.setdefault(verb, []).append(took)
            for part, took in _evaluate(sets).items():
                found.setdefault(part, []).append(took)
    keep(
        "demo",
        "how long the demo takes; three minutes are asked of evaluate on two cores",
        {f"{part}, seconds": spread(took) for part, took in found.items()},
    )


def _evaluate(sets: list[str]) -> dict[str, float]:
    started = last = time.perf_counter()
    parts: dict[str, float] = {}
    ends = iter(PARTS.items())
    name, mark = next(ends)
    with subprocess.Popen(_command("evaluate", sets), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if mark and line.startswith(mark):
                now = time.perf_counter()
                parts[f"evaluate: {name}"], last = now - last, now
                name, mark = next(ends, ("arms and figures", ""))
    if process.returncode:
        raise SystemExit(f"evaluate ended with status {process.returncode}")
    now = time.perf_counter()
    return {"evaluate": now - started, **parts, f"evaluate: {name}": now - last}


def _command(verb: str, sets: list[str]) -> list[str]:
    return [str(Path(sys.executable).with_name("synthforge")), verb, "recipes/digits.yaml", *sets]


if __name__ == "__main__":
    os.environ["COLUMNS"] = "200"
    main()
