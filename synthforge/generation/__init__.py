"""`generate` and its inspection: a recipe is unrolled into a plan, and the plan into sealed shards."""
