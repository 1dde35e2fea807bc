"""`synthforge run recipes/digits.yaml` from nothing to the page, in a process of its own, and where the time goes; then
once more.

Asked are under five minutes on two cores, and under three for evaluate (3 amounts of real data x 4 arms x 5 seeds, with
tuning and the check of steps). Nothing is there before: pools, features and trainings are made anew in each run. Two to
five minutes a run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from benchmarks.harness import keep, seconds, spread

RUNS = 3


def main() -> None:
    found: dict[str, list[float]] = {}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as place:
            sets = ["--set", f"output.path={place}/run", "--set", f"curation.cache={place}/cache"]
            command = [sys.executable, "-m", "synthforge", "run", "recipes/digits.yaml", "--json", *sets]
            told: list[bytes] = []
            took = seconds(lambda told=told, command=command: told.append(subprocess.run(command, check=True, capture_output=True).stdout))  # type: ignore[misc]
            found.setdefault("in all", []).append(took)
            for stage in json.loads(told[0])["stages"]:
                found.setdefault(stage["stage"], []).append(stage["seconds"])
            again = seconds(lambda command=command: subprocess.run(command, check=True, capture_output=True))  # type: ignore[misc]
            found.setdefault("a second time", []).append(again)
    keep(
        "demo",
        "how long the demo takes, from nothing to the page; five minutes are asked on two cores, and three for evaluate",
        {f"{part}, seconds": spread(took) for part, took in found.items()},
    )


if __name__ == "__main__":
    main()
