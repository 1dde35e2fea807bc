"""Training of one classifier on one set, and the jobs that train many."""
