"""A plan of 10^8 samples starts at once and costs constant memory."""

from __future__ import annotations

import tracemalloc

from benchmarks.harness import keep, seconds, spread
from synthforge.generation.order import Apportionment
from synthforge.generation.plan import Plan
from synthforge.recipe.load import load_recipe


def main() -> None:
    sets = ["count={total: 100000000}", "classes.3.weight=2.5", "classes.7.weight=0.3", "sampling.guidance=[1, 1.5, 2]"]
    recipe = load_recipe("recipes/digits.yaml", sets)
    plans = [Plan.of(recipe) for _ in range(9)]
    first = [seconds(lambda plan=plan: plan[0]) for plan in plans]  # type: ignore[misc]
    last = [seconds(lambda plan=plan: plan[99_999_999]) for plan in plans]  # type: ignore[misc]
    tracemalloc.start()
    plan = Plan.of(recipe)
    for index in range(0, 100_000_000, 1_000_003):
        _ = plan[index]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    rate = 20_000 / seconds(lambda: [plan[index] for index in range(20_000)])
    odd = Apportionment([1 / 3, 1 / 7, 1 / 11])  # long decimals: the longest period there is
    keep(
        "plan",
        "first sample of 10^8 in milliseconds, constant memory",
        {
            "first sample, milliseconds": spread([1000 * value for value in first]),
            "last sample, milliseconds": spread([1000 * value for value in last]),
            "peak memory of 100 samples spread over the plan, MB": round(peak / 1e6, 2),
            "samples per second, in order": round(rate),
            "worst case: sample 10^8 - 1 under weights 1/3, 1/7, 1/11, seconds": round(seconds(lambda: odd.at(99_999_999)), 2),
        },
    )
