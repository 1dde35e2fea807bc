"""One file per claim; each measures a ratio against a bare loop or a physical limit in one run, and writes what it
found to results/."""
