"""Results of an evaluation: scores, comparisons, verdicts, and their words."""
