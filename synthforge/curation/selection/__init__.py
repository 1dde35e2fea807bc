"""The choice of a subset of a pool, as a set."""
