"""The page of a pool of 100,000 images: its size, and what drawing it takes; beside that of 5,000. Some six minutes on
two cores.

Asked is a page below 10 MB. Pools are made and curated anew; nothing is trained.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from benchmarks.harness import keep, seconds

PER_CLASS = (500, 10_000)


def main() -> None:
    found = {}
    for number in PER_CLASS:
        with tempfile.TemporaryDirectory() as place:
            sets = ["--set", f"output.path={place}/run", "--set", f"curation.cache={place}/cache", "--set", f"count.per_class={number}"]
            took = {}
            for verb in ("generate", "curate", "report"):
                command = [sys.executable, "-m", "synthforge", verb, "recipes/digits.yaml", "--json", *sets]
                told: list[bytes] = []
                took[f"{verb}, seconds"] = round(
                    seconds(
                        lambda told=told, command=command: told.append(subprocess.run(command, check=True, capture_output=True).stdout)
                    ),  # type: ignore[misc]
                    1,
                )
            found[f"{10 * number:,} images"] = {"page, bytes": json.loads(told[0])["bytes"], **took}
    keep("report", "the page of a pool of any size is below 10 MB", found)


if __name__ == "__main__":
    main()
