"""`synthforge --help` answers in under half a second: whole processes, against bare Python."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.harness import keep, seconds, spread

RUNS = 15


def main() -> None:
    command = str(Path(sys.executable).with_name("synthforge"))
    cases = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "synthforge --help": [command, "--help"],
        "synthforge generate --help": [command, "generate", "--help"],
        "synthforge recipe check recipes/digits.yaml": [command, "recipe", "check", "recipes/digits.yaml"],
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(RUNS + 1):
        for name, arguments in cases.items():
            took = seconds(lambda arguments=arguments: subprocess.run(arguments, check=True, capture_output=True))  # type: ignore[misc]
            if turn:  # the first round warms the disk
                times[name].append(took)
    keep("startup", "--help answers in under half a second", {f"{name}, seconds": spread(values) for name, values in times.items()})
