"""Peak memory does not grow with the number of samples: whole processes, 1,000 against 20,000 samples."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from benchmarks.harness import keep, spread

RUNS = 3
CODE = """
import sys
from pathlib import Path
from synthforge.generation.run import generate
from synthforge.recipe.load import load_recipe
generate(load_recipe("recipes/digits.yaml", sys.argv[1:]))
# Not ru_maxrss, which a child takes over from the process that started it.
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 1024)
"""


def main() -> None:
    found = {}
    for num in (1_000, 20_000):
        peaks = []
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as directory:
                sets = [f"count={{total: {num}}}", f"output.path={directory}", "output.samples_per_shard=500"]
                out = subprocess.check_output([sys.executable, "-c", CODE, *sets], text=True, env=os.environ)
                peaks.append(float(out.split()[-1]))
        found[f"{num:,} samples, peak MiB"] = spread(peaks)
    keep("memory", "peak memory does not grow with the number of samples", found)
