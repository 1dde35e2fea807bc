"""What an evaluation found: scores, comparisons, verdicts, and their words."""
